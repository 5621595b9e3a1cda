//! Names keep their virtual IPs, whatever restarts.

use std::collections::HashMap;

use dns_signal_proto::virtual_ip::{Pools, VirtualIpPair, VirtualIps};

/// The sidecar's table of names, and what was answered so far.
#[derive(Debug)]
pub(crate) struct Names {
    table: VirtualIps,
    answered: HashMap<u64, VirtualIpPair>,
    owners: HashMap<VirtualIpPair, u64>,
}

impl Names {
    pub(crate) fn new() -> Self {
        // Small enough for names to collide.
        let ipv4 = "198.18.0.0/25".parse().expect("a prefix");
        let ipv6 = "fd74:7572:6e70::/64".parse().expect("a prefix");
        let pools = Pools::new(ipv4, ipv6).expect("pools");
        Self {
            table: VirtualIps::new(pools),
            answered: HashMap::new(),
            owners: HashMap::new(),
        }
    }

    /// A workload asks for the name with this number.
    pub(crate) fn ask(&mut self, name: u64) {
        let id = format!("name{name}.east").parse().expect("a name");
        let (pair, _) = self.table.assign(&id).expect("there is room");
        let first = *self.answered.entry(name).or_insert(pair);
        assert_eq!(first, pair, "name {name} has another address");
        let owner = *self.owners.entry(pair).or_insert(name);
        assert_eq!(owner, name, "{pair:?} is of two names");
    }

    /// The sidecar starts anew, with what it wrote down.
    pub(crate) fn restart(&mut self) {
        let text = self.table.encode();
        self.table = VirtualIps::new(*self.table.pools());
        self.table.restore(&text).expect("the same pools");
    }
}
