//! The picture: which hosts there are, where they stand, and their addresses.
//!
//! ```text
//!              203.0.113.0/24   2001:db8:113::/64   (public)
//!   ───┬────────────┬──────────┬──────────┬──────────┬──────────┬───
//!  discovery     upstream   west/router west/relay east/router east/relay
//!     .10        .53 .54       .11        .12         .21        .22
//!                               │.1        │.2         │.1        │.2
//!   10.0.0.0/24  fd00:10::/64 ──┴──┬───────┴──┐     ┌──┴─────┬────┴────   the same range again
//!                              activator app billing  activator app orders
//!                                 .3     .10   .20       .3     .10   .20
//! ```
//!
//! A lab may have up to three more of the same, with public addresses from .31, .41 and .61 on.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The DNS suffix of the lab's mesh.
pub const SUFFIX: &str = "mesh.internal";

/// Prefix length of every IPv4 segment.
pub const IPV4_PREFIX: u8 = 24;
/// Prefix length of every IPv6 segment.
pub const IPV6_PREFIX: u8 = 64;
/// What a private network uses inside, IPv4.
pub const INSIDE_IPV4: &str = "10.0.0.0/24";
/// What a private network uses inside, IPv6.
pub const INSIDE_IPV6: &str = "fd00:10::/64";

/// The last number of a workload host's address, and of another one for it that nobody has.
pub const APP_ADDRESSES: [u8; 2] = [10, 11];

/// Where discovery listens.
pub const DISCOVERY: SocketAddr = SocketAddr::new(public_ipv4(10), 7400);
/// The same over IPv6.
pub const DISCOVERY_IPV6: SocketAddr = SocketAddr::new(
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10)),
    7400,
);
/// The DNS server outside the mesh.
pub const UPSTREAM_DNS: SocketAddr = SocketAddr::new(public_ipv4(53), 53);
/// A second address of the same host: shows which NAT mapping another destination gets.
pub const UPSTREAM_SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 54);
/// Port of every relay, over UDP and TCP.
pub const RELAY_PORT: u16 = 3478;
/// Port of every relay, over TLS.
pub const RELAY_TLS_PORT: u16 = 443;

/// TCP port of the example services: HTTP.
pub const HTTP_PORT: u16 = 8080;
/// TCP port of the example services: what is sent comes back.
pub const TCP_ECHO_PORT: u16 = 9001;
/// UDP port of the example services: what is sent comes back.
pub const UDP_ECHO_PORT: u16 = 9000;
/// UDP port of the example services: answers with the address the question came from.
pub const OBSERVE_PORT: u16 = 9002;
/// TCP port of the example services: records that say for whom they are come back with the name of who got them.
pub const RECORDS_PORT: u16 = 9003;

/// Admin port of discovery, on loopback of its host.
pub const DISCOVERY_ADMIN_PORT: u16 = 9100;
/// Admin port of a relay, on loopback of its host.
pub const RELAY_ADMIN_PORT: u16 = 9101;
/// Admin port of an activator, on loopback of its host.
pub const ACTIVATOR_ADMIN_PORT: u16 = 9102;
/// Admin port of dns-signal, on loopback of its host.
pub const DNS_SIGNAL_ADMIN_PORT: u16 = 9103;
/// discovery's console, on loopback.
pub const CONSOLE_PORT: u16 = 9105;

const fn public_ipv4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, last))
}

/// One of the private networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Network {
    /// Exports `billing`.
    West,
    /// Exports `orders`.
    East,
    /// Exports `stock`.
    Isle,
    /// Exports `audit`.
    Cape,
    /// Exports `media`.
    Gulf,
}

impl Network {
    /// The two of the usual picture, west first.
    pub const PAIR: [Self; 2] = [Self::West, Self::East];
    /// The five that a lab can have; one with fewer has the first of them.
    pub const FIVE: [Self; 5] = [Self::West, Self::East, Self::Isle, Self::Cape, Self::Gulf];

    /// The networks of a lab with so many; at most five.
    #[must_use]
    pub fn first(count: usize) -> &'static [Self] {
        const FIVE: &[Network] = &Network::FIVE;
        &FIVE[..count.min(FIVE.len())]
    }

    /// As it is written in names: `west`, `east`. Four letters, for the names of interfaces.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::West => "west",
            Self::East => "east",
            Self::Isle => "isle",
            Self::Cape => "cape",
            Self::Gulf => "gulf",
        }
    }

    /// The other one of the usual picture; of the networks beyond it, west.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::West => Self::East,
            Self::East | Self::Isle | Self::Cape | Self::Gulf => Self::West,
        }
    }

    /// The service its activator exports; also the name of the host that serves it.
    #[must_use]
    pub const fn service(self) -> &'static str {
        match self {
            Self::West => "billing",
            Self::East => "orders",
            Self::Isle => "stock",
            Self::Cape => "audit",
            Self::Gulf => "media",
        }
    }

    /// The name by which other networks reach its service.
    #[must_use]
    pub fn service_name(self) -> String {
        format!("{}.{}.{SUFFIX}", self.service(), self.name())
    }

    /// Where its relay listens, on the public segment.
    #[must_use]
    pub const fn relay(self) -> SocketAddr {
        SocketAddr::new(public_ipv4(self.public_base() + 2), RELAY_PORT)
    }

    /// The last number of its router's addresses, on the public segment.
    #[must_use]
    pub const fn router(self) -> u8 {
        self.public_base() + 1
    }

    /// Where its second relay listens, in a lab that has one.
    #[must_use]
    pub const fn second_relay(self) -> SocketAddr {
        SocketAddr::new(public_ipv4(self.public_base() + 4), RELAY_PORT)
    }

    const fn public_base(self) -> u8 {
        match self {
            Self::West => 10,
            Self::East => 20,
            Self::Isle => 30,
            Self::Cape => 40,
            Self::Gulf => 60,
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::FIVE
            .into_iter()
            .find(|network| network.name() == text)
            .ok_or_else(|| {
                let known = Self::FIVE.map(Self::name).join(", ");
                format!("no network `{text}`: there are {known}")
            })
    }
}

/// What a leg is plugged into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// The internet of the lab.
    Public,
    /// The inside of one private network.
    Inside(Network),
}

impl Segment {
    /// Those of a lab with these networks.
    pub fn all(networks: &[Network]) -> impl Iterator<Item = Self> {
        let insides = networks.iter().copied().map(Self::Inside);
        std::iter::once(Self::Public).chain(insides)
    }

    /// The host-like name of the namespace that holds its bridge.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Public => "public".to_owned(),
            Self::Inside(network) => format!("{network}/lan"),
        }
    }

    /// Name of the interface by which a host is plugged in.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Public => "wan",
            Self::Inside(_) => "lan",
        }
    }

    /// The addresses with the given last number.
    #[must_use]
    pub fn addresses(self, last: u8) -> (Ipv4Addr, Ipv6Addr) {
        // 53 is written `::53`, as in IPv4, so that people recognise it.
        let low = u16::from_str_radix(&last.to_string(), 16).unwrap_or(u16::from(last));
        match self {
            Self::Public => (
                Ipv4Addr::new(203, 0, 113, last),
                Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, low),
            ),
            Self::Inside(_) => (
                Ipv4Addr::new(10, 0, 0, last),
                Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, low),
            ),
        }
    }
}

/// One plug of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leg {
    /// Where it is plugged in.
    pub segment: Segment,
    /// IPv4 addresses, the main one first.
    pub ipv4: Vec<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
}

/// A host: one network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `discovery`, or `west/app`.
    pub name: String,
    /// One plug, or two for those at an edge.
    pub legs: Vec<Leg>,
    /// Whether the kernel forwards packets there.
    pub forwards: bool,
    /// The network whose router is its way out.
    pub default_route: Option<Network>,
}

impl Host {
    fn new(name: String, legs: &[(Segment, u8)]) -> Self {
        let legs = legs
            .iter()
            .map(|&(segment, last)| {
                let (ipv4, ipv6) = segment.addresses(last);
                Leg {
                    segment,
                    ipv4: vec![ipv4],
                    ipv6,
                }
            })
            .collect();
        Self {
            name,
            legs,
            forwards: false,
            default_route: None,
        }
    }

    /// All its addresses.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.legs
            .iter()
            .flat_map(|leg| {
                leg.ipv4
                    .iter()
                    .copied()
                    .map(IpAddr::V4)
                    .chain([IpAddr::V6(leg.ipv6)])
            })
            .collect()
    }
}

/// The ports that an inside host sends from when it does not care, by the last number of its address; no two hosts of a
/// network have one in common, so that a NAT can keep every port as it is.
#[must_use]
pub fn source_ports(last: u8) -> Option<(u16, u16)> {
    match last {
        3 => Some((10_000, 21_999)),
        10 => Some((22_000, 38_999)),
        20 => Some((39_000, 48_999)),
        _ => None,
    }
}

/// All hosts of a lab with these networks: the public ones, then each network's.
#[must_use]
pub fn hosts(networks: &[Network]) -> Vec<Host> {
    let mut upstream = Host::new("upstream".to_owned(), &[(Segment::Public, 53)]);
    upstream.legs[0].ipv4.push(UPSTREAM_SECOND);
    let mut hosts = vec![
        Host::new("discovery".to_owned(), &[(Segment::Public, 10)]),
        upstream,
    ];
    for &network in networks {
        let inside = Segment::Inside(network);
        let base = network.public_base();
        let named = |host: &str| format!("{network}/{host}");
        hosts.push(Host {
            forwards: true,
            ..Host::new(named("router"), &[(Segment::Public, base + 1), (inside, 1)])
        });
        hosts.push(Host::new(
            named("relay"),
            &[(Segment::Public, base + 2), (inside, 2)],
        ));
        // In labs with spares, a second relay and a second activator run here.
        hosts.push(Host::new(
            named("relay2"),
            &[(Segment::Public, base + 4), (inside, 4)],
        ));
        let rest = [
            ("activator", 3),
            ("activator2", 5),
            ("app", 10),
            (network.service(), 20),
        ];
        for (host, last) in rest {
            hosts.push(Host {
                forwards: host.starts_with("activator"),
                default_route: Some(network),
                ..Host::new(named(host), &[(inside, last)])
            });
        }
    }
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_networks_use_the_same_addresses_inside() {
        let inside = |name: &str| {
            let hosts = hosts(&Network::FIVE);
            hosts
                .iter()
                .find(|host| host.name == name)
                .expect("a host of the picture")
                .addresses()
        };
        assert_eq!(inside("west/app"), inside("east/app"));
        assert_eq!(inside("west/app"), inside("gulf/app"));
        assert_eq!(
            inside("west/app")[0],
            IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10))
        );
        assert_eq!(inside("west/app")[1].to_string(), "fd00:10::10");
        assert_eq!(inside("west/billing"), inside("east/orders"));
    }

    #[test]
    fn names_of_interfaces_are_no_longer_than_the_kernel_takes() {
        for host in hosts(&Network::FIVE) {
            assert!(host.name.len() <= 15, "{}", host.name);
        }
    }

    #[test]
    fn no_two_hosts_of_one_segment_share_an_address() {
        let mut seen = Vec::new();
        for host in hosts(&Network::FIVE) {
            for leg in host.legs {
                for address in leg.ipv4 {
                    assert!(
                        !seen.contains(&(leg.segment.name(), address)),
                        "{address} twice"
                    );
                    seen.push((leg.segment.name(), address));
                }
            }
        }
        assert_eq!(seen.len(), 53);
    }
}
