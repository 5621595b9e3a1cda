//! Which peers may be reached: none, unless the configuration says so, and however their address is written.
//!
//! One address has many spellings: `::ffff:10.0.0.1`, `::10.0.0.1`, `2002:a00:1::`, Teredo, NAT64. Each spelling of a
//! denied address was once a hole in some TURN server. Here an address is allowed only if it *and every address hidden
//! in it* is allowed.

use ipnet::IpNet;
use model::{PeerAddr, ServerAddr};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Immutable, shared by all shards.
#[derive(Clone, Debug, Default)]
pub struct PeerPolicy {
    allowed: Vec<IpNet>,
    own: Vec<SocketAddr>,
}

impl PeerPolicy {
    /// Allows peers in these networks. `own` are the addresses the server listens on (an unspecified one stands for all
    /// addresses of this machine): as peers they would make a loop
    /// ([RFC 8656 section 21.1.7](https://www.rfc-editor.org/rfc/rfc8656#section-21.1.7)).
    pub fn new(allowed: Vec<IpNet>, own: &[ServerAddr]) -> Self {
        Self {
            allowed,
            own: own.iter().map(|server| server.0).collect(),
        }
    }

    /// Whether nobody at all is allowed.
    pub fn is_empty(&self) -> bool {
        self.allowed.is_empty()
    }

    /// Whether a permission for this address may be given (permissions know no ports).
    pub fn allows(&self, ip: IpAddr) -> bool {
        if never(ip) || !self.listed(ip) {
            return false;
        }
        let IpAddr::V6(v6) = ip else {
            return true;
        };
        embedded(v6)
            .into_iter()
            .flatten()
            .map(IpAddr::V4)
            .all(|hidden| !never(hidden) && self.listed(hidden))
    }

    /// Whether data may be sent to this address and port, given that its address is allowed.
    pub fn allows_port(&self, peer: PeerAddr) -> bool {
        let port = peer.0.port();
        port != 0
            && !self.own.iter().any(|own| {
                own.port() == port && (own.ip().is_unspecified() || own.ip() == peer.0.ip())
            })
    }

    fn listed(&self, ip: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(&ip))
    }
}

/// What is no single host, or means this host on Linux without saying so.
fn never(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    }
}

/// The IPv4 addresses that an IPv6 address leads to somewhere between here and its host.
fn embedded(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let s = v6.segments();
    let v4 =
        |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match s {
        // ::1 is an address of its own, not the compatible spelling of 0.0.0.1.
        [0, 0, 0, 0, 0, 0, 0, 1] => [None, None],
        // IPv4-compatible and IPv4-mapped (RFC 4291 section 2.5.5), and IPv4-translated (RFC 2765 section 2.1).
        [0, 0, 0, 0, 0, 0 | 0xFFFF, a, b] | [0, 0, 0, 0, 0xFFFF, 0, a, b] => [v4(a, b), None],
        // NAT64: the well-known prefix (RFC 6052 section 2.1).
        [0x64, 0xFF9B, 0, ..] => [v4(s[6], s[7]), None],
        // The local-use one (RFC 8215) as /96 and as /48 (RFC 6052 section 2.2).
        [0x64, 0xFF9B, 1, 0, 0, 0, a, b] => [v4(a, b), None],
        [0x64, 0xFF9B, 1, a, b, c, d, e] => [v4(d, e), v4(a, b << 8 | c >> 8)],
        // 6to4 (RFC 3056 section 2).
        [0x2002, a, b, ..] => [v4(a, b), None],
        // Teredo: the server, and the client with all bits turned over (RFC 4380 section 4).
        [0x2001, 0, a, b, _, _, c, d] => [v4(a, b), v4(!c, !d)],
        // ISATAP: an interface identifier (RFC 5214 section 6.1).
        [_, _, _, _, 0 | 0x200, 0x5EFE, a, b] => [v4(a, b), None],
        _ => [None, None],
    }
}
