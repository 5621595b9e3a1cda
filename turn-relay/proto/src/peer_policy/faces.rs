//! All that an address may stand for.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address itself, and every IPv4 address that it leads to somewhere between here and its host.
pub(super) fn faces(ip: IpAddr, nat64: &[Ipv6Net]) -> impl Iterator<Item = IpAddr> {
    let v6 = match ip {
        IpAddr::V6(v6) => Some(v6),
        IpAddr::V4(_) => None,
    };
    let known = v6.map_or([None; 2], embedded);
    let configured = nat64.iter().filter_map(move |prefix| {
        let v6 = v6.filter(|v6| prefix.contains(v6))?;
        translated(v6, prefix.prefix_len())
    });
    let hidden = known.into_iter().flatten().chain(configured);
    std::iter::once(ip).chain(hidden.map(IpAddr::V4))
}

/// An IPv4-mapped address as the IPv4 address that a dual-stack socket means by it.
pub(super) fn mapped(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// What is no single host, or means this host on Linux without saying so.
pub(super) fn is_no_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast(),
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len))
}

const fn v6(a: u16, b: u16, last: u16, len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, last),
        len,
    ))
}

/// Where secrets are given to whoever asks from this machine, or only its own programs are expected.
const GUARDED: [IpNet; 9] = [
    // Loopback (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
    v4(127, 0, 0, 0, 8),
    v6(0, 0, 1, 128),
    // Link-local (RFC 3927, RFC 4291 section 2.5.6), the metadata service 169.254.169.254 of most clouds with it.
    v4(169, 254, 0, 0, 16),
    v6(0xFE80, 0, 0, 10),
    // Site-local, which RFC 3879 took back.
    v6(0xFEC0, 0, 0, 10),
    // Metadata services elsewhere: Amazon over IPv6, Alibaba, Oracle, Azure.
    v6(0xFD00, 0x0EC2, 0x254, 128),
    v4(100, 100, 100, 200, 32),
    v4(192, 0, 0, 192, 32),
    v4(168, 63, 129, 16, 32),
];

/// The guarded network that an address is in: to be reached, it must be meant.
pub(super) fn guard(ip: IpAddr) -> Option<IpNet> {
    GUARDED.into_iter().find(|network| network.contains(&ip))
}

/// IPv4 addresses in IPv6 addresses, where the standards put them.
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
        [0x64, 0xFF9B, 1, ..] => [v4(s[6], s[7]), translated(v6, 48)],
        // 6to4 (RFC 3056 section 2).
        [0x2002, a, b, ..] => [v4(a, b), None],
        // Teredo: the server, and the client with all bits turned over (RFC 4380 section 4).
        [0x2001, 0, a, b, _, _, c, d] => [v4(a, b), v4(!c, !d)],
        // ISATAP: an interface identifier (RFC 5214 section 6.1).
        [_, _, _, _, 0 | 0x200, 0x5EFE, a, b] => [v4(a, b), None],
        _ => [None, None],
    }
}

/// The IPv4 address behind a prefix of so many bits; the bits 64 to 71 are left out
/// ([RFC 6052 section 2.2](https://www.rfc-editor.org/rfc/rfc6052#section-2.2)).
fn translated(v6: Ipv6Addr, prefix_len: u8) -> Option<Ipv4Addr> {
    let bytes = v6.octets();
    let start = match prefix_len {
        32 | 40 | 48 | 56 | 64 | 96 => usize::from(prefix_len / 8),
        _ => return None,
    };
    let mut v4 = [0; 4];
    let rest = (start..16).filter(|at| *at != 8 || start == 96 / 8);
    for (to, at) in v4.iter_mut().zip(rest) {
        *to = bytes[at];
    }
    Some(v4.into())
}
