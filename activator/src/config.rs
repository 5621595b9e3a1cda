//! The configuration file, field by field, and its check.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use activator_proto::{
    LinkLimits,
    forward::pool::ClientPool,
    policy::{Export, ExportError, ExportTable, Exported},
    who::Who,
    wildcard::{Domain, Wildcard},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use link::{Carrier, PathChoice};
use model::{ExportName, NetworkName, NodeName};
use serde::{Deserialize, Deserializer, de::Error as _};
use service_kit::ConfigError;
use traces::TracesConfig;

/// Of [`DnsConfig::servers`].
const MAX_DNS_SERVERS: usize = 8;

/// `activator.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Config {
    /// The network this activator is the gateway of.
    pub(crate) network: NetworkName,
    /// Where discovery listens: `https://HOST:PORT`.
    pub(crate) discovery: String,
    /// Directory for the node's key and certificate; made if absent, should survive restarts.
    pub(crate) state_directory: PathBuf,
    /// File with a join token (`turnpike token create --role activator`). Needed only until the node is enrolled.
    pub(crate) join_token_file: Option<PathBuf>,
    /// This activator's name in its network. Default: discovery chooses one.
    pub(crate) node_name: Option<NodeName>,
    /// Address of the admin port (health, metrics, status). Default: `127.0.0.1:9102`.
    #[serde(default = "default_admin")]
    pub(crate) admin: SocketAddr,
    /// PEM file with CA certificates. A relay that is reached over TLS has to show a certificate for its host from the mesh's CA,
    /// or from one of these. Default: the mesh's CA only, not even the system's.
    pub(crate) relay_trust_file: Option<PathBuf>,
    /// A file for the flow log, as JSON lines: who used which export, how much, and who was refused. It is made with mode 0600,
    /// and opened again on SIGHUP. Default: none.
    pub(crate) flow_file: Option<PathBuf>,
    /// A use that goes on is told in parts of so many seconds, 1 to 86400. Default: 60.
    #[serde(default = "default_flow_seconds")]
    pub(crate) flow_seconds: u32,
    /// The TUN interface and the addresses behind it.
    #[serde(default)]
    pub(crate) tunnel: TunnelConfig,
    /// Bounds on links.
    #[serde(default)]
    pub(crate) limits: LimitsConfig,
    /// Traces of links' opening, for an OpenTelemetry collector.
    #[serde(default)]
    pub(crate) traces: TracesConfig,
    /// Who may use exports that have no `allow` of their own; `[]`: nobody. Default: all workloads of the mesh.
    #[serde(default, deserialize_with = "who")]
    pub(crate) default_allow: Option<Vec<Who>>,
    /// This network's own DNS, for exports with `resolve`.
    #[serde(default)]
    pub(crate) dns: DnsConfig,
    /// What other networks can reach here. Default: nothing.
    #[serde(default)]
    pub(crate) export: Vec<ExportConfig>,
}

/// `[dns]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct DnsConfig {
    /// Resolvers of this network, `IP` or `IP:PORT`, in order of preference; at most 8. Default: those of `/etc/resolv.conf`
    /// at the start.
    pub(crate) servers: Vec<String>,
}

/// `[tunnel]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct TunnelConfig {
    /// Name of the TUN interface, 1 to 15 bytes. Default: `turnpike0`.
    pub(crate) interface: String,
    /// Addresses that stand for remote sidecars on this host; must be unused in this network.
    /// Default: `100.89.0.0/16`.
    pub(crate) client_pool_ipv4: Ipv4Net,
    /// The same for IPv6. Default: `fd89:7475:726e::/64`.
    pub(crate) client_pool_ipv6: Ipv6Net,
    /// Longest TCP segment with its headers, in bytes, 1280 to 9000: the MSS of every connection is kept to it.
    /// Default: 1400, so that a full segment, sealed and with a relay's header, fits an Ethernet path. The interface
    /// itself has an MTU of at least 9000.
    pub(crate) mtu: u16,
    /// What carries packets over a link: `"auto"`, the datagram lane where the other side has it too and it gets
    /// through, else the data channel; `"datagram"`, the same but a lane that fell silent is not given up;
    /// `"data-channel"`, never the lane. Default: `"auto"`.
    pub(crate) carrier: String,
    /// Which ways packets may take: `"auto"`, the best there is; `"relay-only"`; `"direct-only"`, never through a relay. Each end
    /// sees to it for itself, so that contradicting ends have no path. Default: `"auto"`.
    pub(crate) path: String,
    /// The same for single networks, by name, in place of `path`.
    pub(crate) paths: BTreeMap<NetworkName, String>,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self {
            interface: "turnpike0".to_owned(),
            client_pool_ipv4: Ipv4Net::new_assert([100, 89, 0, 0].into(), 16),
            client_pool_ipv6: Ipv6Net::new_assert(
                [0xfd89, 0x7475, 0x726e, 0, 0, 0, 0, 0].into(),
                64,
            ),
            mtu: 1400,
            carrier: Carrier::Auto.to_string(),
            path: PathChoice::Auto.to_string(),
            paths: BTreeMap::new(),
        }
    }
}

/// `[limits]`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct LimitsConfig {
    /// Links in all, 1 to 65536. Default: 4096.
    pub(crate) links: usize,
    /// Links from one node, at least 1. Default: 64.
    pub(crate) links_per_node: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let LinkLimits { total, per_node } = LinkLimits::default();
        Self {
            links: total,
            links_per_node: per_node,
        }
    }
}

/// `[[export]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct ExportConfig {
    /// The service's name: others reach it as `<name>.<network>.<suffix>`. Or a wildcard, `*.prod` or `*`: it stands for all
    /// names below the rest, of any depth, that no other export is at, or nearer to.
    pub(crate) name: ExportName,
    /// Where it is: IPv4 and IPv6 addresses. Several of one family: each link uses one of them. Not with a wildcard.
    #[serde(default)]
    pub(crate) addresses: Vec<IpAddr>,
    /// With a wildcard: what this network's DNS is asked for when somebody uses a name, `*.prod.svc.cluster.local`. What stands
    /// for the `*` of `name` is put in place of this one.
    pub(crate) resolve: Option<String>,
    /// With a wildcard: where its names may lead, as prefixes. Loopback, link-local, multicast and this host's own addresses
    /// are never among them.
    #[serde(default)]
    pub(crate) within: Vec<IpNet>,
    /// TCP ports that can be reached. Default: none.
    #[serde(default)]
    pub(crate) tcp: Vec<u16>,
    /// UDP ports that can be reached. Default: none.
    #[serde(default)]
    pub(crate) udp: Vec<u16>,
    /// Who may use it: `NETWORK`, `NETWORK/NAME`, `NETWORK/BEGINNING*`, `*`. Default: `default-allow`.
    #[serde(default, deserialize_with = "who")]
    pub(crate) allow: Option<Vec<Who>>,
}

/// What was read, checked, and put into the forms that are worked with.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) exports: ExportTable,
    /// [`DnsConfig::servers`], read.
    pub(crate) dns_servers: Vec<SocketAddr>,
    pub(crate) pool: ClientPool,
    pub(crate) limits: LinkLimits,
    pub(crate) carrier: Carrier,
    pub(crate) path: PathChoice,
    pub(crate) paths: BTreeMap<NetworkName, PathChoice>,
}

fn path_choice(file: &Path, field: &str, text: &str) -> Result<PathChoice, ConfigError> {
    let remedy = "use \"auto\", \"relay-only\" or \"direct-only\"";
    text.parse()
        .map_err(|_| ConfigError::new(file, field, text, "not a choice of paths", remedy))
}

const fn default_flow_seconds() -> u32 {
    60
}

fn default_admin() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 9102))
}

impl Config {
    /// Checks what its types cannot say.
    ///
    /// # Errors
    /// The first thing that could not work; names `file`, field, value and what to do.
    pub(crate) fn check(&self, file: &Path) -> Result<Checked, ConfigError> {
        self.check_discovery(file)?;
        if !(1..=86_400).contains(&self.flow_seconds) {
            let remedy = "use 1 to 86400";
            let seconds = self.flow_seconds;
            return Err(ConfigError::new(
                file,
                "flow-seconds",
                seconds,
                "out of range",
                remedy,
            ));
        }
        let pool = self.check_tunnel(file)?;
        let limits = self.check_limits(file)?;
        let exports = self.check_exports(file)?;
        let carrier = &self.tunnel.carrier;
        let carrier = carrier.parse().map_err(|_| {
            let remedy = "use \"auto\", \"datagram\" or \"data-channel\"";
            ConfigError::new(file, "tunnel.carrier", carrier, "not a carrier", remedy)
        })?;
        Ok(Checked {
            exports,
            dns_servers: self.check_dns(file)?,
            pool,
            limits,
            carrier,
            path: path_choice(file, "tunnel.path", &self.tunnel.path)?,
            paths: self
                .tunnel
                .paths
                .iter()
                .map(|(network, path)| {
                    let field = format!("tunnel.paths.{network}");
                    Ok((network.clone(), path_choice(file, &field, path)?))
                })
                .collect::<Result<_, ConfigError>>()?,
        })
    }

    fn check_discovery(&self, file: &Path) -> Result<(), ConfigError> {
        let rest = self
            .discovery
            .strip_prefix("https://")
            .map(|rest| rest.trim_end_matches('/'));
        let port = rest
            .and_then(|rest| rest.rsplit_once(':'))
            .and_then(|(host, port)| {
                (!host.is_empty())
                    .then(|| port.parse::<u16>().ok())
                    .flatten()
            });
        match port {
            Some(_) => Ok(()),
            None => Err(ConfigError::new(
                file,
                "discovery",
                &self.discovery,
                "not the URL of a discovery server",
                "it has the form https://HOST:PORT",
            )),
        }
    }

    fn check_tunnel(&self, file: &Path) -> Result<ClientPool, ConfigError> {
        let tunnel = &self.tunnel;
        let name = tunnel.interface.as_str();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 15 || !name.bytes().all(plain) || name.starts_with('.') {
            return Err(ConfigError::new(
                file,
                "tunnel.interface",
                name,
                "not the name of a network interface",
                "use 1 to 15 letters, digits, `-`, `_` or `.`",
            ));
        }
        if !(1280..=9000).contains(&tunnel.mtu) {
            return Err(ConfigError::new(
                file,
                "tunnel.mtu",
                tunnel.mtu,
                "out of range",
                "use 1280 to 9000 bytes; 1400 fits everywhere",
            ));
        }
        let (ipv4, ipv6) = (tunnel.client_pool_ipv4, tunnel.client_pool_ipv6);
        let base = ipv4.network();
        if base.is_loopback()
            || base.is_multicast()
            || base.is_unspecified()
            || base.is_link_local()
        {
            return Err(ConfigError::new(
                file,
                "tunnel.client-pool-ipv4",
                ipv4,
                "not a range of host addresses",
                "use a private range that is unused in this network, such as 100.89.0.0/16",
            ));
        }
        let base = ipv6.network();
        if base.is_multicast() || base.is_unspecified() || base.is_unicast_link_local() {
            return Err(ConfigError::new(
                file,
                "tunnel.client-pool-ipv6",
                ipv6,
                "not a range of host addresses",
                "use a unique local range that is unused in this network, such as fd89:7475:726e::/64",
            ));
        }
        let field = if ipv4.prefix_len() > 29 {
            "client-pool-ipv4"
        } else {
            "client-pool-ipv6"
        };
        let value = if ipv4.prefix_len() > 29 {
            ipv4.to_string()
        } else {
            ipv6.to_string()
        };
        ClientPool::new(ipv4, ipv6).map_err(|error| {
            ConfigError::new(file, &format!("tunnel.{field}"), value, "too small", error)
        })
    }

    fn check_limits(&self, file: &Path) -> Result<LinkLimits, ConfigError> {
        let LimitsConfig {
            links,
            links_per_node,
        } = self.limits;
        if !(1..=65_536).contains(&links) {
            let remedy = "use 1 to 65536";
            return Err(ConfigError::new(
                file,
                "limits.links",
                links,
                "out of range",
                remedy,
            ));
        }
        if links_per_node == 0 {
            let remedy = "use at least 1";
            return Err(ConfigError::new(
                file,
                "limits.links-per-node",
                0,
                "out of range",
                remedy,
            ));
        }
        Ok(LinkLimits {
            total: links,
            per_node: links_per_node,
        })
    }

    fn check_exports(&self, file: &Path) -> Result<ExportTable, ConfigError> {
        for (index, export) in self.export.iter().enumerate() {
            let pools = (self.tunnel.client_pool_ipv4, self.tunnel.client_pool_ipv6);
            let inside = |address: &&IpAddr| match **address {
                IpAddr::V4(ipv4) => pools.0.contains(&ipv4),
                IpAddr::V6(ipv6) => pools.1.contains(&ipv6),
            };
            if let Some(address) = export.addresses.iter().find(inside) {
                return Err(ConfigError::new(
                    file,
                    &format!("export[{index}].addresses"),
                    address,
                    "inside the client pool",
                    "choose another client pool in [tunnel]",
                ));
            }
        }
        let default_allow = self.default_allow.as_ref();
        let mut exports = Vec::new();
        for (index, export) in self.export.iter().enumerate() {
            let exported = export.to_exported(default_allow);
            exports.push(exported.map_err(|(field, value, problem, remedy)| {
                let field = format!("export[{index}].{field}");
                ConfigError::new(file, &field, value, problem, remedy)
            })?);
        }
        ExportTable::of(exports).map_err(|error| self.explain(file, &error))
    }

    fn check_dns(&self, file: &Path) -> Result<Vec<SocketAddr>, ConfigError> {
        let servers = &self.dns.servers;
        if servers.len() > MAX_DNS_SERVERS {
            return Err(ConfigError::new(
                file,
                "dns.servers",
                servers.len(),
                "too many",
                format!("name at most {MAX_DNS_SERVERS}"),
            ));
        }
        let read = |(index, text): (usize, &String)| {
            let address = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
            address.or_else(|_| text.parse()).map_err(|_| {
                let field = format!("dns.servers[{index}]");
                let remedy = "use IP or IP:PORT, such as 10.96.0.10";
                ConfigError::new(file, &field, text, "not the address of a server", remedy)
            })
        };
        servers.iter().enumerate().map(read).collect()
    }

    /// Says which export an error is about: the last of that name, for a name given twice.
    fn explain(&self, file: &Path, error: &ExportError) -> ConfigError {
        let (name, field) = match error {
            ExportError::Duplicate(name) => (Some(name), "name"),
            ExportError::NoAddress(name) => (Some(name), "addresses"),
            ExportError::NotUnicast { name, .. } => (Some(name), "addresses"),
            ExportError::NoRange(name) | ExportError::NeverWithin { name, .. } => {
                (Some(name), "within")
            }
            ExportError::NoPort(name) | ExportError::Ports { name, .. } => (Some(name), "tcp"),
            ExportError::TooMany(_) | ExportError::TooLong(_) => (None, ""),
        };
        let index =
            name.and_then(|name| self.export.iter().rposition(|export| export.name == *name));
        let text = error.to_string();
        // The table's errors say what to do after a semicolon.
        let (problem, remedy) = text
            .split_once("; ")
            .unwrap_or((&text, "correct the export"));
        match (index, name) {
            (Some(index), Some(name)) => ConfigError::new(
                file,
                &format!("export[{index}].{field}"),
                name,
                problem,
                remedy,
            ),
            _ => ConfigError::new(file, "export", self.export.len(), problem, remedy),
        }
    }
}

/// A field, its value, what is wrong with it, and what to do.
type Wrong = (&'static str, String, String, &'static str);

impl ExportConfig {
    fn to_exported(&self, default_allow: Option<&Vec<Who>>) -> Result<Exported, Wrong> {
        let tcp = self.tcp.iter().copied().collect();
        let udp = self.udp.iter().copied().collect();
        let allow = self.allow.as_ref().or(default_allow).cloned();
        let wrong = |field, problem: &str, remedy| {
            Err((field, self.name.to_string(), problem.to_owned(), remedy))
        };
        match (&self.name, &self.resolve) {
            (ExportName::Service(name), None) => {
                if !self.within.is_empty() {
                    let remedy = "remove it: `addresses` says where the service is";
                    return wrong("within", "of use only with a wildcard", remedy);
                }
                let mut export = Export {
                    name: name.clone(),
                    ipv4: Vec::new(),
                    ipv6: Vec::new(),
                    tcp,
                    udp,
                    allow,
                };
                for address in &self.addresses {
                    match address {
                        IpAddr::V4(ipv4) => export.ipv4.push(*ipv4),
                        IpAddr::V6(ipv6) => export.ipv6.push(*ipv6),
                    }
                }
                Ok(Exported::Service(Arc::new(export)))
            }
            (ExportName::Service(_), Some(_)) => {
                let remedy = "give its `addresses`, or name a wildcard such as *.prod";
                wrong("resolve", "of use only with a wildcard", remedy)
            }
            (ExportName::Below(_), None) => {
                let remedy = "give what this network's DNS is asked for, such as \"*.prod.svc.cluster.local\"";
                wrong("resolve", "a wildcard without it leads nowhere", remedy)
            }
            (ExportName::Below(_), Some(_)) if !self.addresses.is_empty() => {
                let remedy = "remove them, or name a service without `*`";
                wrong(
                    "addresses",
                    "this network's DNS says where the names of a wildcard are",
                    remedy,
                )
            }
            (ExportName::Below(below), Some(resolve)) => {
                let domain = Domain::below_star(resolve).map_err(|_| {
                    let problem = "not `*.` and a domain".to_owned();
                    let remedy = "use a name such as *.prod.svc.cluster.local";
                    ("resolve", resolve.clone(), problem, remedy)
                })?;
                Ok(Exported::Wildcard(Arc::new(Wildcard {
                    below: below.clone(),
                    domain,
                    within: self.within.iter().map(IpNet::trunc).collect(),
                    tcp,
                    udp,
                    allow,
                })))
            }
        }
    }
}

fn who<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Who>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let all = texts
        .iter()
        .map(|text| text.parse().map_err(D::Error::custom));
    all.collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
