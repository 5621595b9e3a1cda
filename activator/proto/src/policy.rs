//! What this network offers to others, and to whom: the export table.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;
use model::{ExportName, Exports, MAX_SERVICE_NAME, NetworkName, NodeId, NodeName, ServiceName};
use protocol::document;

use crate::{who::Who, wildcard::Wildcard};

/// Services one activator can export: all of them stand in one registration, which must stay under 16 KiB.
pub const MAX_EXPORTS: usize = 128;

/// Bytes of a registration that its services may take: the rest is for 64 relays.
const MAX_ANNOUNCED: usize = 12 * 1024;

/// Ports one service can have per protocol; more belong into several services.
pub const MAX_PORTS: usize = 64;

/// One exported service: a name, where it really is, and what of it can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// The name under which other networks know it.
    pub name: ServiceName,
    /// Its real IPv4 addresses; a link is bound to one of them.
    pub ipv4: Vec<Ipv4Addr>,
    /// Its real IPv6 addresses; a link is bound to one of them.
    pub ipv6: Vec<Ipv6Addr>,
    /// TCP ports that can be reached.
    pub tcp: Ports,
    /// UDP ports that can be reached.
    pub udp: Ports,
    /// Who may use it; absent: every enrolled workload of the mesh.
    pub allow: Option<Vec<Who>>,
}

/// A set of ports, made for a handful of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(Box<[u16]>);

impl Ports {
    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<u16> for Ports {
    fn from_iter<I: IntoIterator<Item = u16>>(ports: I) -> Self {
        let sorted: BTreeSet<u16> = ports.into_iter().collect();
        Self(sorted.into_iter().collect())
    }
}

/// Why an export table is refused. Names the export, because it is shown to whoever wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// Two exports with one name.
    #[error("the name `{0}` is exported twice; merge the two or rename one")]
    Duplicate(ExportName),
    /// Nowhere to forward to.
    #[error("`{0}` has no address; give at least one IPv4 or IPv6 address")]
    NoAddress(ExportName),
    /// Nothing could be reached.
    #[error("`{0}` has no port; give at least one TCP or UDP port")]
    NoPort(ExportName),
    /// Port 0, or too many.
    #[error("`{name}` has {problem}")]
    Ports {
        /// The export.
        name: ExportName,
        /// What is wrong with its ports.
        problem: String,
    },
    /// Not the address of a host.
    #[error("`{name}`: {address} is not a host's address; give the unicast address of the service")]
    NotUnicast {
        /// The export.
        name: ExportName,
        /// The address.
        address: IpAddr,
    },
    /// A wildcard that could lead anywhere.
    #[error(
        "`{0}` does not say where its names may lead; give `within`, the ranges of addresses of what is meant, such as \
         10.96.0.0/12"
    )]
    NoRange(ExportName),
    /// A range of which nothing can be reached.
    #[error(
        "`{name}`: {range} has no addresses of services; give ranges of unicast addresses that are not link-local"
    )]
    NeverWithin {
        /// The export.
        name: ExportName,
        /// The range.
        range: IpNet,
    },
    /// Too many exports.
    #[error("{0} exports are more than the {MAX_EXPORTS} that one activator can announce")]
    TooMany(usize),
    /// Names and ports that are too long together.
    #[error(
        "names and ports take {0} bytes, more than the {MAX_ANNOUNCED} that one activator can announce; \
         share the exports out among several activators"
    )]
    TooLong(usize),
}

/// What stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exported {
    /// A service.
    Service(Arc<Export>),
    /// Whatever this network's DNS says of a name.
    Wildcard(Arc<Wildcard>),
}

impl Exported {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> ExportName {
        match self {
            Self::Service(export) => ExportName::Service(export.name.clone()),
            Self::Wildcard(wildcard) => ExportName::Below(wildcard.below.clone()),
        }
    }

    /// Who may use it; absent: every enrolled workload of the mesh.
    #[must_use]
    pub fn allow(&self) -> Option<&[Who]> {
        match self {
            Self::Service(export) => export.allow.as_deref(),
            Self::Wildcard(wildcard) => wildcard.allow.as_deref(),
        }
    }

    /// TCP and UDP ports that can be reached.
    #[must_use]
    pub fn ports(&self) -> (&Ports, &Ports) {
        match self {
            Self::Service(export) => (&export.tcp, &export.udp),
            Self::Wildcard(wildcard) => (&wildcard.tcp, &wildcard.udp),
        }
    }

    fn families(&self) -> (bool, bool) {
        match self {
            Self::Service(export) => (!export.ipv4.is_empty(), !export.ipv6.is_empty()),
            Self::Wildcard(wildcard) => wildcard.families(),
        }
    }
}

/// All exports of this activator.
#[derive(Debug, Clone, Default)]
pub struct ExportTable {
    by_name: Exports<Exported>,
    /// In the order they were configured: the registration must not change from start to start.
    ordered: Vec<Exported>,
}

/// Why a node may not be bound to a service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not exported here.
    #[error("unknown service `{0}`")]
    UnknownService(String),
    /// Exported, but not to this node.
    #[error("policy: `{service}` is not open to the workload `{name}` of network `{network}`")]
    NotAllowed {
        /// The service.
        service: ServiceName,
        /// The name of the node that asked.
        name: NodeName,
        /// Its network.
        network: NetworkName,
    },
}

impl ExportTable {
    /// A table of these services.
    ///
    /// # Errors
    /// When one of them could not work.
    pub fn new(exports: Vec<Export>) -> Result<Self, ExportError> {
        Self::of(exports.into_iter().map(Arc::new).map(Exported::Service))
    }

    /// A table of these exports.
    ///
    /// # Errors
    /// When one of them could not work.
    pub fn of(exports: impl IntoIterator<Item = Exported>) -> Result<Self, ExportError> {
        let exports: Vec<Exported> = exports.into_iter().collect();
        if exports.len() > MAX_EXPORTS {
            return Err(ExportError::TooMany(exports.len()));
        }
        let announced = exports.iter().map(announced_len).sum();
        if announced > MAX_ANNOUNCED {
            return Err(ExportError::TooLong(announced));
        }
        let mut table = Self::default();
        for exported in exports {
            match &exported {
                Exported::Service(export) => check(export)?,
                Exported::Wildcard(wildcard) => check_wildcard(wildcard)?,
            }
            check_ports(&exported)?;
            let mut is_new = false;
            table.by_name.entry(exported.name(), || {
                is_new = true;
                exported.clone()
            });
            if !is_new {
                return Err(ExportError::Duplicate(exported.name()));
            }
            table.ordered.push(exported);
        }
        Ok(table)
    }

    /// What `name` stands for, if `node` may use it: a service of that name before a wildcard that covers it.
    ///
    /// # Errors
    /// When there is no such service, or it is not open to the node.
    pub fn resolve(
        &self,
        name: &str,
        node: &NodeId,
    ) -> Result<(ServiceName, &Exported), PolicyError> {
        // The name comes from another node: it is echoed into logs, so it must be a name first.
        let unknown = || PolicyError::UnknownService(name.chars().take(MAX_SERVICE_NAME).collect());
        let service: ServiceName = name.parse().map_err(|_| unknown())?;
        let exported = self.by_name.find(&service).value().ok_or_else(unknown)?;
        match exported.allow() {
            Some(allow) if !allow.iter().any(|who| who.contains(node)) => {
                Err(PolicyError::NotAllowed {
                    service,
                    name: node.name.clone(),
                    network: node.network.clone(),
                })
            }
            _ => Ok((service, exported)),
        }
    }

    /// As they are announced in the registration.
    #[must_use]
    pub fn announced(&self) -> Vec<document::Service> {
        let ports = |ports: &Ports| ports.iter().map(u32::from).collect();
        let announce = |exported: &Exported| {
            let (ipv4, ipv6) = exported.families();
            let (tcp, udp) = exported.ports();
            document::Service {
                name: exported.name().to_string(),
                ipv4,
                ipv6,
                tcp_ports: ports(tcp),
                udp_ports: ports(udp),
            }
        };
        self.ordered.iter().map(announce).collect()
    }

    /// In the order they were configured.
    pub fn iter(&self) -> impl Iterator<Item = &Exported> {
        self.ordered.iter()
    }
}

/// At most so many bytes of a registration: tags, lengths and flags; the name; three for each port.
fn announced_len(exported: &Exported) -> usize {
    let (tcp, udp) = exported.ports();
    15 + exported.name().to_string().len() + 3 * (tcp.len() + udp.len())
}

fn check_ports(exported: &Exported) -> Result<(), ExportError> {
    let (tcp, udp) = exported.ports();
    if tcp.is_empty() && udp.is_empty() {
        return Err(ExportError::NoPort(exported.name()));
    }
    for ports in [tcp, udp] {
        let problem = if ports.contains(0) {
            "port 0; ports are 1 to 65535".to_owned()
        } else if ports.len() > MAX_PORTS {
            format!(
                "{} ports of one protocol, more than {MAX_PORTS}",
                ports.len()
            )
        } else {
            continue;
        };
        return Err(ExportError::Ports {
            name: exported.name(),
            problem,
        });
    }
    Ok(())
}

fn check_wildcard(wildcard: &Wildcard) -> Result<(), ExportError> {
    let name = || ExportName::Below(wildcard.below.clone());
    if wildcard.within.is_empty() {
        return Err(ExportError::NoRange(name()));
    }
    // Wider ranges hold some of everything.
    let hopeless = |range: &&IpNet| {
        range.prefix_len() >= 4 && crate::wildcard::is_never_a_service(range.network())
    };
    match wildcard.within.iter().find(hopeless) {
        Some(range) => Err(ExportError::NeverWithin {
            name: name(),
            range: *range,
        }),
        None => Ok(()),
    }
}

fn check(export: &Export) -> Result<(), ExportError> {
    let name = || ExportName::Service(export.name.clone());
    if export.ipv4.is_empty() && export.ipv6.is_empty() {
        return Err(ExportError::NoAddress(name()));
    }
    let ipv4 = export.ipv4.iter().filter(|address| {
        address.is_unspecified()
            || address.is_multicast()
            || address.is_broadcast()
            || address.is_loopback()
    });
    let ipv6 = export.ipv6.iter().filter(|address| {
        address.is_unspecified()
            || address.is_multicast()
            || address.is_loopback()
            || address.is_unicast_link_local()
            || address.to_ipv4_mapped().is_some()
    });
    let mut wrong = ipv4
        .map(|&a| IpAddr::V4(a))
        .chain(ipv6.map(|&a| IpAddr::V6(a)));
    match wrong.next() {
        Some(address) => Err(ExportError::NotUnicast {
            name: name(),
            address,
        }),
        None => Ok(()),
    }
}
