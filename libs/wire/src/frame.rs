//! One message of a link's `ip` data channel: a header and an IP packet of up to 65 535 bytes.
//!
//! The packet is as the kernel of the sending host gave it: several TCP segments or UDP datagrams of one flow
//! may still be joined, and the transport checksum may be only begun. The header says how to cut and what to
//! complete; the receiving kernel does it. Numbers are in network byte order.
//!
//! ```text
//!   0                   1                   2                   3
//!   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//!  +-------+-------+-+-------------+-------------------------------+
//!  |Version|0 0 0 C|E|  GSO type   |        Headers length         |
//!  +-------+-------+-+-------------+-------------------------------+
//!  |           GSO size            |        Checksum start         |
//!  +-------------------------------+-------------------------------+
//!  |        Checksum offset        |         Reserved (0)          |
//!  +-------------------------------+-------------------------------+
//!  |                       IP packet ...                           |
//! ```
//!
//! Version: 1. C: the checksum at start + offset is partial. E: the first segment carries CWR (RFC 3168), the
//! others must not. GSO type: 0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; the numbers are virtio's.
//!
//! Since the kernel writes where the header says, the header is checked against the packet: the checksum can
//! be in no other place than that of the packet's own transport header. Otherwise a peer could let our kernel
//! change a port after our policy has looked at it.

use thiserror::Error;

use crate::ip::{
    Checksum, Fragment, Layout, MAX_PACKET_LEN, Packet, PacketError, Protocol, Version,
};

/// Bytes of the header.
pub const HEADER_LEN: usize = 12;

/// The longest message: the header and the longest packet.
pub const MAX_FRAME_LEN: usize = HEADER_LEN + MAX_PACKET_LEN;

/// The version that this code speaks.
pub const VERSION: u8 = 1;

/// The most segments that one TCP packet may be cut into; 64 KB at the smallest MSS that Linux uses is 1 365.
/// A frame with `GSO size` 1 would have our kernel make 65 000 packets of one message.
pub const MAX_TCP_SEGMENTS: usize = 2_048;

/// The most datagrams that one UDP packet may be cut into, as in Linux.
pub const MAX_UDP_SEGMENTS: usize = 128;

const FLAG_PARTIAL_CHECKSUM: u8 = 0x01;
const FLAG_ECN: u8 = 0x80;

/// What a joined packet consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GsoKind {
    /// TCP segments over IPv4.
    TcpV4 = 1,
    /// TCP segments over IPv6.
    TcpV6 = 4,
    /// UDP datagrams over either.
    UdpL4 = 5,
}

/// How a joined packet is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gso {
    /// Into what.
    pub kind: GsoKind,
    /// The first segment carries CWR and the others must not
    /// ([RFC 3168 section 6.1.2](https://www.rfc-editor.org/rfc/rfc3168#section-6.1.2)).
    pub ecn: bool,
    /// Bytes of payload in each piece but the last; never 0.
    pub size: u16,
}

/// Where a partial checksum is to be completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where the sum begins: the transport header.
    pub start: u16,
    /// Where the checksum is, counted from `start`.
    pub offset: u16,
}

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// How to cut the packet; `None`: it is one.
    pub gso: Option<Gso>,
    /// Where to complete the checksum; `None`: it is complete.
    pub partial_checksum: Option<PartialChecksum>,
    /// Bytes of all headers, IP to transport, when the packet is to be cut; otherwise 0.
    pub headers_len: u16,
}

/// A frame where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// Its packet, looked through.
    pub packet: Packet<'a>,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Shorter than the header, or longer than a packet can be.
    #[error("impossible length")]
    Length,
    /// Another version, or reserved bits that are set.
    #[error("unknown version or flags")]
    Version,
    /// A GSO type that is unknown or does not fit the packet, or a size that cuts it into nothing or into too
    /// many pieces.
    #[error("impossible segmentation")]
    Gso,
    /// A checksum position that is not that of the packet's transport header.
    #[error("impossible checksum position")]
    Checksum,
    /// What follows the header is not one whole packet.
    #[error("not a packet: {0}")]
    Packet(#[from] PacketError),
}

impl Header {
    /// The header of an ordinary packet.
    pub const PLAIN: Self = Self {
        gso: None,
        partial_checksum: None,
        headers_len: 0,
    };

    /// What the packet's transport checksum field holds: needed to rewrite its addresses.
    pub fn checksum(&self) -> Checksum {
        match self.partial_checksum {
            Some(_) => Checksum::Partial,
            None => Checksum::Full,
        }
    }

    /// The bytes to put in front of the packet.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = VERSION << 4;
        if let Some(PartialChecksum { start, offset }) = self.partial_checksum {
            bytes[0] |= FLAG_PARTIAL_CHECKSUM;
            bytes[6..8].copy_from_slice(&start.to_be_bytes());
            bytes[8..10].copy_from_slice(&offset.to_be_bytes());
        }
        if let Some(Gso { kind, ecn, size }) = self.gso {
            bytes[1] = kind as u8 | if ecn { FLAG_ECN } else { 0 };
            bytes[4..6].copy_from_slice(&size.to_be_bytes());
        }
        bytes[2..4].copy_from_slice(&self.headers_len.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let flags = bytes[0] & 0x0f;
        if bytes[0] >> 4 != VERSION || flags & !FLAG_PARTIAL_CHECKSUM != 0 || word(10) != 0 {
            return Err(FrameError::Version);
        }
        let kind = match bytes[1] & !FLAG_ECN {
            0 if bytes[1] != 0 || word(4) != 0 => return Err(FrameError::Gso),
            0 => None,
            1 => Some(GsoKind::TcpV4),
            4 => Some(GsoKind::TcpV6),
            5 => Some(GsoKind::UdpL4),
            _ => return Err(FrameError::Gso),
        };
        let ecn = bytes[1] & FLAG_ECN != 0;
        Ok(Self {
            gso: kind.map(|kind| Gso {
                kind,
                ecn,
                size: word(4),
            }),
            partial_checksum: (flags & FLAG_PARTIAL_CHECKSUM != 0).then(|| PartialChecksum {
                start: word(6),
                offset: word(8),
            }),
            headers_len: word(2),
        })
    }

    /// Checks the header against the packet it stands in front of.
    ///
    /// # Errors
    ///
    /// [`FrameError::Gso`] and [`FrameError::Checksum`].
    pub fn validate(&self, packet: &[u8], layout: &Layout) -> Result<(), FrameError> {
        if let Some(PartialChecksum { start, offset }) = self.partial_checksum {
            let expected = layout.protocol.checksum_offset();
            let fits = layout.fragment != Fragment::Later
                && usize::from(start) == layout.l4
                && expected == Some(usize::from(offset));
            if !fits {
                return Err(FrameError::Checksum);
            }
        }
        let Some(gso) = self.gso else {
            let within = usize::from(self.headers_len) <= layout.end;
            return if within { Ok(()) } else { Err(FrameError::Gso) };
        };
        let (fits, most) = match gso.kind {
            GsoKind::TcpV4 => (is(layout, Version::V4, Protocol::Tcp), MAX_TCP_SEGMENTS),
            GsoKind::TcpV6 => (is(layout, Version::V6, Protocol::Tcp), MAX_TCP_SEGMENTS),
            GsoKind::UdpL4 => (is(layout, layout.version, Protocol::Udp), MAX_UDP_SEGMENTS),
        };
        let headers = layout.headers_len(packet).ok_or(FrameError::Gso)?;
        let size = usize::from(gso.size);
        let sound = fits
            && self.partial_checksum.is_some()
            && usize::from(self.headers_len) == headers
            && size > 0
            && (layout.end - headers).div_ceil(size) <= most
            && (!gso.ecn || gso.kind != GsoKind::UdpL4);
        if sound { Ok(()) } else { Err(FrameError::Gso) }
    }
}

fn is(layout: &Layout, version: Version, protocol: Protocol) -> bool {
    layout.version == version && layout.protocol == protocol && layout.fragment == Fragment::Whole
}

impl<'a> Frame<'a> {
    /// Reads a frame and checks its header against its packet.
    ///
    /// # Errors
    ///
    /// See [`FrameError`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (header, packet) = bytes.split_first_chunk().ok_or(FrameError::Length)?;
        if packet.len() > MAX_PACKET_LEN {
            return Err(FrameError::Length);
        }
        let header = Header::decode(header)?;
        let parsed = Packet::parse(packet)?;
        if parsed.bytes().len() != packet.len() {
            return Err(FrameError::Length);
        }
        header.validate(packet, parsed.layout())?;
        Ok(Self {
            header,
            packet: parsed,
        })
    }
}
