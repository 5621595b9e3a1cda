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
/// The sidecar's addresses in west; when it moves, it has the second of each family.
pub(crate) const SIDECAR: [[&str; 2]; 2] =
    [["10.0.0.10", "fd00:10::10"], ["10.0.0.11", "fd00:10::11"]];
/// Where the sidecar is on the cable between the networks, if there is one.
pub(crate) const SIDECAR_ON_CABLE: &str = "192.0.2.10";
/// East's router, outside.
pub(crate) const ROUTER: &str = "203.0.113.21";

/// A relay of west.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RelaySite {
    pub(crate) name: &'static str,
    pub(crate) outside: &'static str,
    pub(crate) inside: [&'static str; 2],
}

pub(crate) const RELAYS: [RelaySite; 2] = [
    RelaySite {
        name: "west-relay",
        outside: "203.0.113.12:3478",
        inside: ["10.0.0.2", "fd00:10::2"],
    },
    RelaySite {
        name: "west-relay2",
        outside: "203.0.113.13:3478",
        inside: ["10.0.0.4", "fd00:10::4"],
    },
];

/// An activator of east.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GateSite {
    name: &'static str,
    pub(crate) inside: &'static str,
    pub(crate) on_cable: &'static str,
    /// Its ports are from here on.
    pub(crate) ports: u16,
}

pub(crate) const GATES: [GateSite; 2] = [
    GateSite {
        name: "gate",
        inside: "10.0.0.3",
        on_cable: "192.0.2.3",
        ports: 20_000,
    },
    GateSite {
        name: "gate2",
        inside: "10.0.0.5",
        on_cable: "192.0.2.5",
        ports: 40_000,
    },
];

/// How much of the picture there is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) relays: usize,
    pub(crate) gates: usize,
    pub(crate) cable: bool,
    /// Whether relays can be spoken to over TCP, too.
    pub(crate) tcp: bool,
    /// Whether the sidecar keeps a second link.
    pub(crate) standby: bool,
}

impl Extent {
    /// One of everything, and no way but over the relay.
    pub(crate) const SMALL: Self = Self {
        relays: 1,
        gates: 1,
        cable: false,
        tcp: false,
        standby: false,
    };
    /// Two of everything, and every way there is.
    pub(crate) const LARGE: Self = Self {
        relays: 2,
        gates: 2,
        cable: true,
        tcp: true,
        standby: true,
    };
}
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

impl GateSite {
    pub(crate) fn node(&self) -> NodeId {
        format!("east/activator/{}", self.name)
            .parse()
            .expect("an id")
    }
}

impl RelaySite {
    pub(crate) fn name(&self) -> RelayName {
        self.name.parse().expect("a name")
    }

    pub(crate) fn entry(&self) -> directory::Relay {
        directory::Relay {
            name: self.name.to_owned(),
            network: "west".to_owned(),
            url: format!("turn:{}?transport=udp", self.outside),
            more_urls: Vec::new(),
        }
    }
}

/// Whether an address is on the cable between the networks.
pub(crate) fn is_on_cable(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(ip) if ip.octets()[..3] == [192, 0, 2])
}
