//! What a host or router says of a packet that it cannot pass on. How often is the caller's to limit
//! ([RFC 1812 section 4.3.2.8](https://www.rfc-editor.org/rfc/rfc1812#section-4.3.2.8)).

use std::net::IpAddr;

use super::checksum;
use super::layout::{Fragment, Layout, Protocol, Version};
use super::packet::Packet;
use crate::frame::Frame;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// In the seventh byte of an IPv4 header.
const DONT_FRAGMENT: u8 = 0x40;

/// The longest ICMP error: RFC 1812 section 4.3.2.3.
const MAX_ICMP_LEN: usize = 576;
/// The longest ICMPv6 error: RFC 4443 section 2.4.
const MAX_ICMPV6_LEN: usize = 1_280;

/// Why a packet goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// There is no way to the network.
    Network,
    /// The host does not answer.
    Host,
    /// Nothing listens there.
    Port,
    /// A policy forbids it.
    AdminProhibited,
    /// The packet is longer than the next hop takes.
    TooBig {
        /// What it takes, in bytes.
        mtu: u16,
    },
}

impl Unreachable {
    /// Type and code: RFC 792 and RFC 1812 section 5.2.7.1; RFC 4443 sections 3.1 and 3.2.
    fn code(self, version: Version) -> (u8, u8) {
        match (version, self) {
            (Version::V4, Self::Network) => (3, 0),
            (Version::V4, Self::Host) => (3, 1),
            (Version::V4, Self::Port) => (3, 3),
            (Version::V4, Self::TooBig { .. }) => (3, 4),
            (Version::V4, Self::AdminProhibited) => (3, 13),
            (Version::V6, Self::Network) => (1, 0),
            (Version::V6, Self::AdminProhibited) => (1, 1),
            (Version::V6, Self::Host) => (1, 3),
            (Version::V6, Self::Port) => (1, 4),
            (Version::V6, Self::TooBig { .. }) => (2, 0),
        }
    }
}

/// The ICMP or ICMPv6 error that tells the sender of `undeliverable` why it went no further, from the address
/// `from` (for [`Unreachable::Port`] the destination itself).
///
/// `None` when there must be no answer: to errors, to fragments after the first, to and from addresses that
/// are not one host, for bytes that are no packet, and when `from` is of the other family.
pub fn unreachable(undeliverable: &[u8], from: IpAddr, reason: Unreachable) -> Option<Vec<u8>> {
    let packet = Packet::parse(undeliverable).ok()?;
    let layout = packet.layout();
    let silent = packet.is_icmp_error()
        || layout.fragment == Fragment::Later
        || !is_one_host(layout.source)
        || !is_one_host(layout.destination)
        || from.is_ipv4() != layout.source.is_ipv4();
    if silent {
        return None;
    }
    let (protocol, longest) = match layout.version {
        Version::V4 => (Protocol::Icmp, MAX_ICMP_LEN),
        Version::V6 => (Protocol::Icmpv6, MAX_ICMPV6_LEN),
    };
    let header_len = ip_header_len(layout.version);
    let quoted = &packet.bytes()[..packet.bytes().len().min(longest - header_len - 8)];
    let mut icmp = Vec::with_capacity(8 + quoted.len());
    let (kind, code) = reason.code(layout.version);
    let mtu = match reason {
        Unreachable::TooBig { mtu } => mtu,
        _ => 0,
    };
    icmp.extend_from_slice(&[kind, code, 0, 0, 0, 0]);
    icmp.extend_from_slice(&mtu.to_be_bytes());
    icmp.extend_from_slice(quoted);
    Some(packet_of(from, layout.source, protocol, &icmp))
}

/// The least that every path takes over IPv4 ([RFC 791](https://www.rfc-editor.org/rfc/rfc791#section-3.1)) and IPv6
/// ([RFC 8200 section 5](https://www.rfc-editor.org/rfc/rfc8200#section-5)): nobody is told to send less.
const MIN_MTU: [usize; 2] = [68, 1_280];

/// What a router whose next hop takes `limit` bytes of IP packet says of a frame that would leave in longer pieces and
/// may not be fragmented (the bit is set, or it is IPv6): "packet too big"
/// ([RFC 1191 section 4](https://www.rfc-editor.org/rfc/rfc1191#section-4),
/// [RFC 8201](https://www.rfc-editor.org/rfc/rfc8201)), in the name of the destination.
///
/// `None` when it fits, may be fragmented, is no longer than what the version guarantees, or must not be answered, as in
/// [`unreachable()`].
pub fn too_big(frame: &Frame<'_>, limit: usize) -> Option<Vec<u8>> {
    let Frame { header, packet } = frame;
    let (layout, bytes) = (packet.layout(), packet.bytes());
    let limit = limit.max(MIN_MTU[usize::from(layout.version == Version::V6)]);
    let longest = match header.gso {
        Some(gso) => usize::from(header.headers_len) + usize::from(gso.size),
        None => bytes.len(),
    };
    let fixed = layout.version == Version::V6 || bytes[6] & DONT_FRAGMENT != 0;
    if longest.min(bytes.len()) <= limit || !fixed {
        return None;
    }
    let mtu = limit.min(usize::from(u16::MAX)) as u16;
    unreachable(bytes, layout.destination, Unreachable::TooBig { mtu })
}

/// The RST that refuses `segment`, as RFC 9293 section 3.10.7.1 has it for a connection that does not exist.
///
/// `None` for what must not be answered so: a RST, anything but TCP, a later fragment, no packet.
pub fn tcp_reset(segment: &[u8]) -> Option<Vec<u8>> {
    let packet = Packet::parse(segment).ok()?;
    let layout = packet.layout();
    let flags = packet.tcp_flags()?;
    if flags & RST != 0 || !is_one_host(layout.source) || !is_one_host(layout.destination) {
        return None;
    }
    let header: &[u8; 20] = packet.segment().first_chunk()?;
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (sequence, acknowledged, answer) = if flags & ACK != 0 {
        (word(8), 0, RST)
    } else {
        let occupied = packet.payload()?.len() as u32
            + u32::from(flags & SYN != 0)
            + u32::from(flags & FIN != 0);
        (0, word(4).wrapping_add(occupied), RST | ACK)
    };
    let mut reset = [0; 20];
    reset[0..2].copy_from_slice(&header[2..4]);
    reset[2..4].copy_from_slice(&header[0..2]);
    reset[4..8].copy_from_slice(&sequence.to_be_bytes());
    reset[8..12].copy_from_slice(&acknowledged.to_be_bytes());
    reset[12] = 5 << 4;
    reset[13] = answer;
    Some(packet_of(
        layout.destination,
        layout.source,
        Protocol::Tcp,
        &reset,
    ))
}

fn is_one_host(address: IpAddr) -> bool {
    let broadcast = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(_) => false,
    };
    !(broadcast || address.is_multicast() || address.is_unspecified())
}

fn ip_header_len(version: Version) -> usize {
    match version {
        Version::V4 => 20,
        Version::V6 => 40,
    }
}

/// Puts an IP header in front of a segment and fills in the checksums. Both addresses are of one family.
fn packet_of(source: IpAddr, destination: IpAddr, protocol: Protocol, segment: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(40 + segment.len());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (20 + segment.len()) as u16;
            packet.extend_from_slice(&[0x45, 0]);
            packet.extend_from_slice(&total.to_be_bytes());
            // Identification 0 with "don't fragment": RFC 6864 section 4.1.
            packet.extend_from_slice(&[0, 0, 0x40, 0, 64, protocol.number(), 0, 0]);
            packet.extend_from_slice(&source.octets());
            packet.extend_from_slice(&destination.octets());
            checksum::fill_ipv4_header(&mut packet);
        }
        (source, destination) => {
            packet.extend_from_slice(&[0x60, 0, 0, 0]);
            packet.extend_from_slice(&(segment.len() as u16).to_be_bytes());
            packet.extend_from_slice(&[protocol.number(), 64]);
            for address in [source, destination] {
                if let IpAddr::V6(v6) = address {
                    packet.extend_from_slice(&v6.octets());
                }
            }
        }
    }
    packet.extend_from_slice(segment);
    if let Ok(layout) = Layout::parse(&packet) {
        checksum::fill(&mut packet, &layout);
    }
    packet
}
