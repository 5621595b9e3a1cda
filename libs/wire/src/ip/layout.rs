use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use super::checksum::get;

/// Extension headers that we follow; more is not a packet but an attack.
const MAX_EXTENSIONS: usize = 8;

/// Why bytes are not a packet that the tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketError {
    /// Shorter than its headers say, or a first fragment too short to show its ports (RFC 1858).
    #[error("truncated")]
    Truncated,
    /// The version is neither 4 nor 6, or a header length is impossible.
    #[error("malformed header")]
    Malformed,
    /// More than 8 IPv6 extension headers.
    #[error("too many extension headers")]
    TooManyExtensions,
    /// An IPv4 source route option or an IPv6 routing header that is not finished: the address in the header
    /// is then not the destination.
    #[error("source routed")]
    SourceRouted,
}

/// The version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// What follows the IP header and its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// ICMP, in IPv4 only.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMPv6, in IPv6 only.
    Icmpv6,
    /// Anything else, by its assigned number.
    Other(u8),
}

impl Protocol {
    fn new(version: Version, number: u8) -> Self {
        match (number, version) {
            (1, Version::V4) => Self::Icmp,
            (6, _) => Self::Tcp,
            (17, _) => Self::Udp,
            (58, Version::V6) => Self::Icmpv6,
            (other, _) => Self::Other(other),
        }
    }

    /// The number that IANA assigned.
    pub fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmpv6 => 58,
            Self::Other(number) => number,
        }
    }

    /// The offset of the checksum in the header.
    pub(crate) fn checksum_offset(self) -> Option<usize> {
        match self {
            Self::Icmp | Self::Icmpv6 => Some(2),
            Self::Tcp => Some(16),
            Self::Udp => Some(6),
            Self::Other(_) => None,
        }
    }

    fn min_header_len(self) -> usize {
        match self {
            Self::Tcp => 20,
            Self::Icmp | Self::Icmpv6 | Self::Udp => 8,
            Self::Other(_) => 0,
        }
    }
}

/// Which part of a datagram the packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first of several: it has the transport header.
    First,
    /// Another: it has no transport header.
    Later,
}

/// Where things are in a packet; found once, valid while the packet keeps its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The version of IP.
    pub version: Version,
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// What the packet carries.
    pub protocol: Protocol,
    /// Which part of a datagram it is.
    pub fragment: Fragment,
    /// Bytes before the transport header (in a later fragment: before the data).
    pub l4: usize,
    /// Where the packet ends; what the buffer holds beyond is not part of it.
    pub end: usize,
}

/// Whether all of the packet must be there, or it is the beginning of one, quoted by an ICMP error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Whole,
    Quoted,
}

impl Layout {
    /// Looks through a packet.
    ///
    /// # Errors
    ///
    /// See [`PacketError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PacketError> {
        Self::locate(bytes, Extent::Whole)
    }

    pub(crate) fn locate(bytes: &[u8], extent: Extent) -> Result<Self, PacketError> {
        let layout = match bytes.first().map(|first| first >> 4) {
            Some(4) => locate_v4(bytes, extent)?,
            Some(6) => locate_v6(bytes, extent)?,
            Some(_) => return Err(PacketError::Malformed),
            None => return Err(PacketError::Truncated),
        };
        if extent == Extent::Whole && layout.fragment != Fragment::Later {
            layout.check_transport(bytes)?;
        }
        Ok(layout)
    }

    fn check_transport(&self, bytes: &[u8]) -> Result<(), PacketError> {
        let segment = &bytes[self.l4..self.end];
        if segment.len() < self.protocol.min_header_len() {
            return Err(PacketError::Truncated);
        }
        if self.protocol == Protocol::Tcp {
            let header_len = tcp_header_len(segment);
            if header_len < 20 {
                return Err(PacketError::Malformed);
            }
            if header_len > segment.len() {
                return Err(PacketError::Truncated);
            }
        }
        Ok(())
    }

    /// Where the transport checksum is, when the packet (or the quoted part of it) has one.
    #[must_use]
    pub fn checksum_field(&self) -> Option<usize> {
        let field = self.l4 + self.protocol.checksum_offset()?;
        (self.fragment != Fragment::Later && field + 2 <= self.end).then_some(field)
    }

    /// Bytes of all headers: IP, its extensions and the transport header. `None` for a later fragment and for
    /// a protocol that we do not know.
    pub fn headers_len(&self, packet: &[u8]) -> Option<usize> {
        if self.fragment == Fragment::Later {
            return None;
        }
        let transport = match self.protocol {
            Protocol::Tcp => tcp_header_len(packet.get(self.l4..self.end)?),
            Protocol::Other(_) => return None,
            known => known.min_header_len(),
        };
        Some(self.l4 + transport)
    }
}

/// The data offset of a TCP segment in bytes; 0 when the segment is too short to have one.
pub(crate) fn tcp_header_len(segment: &[u8]) -> usize {
    segment.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4)
}

fn locate_v4(bytes: &[u8], extent: Extent) -> Result<Layout, PacketError> {
    let header: &[u8; 20] = bytes.first_chunk().ok_or(PacketError::Truncated)?;
    let l4 = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(get(header, 2));
    if l4 < 20 || total < l4 {
        return Err(PacketError::Malformed);
    }
    let end = total.min(bytes.len());
    if l4 > end || (extent == Extent::Whole && end < total) {
        return Err(PacketError::Truncated);
    }
    if has_source_route(&bytes[20..l4]) {
        return Err(PacketError::SourceRouted);
    }
    let fragment_field = get(header, 6);
    Ok(Layout {
        version: Version::V4,
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]).into(),
        destination: Ipv4Addr::new(header[16], header[17], header[18], header[19]).into(),
        protocol: Protocol::new(Version::V4, header[9]),
        fragment: fragment_kind(fragment_field & 0x1fff, fragment_field & 0x2000 != 0),
        l4,
        end,
    })
}

fn fragment_kind(offset: u16, more: bool) -> Fragment {
    match (offset, more) {
        (0, false) => Fragment::Whole,
        (0, true) => Fragment::First,
        _ => Fragment::Later,
    }
}

/// Loose (131) and strict (137) source routes, RFC 791 section 3.1.
fn has_source_route(mut options: &[u8]) -> bool {
    loop {
        match options {
            [] | [0, ..] => return false,
            [1, rest @ ..] => options = rest,
            [131 | 137, ..] => return true,
            [_, len, ..] => match options.get(usize::from(*len).max(2)..) {
                Some(rest) => options = rest,
                None => return false,
            },
            [_] => return false,
        }
    }
}

fn locate_v6(bytes: &[u8], extent: Extent) -> Result<Layout, PacketError> {
    let header: &[u8; 40] = bytes.first_chunk().ok_or(PacketError::Truncated)?;
    let total = 40 + usize::from(get(header, 4));
    let end = total.min(bytes.len());
    if extent == Extent::Whole && end < total {
        return Err(PacketError::Truncated);
    }
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let chain = walk_extensions(&bytes[..end], header[6])?;
    Ok(Layout {
        version: Version::V6,
        source: address(8),
        destination: address(24),
        protocol: Protocol::new(Version::V6, chain.protocol),
        fragment: chain.fragment,
        l4: chain.l4,
        end,
    })
}

struct Chain {
    protocol: u8,
    fragment: Fragment,
    l4: usize,
}

/// Follows the extension headers of RFC 8200 section 4 to the transport header.
fn walk_extensions(packet: &[u8], first: u8) -> Result<Chain, PacketError> {
    let mut chain = Chain {
        protocol: first,
        fragment: Fragment::Whole,
        l4: 40,
    };
    for _ in 0..=MAX_EXTENSIONS {
        let rest = &packet[chain.l4..];
        let len = match chain.protocol {
            // Hop-by-hop, destination options, mobility, HIP, shim6.
            0 | 60 | 135 | 139 | 140 => 8 + 8 * usize::from(*byte(rest, 1)?),
            43 => {
                if *byte(rest, 3)? != 0 {
                    return Err(PacketError::SourceRouted);
                }
                8 + 8 * usize::from(rest[1])
            }
            44 => {
                byte(rest, 7)?;
                let field = get(rest, 2);
                chain.fragment = fragment_kind(field >> 3, field & 1 != 0);
                8
            }
            51 => 8 + 4 * usize::from(*byte(rest, 1)?),
            _ => return Ok(chain),
        };
        if len > rest.len() {
            return Err(PacketError::Truncated);
        }
        chain.protocol = rest[0];
        chain.l4 += len;
        if chain.fragment == Fragment::Later {
            return Ok(chain);
        }
    }
    Err(PacketError::TooManyExtensions)
}

fn byte(bytes: &[u8], at: usize) -> Result<&u8, PacketError> {
    bytes.get(at).ok_or(PacketError::Truncated)
}
