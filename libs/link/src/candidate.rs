//! Candidates, as ours and as the wire's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use protocol::document::{Candidate as WireCandidate, candidate::Kind};

use crate::ice::candidate_priority;
use crate::output::LinkError;

/// Where a candidate's address comes from.
/// [RFC 8445 §5.1.1](https://www.rfc-editor.org/rfc/rfc8445#section-5.1.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateKind {
    /// An address of an own interface.
    Host,
    /// The address a STUN server saw.
    ServerReflexive,
    /// An address a relay lends.
    Relayed,
}

/// An address this end can be reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalCandidate {
    /// Where the address comes from.
    pub kind: CandidateKind,
    /// The address peers send to.
    pub address: SocketAddr,
    /// What this end sends from: the host socket's address, or the relayed address itself.
    pub base: SocketAddr,
}

impl LocalCandidate {
    /// As the peer is told of it.
    #[must_use]
    pub fn to_wire(self) -> WireCandidate {
        let kind = match self.kind {
            CandidateKind::Host => Kind::Host,
            CandidateKind::ServerReflexive => Kind::ServerReflexive,
            CandidateKind::Relayed => Kind::Relayed,
        };
        WireCandidate {
            kind: kind.into(),
            address: self.address.to_string(),
            priority: candidate_priority(self.kind, self.address.ip()),
            related_address: String::new(),
        }
    }
}

/// What a remote candidate is, and its address.
pub(crate) fn from_wire(wire: &WireCandidate) -> Result<(CandidateKind, SocketAddr), LinkError> {
    let bad = || LinkError::BadCandidate(wire.address.chars().take(64).collect());
    let address: SocketAddr = wire.address.parse().map_err(|_| bad())?;
    if address.port() == 0 || reach(address.ip()) == Reach::Nowhere {
        return Err(bad());
    }
    let kind = match wire.kind() {
        Kind::Host => CandidateKind::Host,
        Kind::ServerReflexive => CandidateKind::ServerReflexive,
        Kind::Relayed => CandidateKind::Relayed,
        Kind::Unspecified => return Err(bad()),
    };
    Ok((kind, address))
}

/// How far an address means the same to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// No candidate: it names no host, many, or another one for every link.
    Nowhere,
    /// This host.
    Loopback,
    /// A network's own, or leading there in some other form: with us it may be somebody else.
    Inside,
    Anywhere,
}

pub(crate) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(ip) => reach_ipv4(ip),
        IpAddr::V6(ip) => reach_ipv6(ip),
    }
}

/// [RFC 6890 §2.2.2](https://www.rfc-editor.org/rfc/rfc6890#section-2.2.2)
fn reach_ipv4(ip: Ipv4Addr) -> Reach {
    match ip.octets() {
        [0, ..] | [169, 254, ..] | [224..=255, ..] => Reach::Nowhere,
        [127, ..] => Reach::Loopback,
        [10, ..]
        | [100, 64..=127, ..]
        | [172, 16..=31, ..]
        | [192, 0, 0, _]
        | [192, 168, ..]
        | [198, 18..=19, ..] => Reach::Inside,
        _ => Reach::Anywhere,
    }
}

/// [RFC 6890 §2.2.3](https://www.rfc-editor.org/rfc/rfc6890#section-2.2.3); addresses that lead to an IPv4 address are
/// as good as private: 64:ff9b::/96, 64:ff9b:1::/48, 2001::/32 and 2002::/16.
fn reach_ipv6(ip: Ipv6Addr) -> Reach {
    if ip.is_loopback() {
        return Reach::Loopback;
    }
    match ip.segments() {
        // Unspecified, IPv4-mapped and IPv4-compatible; link-local and site-local; multicast.
        [0, 0, 0, 0, ..] | [0xfe80..=0xfeff, ..] | [0xff00..=0xffff, ..] => Reach::Nowhere,
        [0xfc00..=0xfdff, ..] | [0x64, 0xff9b, ..] | [0x2001, 0, ..] | [0x2002, ..] => {
            Reach::Inside
        }
        _ => Reach::Anywhere,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_means_to_others() {
        let of = |text: &str| reach(text.parse().expect("an address"));
        for nowhere in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert_eq!(of(nowhere), Reach::Nowhere, "{nowhere}");
        }
        for inside in [
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "172.16.0.1",
            "172.31.9.9",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "fd00:10::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
            "2001::1",
        ] {
            assert_eq!(of(inside), Reach::Inside, "{inside}");
        }
        for anywhere in [
            "203.0.113.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "2001:db8::1",
            "2a00::1",
        ] {
            assert_eq!(of(anywhere), Reach::Anywhere, "{anywhere}");
        }
        assert_eq!(of("127.0.0.1"), Reach::Loopback);
        assert_eq!(of("::1"), Reach::Loopback);
    }
}
