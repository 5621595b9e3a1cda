//! Which service a packet is for: virtual IP → service, as told by the DNS side.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use model::{NetworkName, ServiceName};

/// Routes kept; beyond, all are forgotten and asked for again as packets come.
const MAX_ROUTES: usize = 65_536;

/// A remote service and the virtual IPs it has here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The network that exports it.
    pub network: NetworkName,
    /// Its name there.
    pub service: ServiceName,
    /// Its virtual IPv4 address, if it has one.
    pub ipv4: Option<Ipv4Addr>,
    /// Its virtual IPv6 address, if it has one.
    pub ipv6: Option<Ipv6Addr>,
}

impl Destination {
    /// Both addresses, as far as there are any.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ipv4
            .map(IpAddr::from)
            .into_iter()
            .chain(self.ipv6.map(IpAddr::from))
    }
}

/// The routing table. One entry per virtual address.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    by_address: HashMap<IpAddr, Arc<Destination>>,
}

impl Routes {
    pub(crate) fn insert(&mut self, destination: &Arc<Destination>) {
        if self.by_address.len() >= MAX_ROUTES {
            self.by_address.clear();
        }
        for address in destination.addresses() {
            self.by_address.insert(address, destination.clone());
        }
    }

    pub(crate) fn find(&self, address: IpAddr) -> Option<&Arc<Destination>> {
        self.by_address.get(&address)
    }
}
