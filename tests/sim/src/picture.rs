//! Who stands where. East has the same addresses as west, on purpose.

use std::net::{IpAddr, SocketAddr};

use activator_proto::policy::Export;
use dns_signal_proto::agent::Destination;
use model::{NodeId, RelayName};
use protocol::directory;

/// A service of east as the workloads in west know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name in east.
    pub name: &'static str,
    /// What its name is answered with: IPv4, IPv6.
    pub virtual_ips: (&'static str, Option<&'static str>),
    /// Where it really is.
    pub real: (&'static str, Option<&'static str>),
    /// What it exports.
    pub tcp: u16,
    /// What it exports, or 0.
    pub udp: u16,
}

/// On both families.
pub const ORDERS: Service = Service {
    name: "orders",
    virtual_ips: ("198.18.7.7", Some("fd74:7572:6e70::7")),
    real: ("10.0.0.20", Some("fd00:10::20")),
    tcp: 8080,
    udp: 9000,
};

/// On the same host as [`ORDERS`], IPv4 only.
pub const STOCK: Service = Service {
    name: "stock",
    virtual_ips: ("198.18.8.8", None),
    real: ("10.0.0.20", None),
    tcp: 8081,
    udp: 0,
};

pub(crate) const SERVICES: [Service; 2] = [ORDERS, STOCK];

/// The sidecar's TUN addresses: what the workload's packets come from.
pub(crate) const DEVICE: [&str; 2] = ["198.18.0.1", "fd74:7572:6e70::1"];
/// The sidecar's addresses in west.
pub(crate) const SIDECAR: [&str; 2] = ["10.0.0.10", "fd00:10::10"];
/// The relay, outside and inside.
pub(crate) const RELAY_OUTSIDE: &str = "203.0.113.12:3478";
pub(crate) const RELAY_INSIDE: [&str; 2] = ["10.0.0.2", "fd00:10::2"];
/// East's router, outside.
pub(crate) const ROUTER: &str = "203.0.113.21";
/// The activator in east.
pub(crate) const GATE: &str = "10.0.0.3";
pub(crate) const CLIENT_POOL: [&str; 2] = ["100.89.0.0/16", "fd89:7475:726e::/64"];
/// TCP segments of links, with their headers.
pub(crate) const TUNNEL_MTU: u16 = 1400;
/// Between the relay and whoever mints credentials.
pub(crate) const SECRET: &[u8] = b"the relay's and discovery's secret";

impl Service {
    pub(crate) fn virtual_ip(&self, ipv6: bool) -> Option<IpAddr> {
        family(self.virtual_ips, ipv6)
    }

    pub(crate) fn real_of(&self, virtual_ip: IpAddr) -> Option<IpAddr> {
        let ours = self.virtual_ip(virtual_ip.is_ipv6()) == Some(virtual_ip);
        ours.then(|| family(self.real, virtual_ip.is_ipv6()))?
    }

    pub(crate) fn destination(&self) -> Destination {
        Destination {
            network: "east".parse().expect("a name"),
            service: self.name.parse().expect("a name"),
            ipv4: self.virtual_ips.0.parse().ok(),
            ipv6: self.virtual_ips.1.map(|text| text.parse().expect("IPv6")),
        }
    }

    pub(crate) fn export(&self) -> Export {
        Export {
            name: self.name.parse().expect("a name"),
            ipv4: vec![self.real.0.parse().expect("IPv4")],
            ipv6: self
                .real
                .1
                .map(|text| text.parse().expect("IPv6"))
                .into_iter()
                .collect(),
            tcp: [self.tcp].into_iter().collect(),
            udp: [self.udp].into_iter().filter(|port| *port != 0).collect(),
            allow: None,
        }
    }
}

fn family((ipv4, ipv6): (&str, Option<&str>), want_ipv6: bool) -> Option<IpAddr> {
    if want_ipv6 {
        ipv6.map(ip)
    } else {
        Some(ip(ipv4))
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an IP address")
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn sidecar_node() -> NodeId {
    "west/workload/app".parse().expect("an id")
}

pub(crate) fn gate_node() -> NodeId {
    "east/activator/gate".parse().expect("an id")
}

pub(crate) fn relay_name() -> RelayName {
    "west-relay".parse().expect("a name")
}

pub(crate) fn relay_entry() -> directory::Relay {
    directory::Relay {
        name: relay_name().to_string(),
        network: "west".to_owned(),
        url: format!("turn:{RELAY_OUTSIDE}?transport=udp"),
        more_urls: Vec::new(),
    }
}
