//! What the directory offers, as far as names are concerned.

use std::collections::{BTreeMap, BTreeSet};

use model::{ExportName, Exports, Match, NetworkName};
use protocol::document::Registration;

use crate::service::ServiceId;

/// The address families in which a service can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    /// It gets an A record.
    pub ipv4: bool,
    /// It gets an AAAA record.
    pub ipv6: bool,
}

/// Ports told of a service, over each transport; what a registration says beyond is left out.
const MAX_PORTS: usize = 64;

/// What is known of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// In which families it can be reached.
    pub families: Families,
    /// Its TCP ports, in order.
    pub tcp: BTreeSet<u16>,
    /// Its UDP ports, in order.
    pub udp: BTreeSet<u16>,
}

/// A view of the directory at one revision: which network exports which service. Built once per change, then read
/// without locks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    revision: u64,
    networks: BTreeMap<NetworkName, Exports<Exported>>,
}

impl Services {
    /// An empty view. The revision becomes the serial number of the zone.
    pub fn new(revision: u64) -> Self {
        Self {
            revision,
            networks: BTreeMap::new(),
        }
    }

    /// The directory's revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Adds a service; one that several activators export has the families of all of them.
    pub fn insert(&mut self, id: ServiceId, families: Families) {
        self.insert_with_ports(id, families, &[], &[]);
    }

    /// The same, with its ports.
    pub fn insert_with_ports(
        &mut self,
        id: ServiceId,
        families: Families,
        tcp: &[u32],
        udp: &[u32],
    ) {
        let name = ExportName::Service(id.service);
        self.insert_export(id.network, name, families, (tcp, udp));
    }

    /// Adds what a network exports under a name, a service or a wildcard, with its TCP and UDP ports.
    pub fn insert_export(
        &mut self,
        network: NetworkName,
        name: ExportName,
        families: Families,
        (tcp, udp): (&[u32], &[u32]),
    ) {
        let network = self.networks.entry(network).or_default();
        let known = network.entry(name, Exported::default);
        known.families.ipv4 |= families.ipv4;
        known.families.ipv6 |= families.ipv6;
        for (known, told) in [(&mut known.tcp, tcp), (&mut known.udp, udp)] {
            let ports = told.iter().filter_map(|port| u16::try_from(*port).ok());
            known.extend(ports.take(MAX_PORTS));
        }
    }

    /// Adds what a verified registration exports. Returns how many of its services had no valid name and were left out.
    pub fn add_registration(&mut self, registration: &Registration) -> usize {
        let Ok(network) = registration.network.parse::<NetworkName>() else {
            return registration.services.len();
        };
        let mut refused = 0;
        for exported in &registration.services {
            match exported.name.parse() {
                Ok(name) => self.insert_export(
                    network.clone(),
                    name,
                    Families {
                        ipv4: exported.ipv4,
                        ipv6: exported.ipv6,
                    },
                    (&exported.tcp_ports, &exported.udp_ports),
                ),
                Err(_) => refused += 1,
            }
        }
        refused
    }

    /// In which families a service, or a name below a wildcard, can be reached; `None`: nobody exports it.
    pub fn families(&self, id: &ServiceId) -> Option<Families> {
        self.find(id).value().map(|known| known.families)
    }

    /// What is known of a name: of a service, or of the wildcard that covers it.
    pub fn find(&self, id: &ServiceId) -> Match<'_, Exported> {
        let network = self.networks.get(&id.network);
        network.map_or(Match::Nothing, |network| network.find(&id.service))
    }

    /// Whether a service of exactly this name is exported.
    pub fn has_service(&self, id: &ServiceId) -> bool {
        let network = self.networks.get(&id.network);
        network.is_some_and(|network| network.service(&id.service).is_some())
    }

    /// Whether anybody exports a wildcard.
    pub fn have_wildcards(&self) -> bool {
        self.networks
            .values()
            .any(|network| network.wildcards() > 0)
    }

    /// The networks that export anything, by name.
    pub fn networks(&self) -> impl Iterator<Item = &NetworkName> {
        self.networks.keys()
    }

    /// Whether a network exports anything.
    pub fn has_network(&self, network: &NetworkName) -> bool {
        self.networks.contains_key(network)
    }

    /// Every service; names below wildcards are not known before they are asked for.
    pub fn ids(&self) -> impl Iterator<Item = ServiceId> {
        self.networks.iter().flat_map(|(network, exports)| {
            exports.services().map(|(service, _)| ServiceId {
                service: service.clone(),
                network: network.clone(),
            })
        })
    }

    /// How many services there are.
    pub fn len(&self) -> usize {
        self.networks
            .values()
            .map(|network| network.services().count())
            .sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }
}
