//! Cutting a joined packet at its borders without touching what it carries: each piece gets its own headers, its
//! transport checksum stays begun.

use super::checksum::{self, get, put};
use super::layout::Version;
use crate::frame::{Frame, GsoKind};

const FIN_PSH: u8 = 1 | 8;
const CWR: u8 = 128;

/// The longest headers that are cut: 60 bytes of IPv4 and 60 of TCP, or IPv6 with a few extensions.
pub const MAX_HEADERS_LEN: usize = 128;

/// The pieces of a joined packet, one after the other, as the kernel would cut them; only that the transport checksum
/// of each is partial, which the receiving kernel completes.
#[derive(Debug, Clone)]
pub struct Cutter<'a> {
    headers: [u8; MAX_HEADERS_LEN],
    headers_len: usize,
    payload: &'a [u8],
    size: usize,
    /// Bytes of payload given out.
    at: usize,
    l4: usize,
    is_v4: bool,
    is_tcp: bool,
    flags: u8,
    identification: u16,
    sequence: u32,
    /// Sums of what all pieces have in common.
    ip_sum: u64,
    pseudo_sum: u64,
}

impl<'a> Cutter<'a> {
    /// Prepares to cut the packet of `frame`. `None` when it is one piece as it is, or its headers are longer than
    /// [`MAX_HEADERS_LEN`].
    #[must_use]
    pub fn new(frame: &Frame<'a>) -> Option<Self> {
        let gso = frame.header.gso?;
        let (packet, layout) = (frame.packet.bytes(), frame.packet.layout());
        let headers_len = usize::from(frame.header.headers_len);
        let mut headers = [0; MAX_HEADERS_LEN];
        headers
            .get_mut(..headers_len)?
            .copy_from_slice(packet.get(..headers_len)?);
        let is_v4 = layout.version == Version::V4;
        let is_tcp = gso.kind != GsoKind::UdpL4;
        let l4 = layout.l4;
        let mut cutter = Self {
            headers,
            headers_len,
            payload: packet.get(headers_len..)?,
            size: usize::from(gso.size),
            at: 0,
            l4,
            is_v4,
            is_tcp,
            flags: if is_tcp { headers[l4 + 13] } else { 0 },
            identification: get(&headers, 4),
            sequence: 0,
            ip_sum: 0,
            pseudo_sum: checksum::pseudo_header(
                layout.source,
                layout.destination,
                layout.protocol.number(),
                0,
            ),
        };
        if is_tcp {
            let at = l4 + 4;
            let field = [
                headers[at],
                headers[at + 1],
                headers[at + 2],
                headers[at + 3],
            ];
            cutter.sequence = u32::from_be_bytes(field);
        }
        if is_v4 {
            put(&mut cutter.headers, 2, 0);
            put(&mut cutter.headers, 4, 0);
            put(&mut cutter.headers, 10, 0);
            cutter.ip_sum = checksum::add(0, &cutter.headers[..l4]);
        }
        Some(cutter)
    }

    /// Bytes of the longest piece: headers and payload.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.headers_len + self.size.min(self.payload.len())
    }

    /// How many pieces there are.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.payload.len().div_ceil(self.size).max(1)
    }

    /// The headers and the payload of the next piece.
    pub fn next_piece(&mut self) -> Option<(&[u8], &'a [u8])> {
        let first = self.at == 0;
        if !first && self.at >= self.payload.len() || self.at > self.payload.len() {
            return None;
        }
        let end = self.payload.len().min(self.at + self.size);
        let payload = &self.payload[self.at..end];
        let last = end == self.payload.len();
        let length = self.headers_len + payload.len();
        let segment_len = length - self.l4;
        if self.is_v4 {
            let (total, identification) = (length as u16, self.identification);
            put(&mut self.headers, 2, total);
            put(&mut self.headers, 4, identification);
            let sum = self.ip_sum + u64::from(total) + u64::from(identification);
            put(&mut self.headers, 10, !checksum::fold(sum));
            self.identification = identification.wrapping_add(1);
        } else {
            put(&mut self.headers, 4, (length - 40) as u16);
        }
        let partial = checksum::fold(self.pseudo_sum + segment_len as u64);
        let transport = &mut self.headers[self.l4..];
        if self.is_tcp {
            let sequence = self.sequence.wrapping_add(self.at as u32);
            transport[4..8].copy_from_slice(&sequence.to_be_bytes());
            // FIN and PSH belong to the last segment, CWR to the first (RFC 3168 section 6.1.2).
            transport[13] =
                self.flags & !(if last { 0 } else { FIN_PSH }) & !(if first { 0 } else { CWR });
            put(transport, 16, partial);
        } else {
            put(transport, 4, segment_len as u16);
            put(transport, 6, partial);
        }
        // A packet without payload is one piece.
        self.at = end.max(self.at + 1);
        Some((&self.headers[..self.headers_len], payload))
    }
}
