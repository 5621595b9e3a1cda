//! Joining neighbours of one flow into one long packet, so that cutting it gives exactly these neighbours again.
//!
//! The rules are those of generic receive offload, but stricter: two packets are joined only if every bit that
//! differs between them is one that cutting sets so.

use super::MAX_PACKET_LEN;
use super::checksum::{self, get, put};
use super::layout::{Fragment, Layout, Protocol, Version};
use crate::frame::{Gso, GsoKind, Header, MAX_TCP_SEGMENTS, PartialChecksum};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const URG: u8 = 32;
const CWR: u8 = 128;

/// The most datagrams that are joined: what kernels before 6.9 take.
const MAX_UDP_JOINED: usize = 64;

/// A packet with a partial checksum, and what must follow it to be joined to it. The bytes are the caller's: the
/// first packet, and behind it the payloads of those that were taken.
#[derive(Debug, Clone)]
pub struct Join {
    kind: GsoKind,
    l4: usize,
    headers_len: usize,
    size: usize,
    count: usize,
    /// Bytes of all so far, with the headers of the first.
    length: usize,
    /// Nothing can follow: a short piece, or one with PSH or FIN, is the last.
    closed: bool,
    next_identification: u16,
    next_sequence: u32,
    /// The TCP flags that each further piece must have, PSH and FIN aside, and those two of the last.
    flags: u8,
    last_flags: u8,
    ip_sum: u64,
    pseudo_sum: u64,
}

impl Join {
    /// Begins with `packet`, whose transport checksum is partial and whose layout is `layout`. `None` when nothing
    /// can ever be joined to it.
    #[must_use]
    pub fn begin(packet: &[u8], layout: &Layout) -> Option<Self> {
        let headers_len = layout.headers_len(packet)?;
        let size = layout
            .end
            .checked_sub(headers_len)
            .filter(|size| *size > 0)?;
        if layout.fragment != Fragment::Whole || layout.end != packet.len() {
            return None;
        }
        let kind = match (layout.protocol, layout.version) {
            (Protocol::Tcp, Version::V4) => GsoKind::TcpV4,
            (Protocol::Tcp, Version::V6) => GsoKind::TcpV6,
            (Protocol::Udp, _) => GsoKind::UdpL4,
            _ => return None,
        };
        let transport = &packet[layout.l4..];
        let flags = if kind == GsoKind::UdpL4 {
            0
        } else {
            transport[13]
        };
        if flags & (SYN | RST | URG) != 0 {
            return None;
        }
        let pseudo_sum = checksum::pseudo_header(
            layout.source,
            layout.destination,
            layout.protocol.number(),
            0,
        );
        let mut join = Self {
            kind,
            l4: layout.l4,
            headers_len,
            size,
            count: 1,
            length: packet.len(),
            closed: flags & (FIN | PSH) != 0,
            next_identification: get(packet, 4).wrapping_add(1),
            next_sequence: 0,
            flags: flags & !(FIN | PSH | CWR),
            last_flags: flags & (FIN | PSH),
            ip_sum: 0,
            pseudo_sum,
        };
        if layout.version == Version::V4 {
            join.ip_sum = checksum::add(0, &packet[..2])
                + checksum::add(0, &packet[6..10])
                + checksum::add(0, &packet[12..layout.l4]);
        }
        if kind != GsoKind::UdpL4 {
            join.next_sequence = sequence(transport).wrapping_add(size as u32);
        }
        join.is_as_cut(packet).then_some(join)
    }

    /// Takes `packet` as the next piece if it is. `head` is what the first packet was, at least its headers. Gives
    /// where in `packet` the payload begins, which the caller puts behind what there is.
    pub fn take(&mut self, head: &[u8], packet: &[u8]) -> Option<usize> {
        let payload = packet.len().checked_sub(self.headers_len)?;
        let most = if self.kind == GsoKind::UdpL4 {
            MAX_UDP_JOINED
        } else {
            MAX_TCP_SEGMENTS
        };
        if self.closed
            || payload == 0
            || payload > self.size
            || self.length + payload > MAX_PACKET_LEN
            || self.count >= most
            || !self.has_headers_like(head.get(..self.headers_len)?, packet)
            || !self.is_as_cut(packet)
        {
            return None;
        }
        if self.kind != GsoKind::UdpL4 {
            self.last_flags = packet[self.l4 + 13] & (FIN | PSH);
            self.next_sequence = self.next_sequence.wrapping_add(payload as u32);
        }
        self.next_identification = self.next_identification.wrapping_add(1);
        self.count += 1;
        self.length += payload;
        self.closed = payload < self.size || self.last_flags != 0;
        Some(self.headers_len)
    }

    /// How many packets are joined.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Makes one packet of the first one's headers and the payloads behind them, and gives the header of its frame.
    pub fn finish(&self, packet: &mut [u8]) -> Header {
        let offset = if self.kind == GsoKind::UdpL4 { 6 } else { 16 };
        let partial_checksum = Some(PartialChecksum {
            start: self.l4 as u16,
            offset,
        });
        if self.count == 1 || packet.len() != self.length {
            return Header {
                partial_checksum,
                ..Header::PLAIN
            };
        }
        if packet[0] >> 4 == 4 {
            let total = packet.len() as u16;
            put(packet, 2, total);
            let sum = self.ip_sum + u64::from(total) + u64::from(get(packet, 4));
            put(packet, 10, !checksum::fold(sum));
        } else {
            let length = (packet.len() - 40) as u16;
            put(packet, 4, length);
        }
        let partial = self.partial(packet.len());
        let transport = &mut packet[self.l4..];
        let mut ecn = false;
        if self.kind == GsoKind::UdpL4 {
            let length = transport.len() as u16;
            put(transport, 4, length);
        } else {
            ecn = transport[13] & CWR != 0;
            transport[13] |= self.last_flags;
        }
        put(transport, usize::from(offset), partial);
        Header {
            gso: Some(Gso {
                kind: self.kind,
                ecn,
                size: self.size as u16,
            }),
            partial_checksum,
            headers_len: self.headers_len as u16,
        }
    }

    /// Whether the fields that cutting computes are as it computes them.
    fn is_as_cut(&self, packet: &[u8]) -> bool {
        let lengths = if packet[0] >> 4 == 4 {
            let (total, identification) = (get(packet, 2), get(packet, 4));
            let sum = self.ip_sum + u64::from(total) + u64::from(identification);
            usize::from(total) == packet.len() && get(packet, 10) == !checksum::fold(sum)
        } else {
            usize::from(get(packet, 4)) + 40 == packet.len()
        };
        let transport = &packet[self.l4..];
        let partial = self.partial(packet.len());
        lengths
            && if self.kind == GsoKind::UdpL4 {
                usize::from(get(transport, 4)) == transport.len() && get(transport, 6) == partial
            } else {
                get(transport, 16) == partial
            }
    }

    fn has_headers_like(&self, head: &[u8], packet: &[u8]) -> bool {
        let (l4, end) = (self.l4, self.headers_len);
        let ip = if head[0] >> 4 == 4 {
            packet[..2] == head[..2]
                && get(packet, 4) == self.next_identification
                && packet[6..10] == head[6..10]
                && packet[12..l4] == head[12..l4]
        } else {
            packet[..4] == head[..4] && packet[6..l4] == head[6..l4]
        };
        let (ours, theirs) = (&head[l4..end], &packet[l4..end]);
        ip && theirs[..4] == ours[..4]
            && (self.kind == GsoKind::UdpL4
                || (sequence(theirs) == self.next_sequence
                    && theirs[8..13] == ours[8..13]
                    && theirs[13] & !(FIN | PSH) == self.flags
                    && theirs[14..16] == ours[14..16]
                    && theirs[18..] == ours[18..]))
    }

    fn partial(&self, packet_len: usize) -> u16 {
        checksum::fold(self.pseudo_sum + (packet_len - self.l4) as u64)
    }
}

fn sequence(transport: &[u8]) -> u32 {
    u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]])
}
