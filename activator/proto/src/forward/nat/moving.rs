//! A service on its way to another address: what is open stays at the old one, what begins goes to the new one.
//!
//! Only while this is so, TCP connections that begin are remembered, by their ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashSet;

/// Connections that can have begun at the new address while others are open at the old one.
pub const MAX_MOVED: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub struct Moving {
    pub(super) ipv4: Option<Ipv4Addr>,
    pub(super) ipv6: Option<Ipv6Addr>,
    /// Family (IPv6), ports of the workload and of the service.
    begun: FxHashSet<(bool, u16, u16)>,
}

impl Moving {
    pub(super) fn new(ipv4: Option<Ipv4Addr>, ipv6: Option<Ipv6Addr>) -> Self {
        Self {
            ipv4,
            ipv6,
            begun: FxHashSet::default(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.begun.len() >= MAX_MOVED
    }

    /// Whether the new addresses are still among these.
    pub(super) fn is_among(&self, ipv4: &[Ipv4Addr], ipv6: &[Ipv6Addr]) -> bool {
        self.ipv4.is_none_or(|address| ipv4.contains(&address))
            && self.ipv6.is_none_or(|address| ipv6.contains(&address))
    }

    /// The new address of this family.
    pub(super) fn address(&self, is_ipv6: bool) -> Option<IpAddr> {
        if is_ipv6 {
            self.ipv6.map(IpAddr::V6)
        } else {
            self.ipv4.map(IpAddr::V4)
        }
    }

    /// The new address, if a segment with these ports is of a connection that is there. `begins`: it begins now.
    pub fn address_of(
        &mut self,
        is_ipv6: bool,
        (workload, service): (u16, u16),
        begins: bool,
    ) -> Option<IpAddr> {
        let connection = (is_ipv6, workload, service);
        if begins && !self.is_full() {
            self.begun.insert(connection);
        }
        let is_there = self.begun.contains(&connection);
        is_there.then(|| self.address(is_ipv6)).flatten()
    }
}
