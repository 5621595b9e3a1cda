//! What the directory offers, as far as names are concerned.

use std::collections::BTreeMap;

use model::{NetworkName, ServiceName};
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

/// A view of the directory at one revision: which network exports which service. Built once per change, then read
/// without locks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    revision: u64,
    networks: BTreeMap<NetworkName, BTreeMap<ServiceName, Families>>,
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
        let known = self
            .networks
            .entry(id.network)
            .or_default()
            .entry(id.service)
            .or_default();
        known.ipv4 |= families.ipv4;
        known.ipv6 |= families.ipv6;
    }

    /// Adds what a verified registration exports. Returns how many of its services had no valid name and were left out.
    pub fn add_registration(&mut self, registration: &Registration) -> usize {
        let Ok(network) = registration.network.parse::<NetworkName>() else {
            return registration.services.len();
        };
        let mut refused = 0;
        for exported in &registration.services {
            match exported.name.parse() {
                Ok(service) => self.insert(
                    ServiceId {
                        service,
                        network: network.clone(),
                    },
                    Families {
                        ipv4: exported.ipv4,
                        ipv6: exported.ipv6,
                    },
                ),
                Err(_) => refused += 1,
            }
        }
        refused
    }

    /// In which families a service can be reached; `None`: no such service.
    pub fn families(&self, id: &ServiceId) -> Option<Families> {
        self.networks.get(&id.network)?.get(&id.service).copied()
    }

    /// Whether a network exports anything.
    pub fn has_network(&self, network: &NetworkName) -> bool {
        self.networks.contains_key(network)
    }

    /// How many services there are.
    pub fn len(&self) -> usize {
        self.networks.values().map(BTreeMap::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }
}
