//! The Internet checksum: computed whole ([RFC 1071](https://www.rfc-editor.org/rfc/rfc1071)) and corrected
//! for a change ([RFC 1624](https://www.rfc-editor.org/rfc/rfc1624) equation 3: `HC' = ~(~HC + ~m + m')`).

use std::net::IpAddr;

use super::layout::{Layout, Protocol};

/// What the checksum field of a packet's TCP, UDP or ICMPv6 header holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The checksum.
    Full,
    /// The sum of the pseudo-header, not complemented; the rest is added by who sends the packet out
    /// (`VIRTIO_NET_HDR_F_NEEDS_CSUM`, `CHECKSUM_PARTIAL` in Linux).
    Partial,
}

/// Adds big-endian words to a sum; a last odd byte counts as the high half of a word.
pub(crate) fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    for word in words {
        sum += u64::from(u16::from_be_bytes(*word));
    }
    if let [last] = rest {
        sum += u64::from(*last) << 8;
    }
    sum
}

/// Folds the carries back in. Zero only for zero.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of the pseudo-header: RFC 9293 section 3.1 for IPv4, RFC 8200 section 8.1 for IPv6.
pub(crate) fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u64 {
    let sum = u64::from(protocol) + (len as u64 & 0xffff) + (len as u64 >> 16);
    add_address(add_address(sum, source), destination)
}

fn add_address(sum: u64, address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => add(sum, &v4.octets()),
        IpAddr::V6(v6) => add(sum, &v6.octets()),
    }
}

/// The change of a sum: words that went away, complemented, and words that came.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Delta(u64);

impl Delta {
    pub(crate) fn word(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// Two byte strings of the same even length, at an even offset of what the checksum covers.
    pub(crate) fn bytes(&mut self, old: &[u8], new: &[u8]) {
        for (old, new) in old.as_chunks::<2>().0.iter().zip(new.as_chunks::<2>().0) {
            self.word(u16::from_be_bytes(*old), u16::from_be_bytes(*new));
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.0 += other.0;
    }

    /// The corrected checksum.
    pub(crate) fn apply(self, checksum: u16) -> u16 {
        !fold(u64::from(!checksum) + self.0)
    }

    /// The corrected pseudo-header sum.
    pub(crate) fn apply_partial(self, sum: u16) -> u16 {
        fold(u64::from(sum) + self.0)
    }
}

/// Turns the pseudo-header sum at `start + offset` into the checksum over everything from `start`, as the
/// kernel does for a frame that needs it. False, and nothing is touched, when the field is outside.
pub fn complete_partial(packet: &mut [u8], start: usize, offset: usize) -> bool {
    let Some(field) = start.checked_add(offset) else {
        return false;
    };
    if field + 2 > packet.len() {
        return false;
    }
    let sum = add(0, &packet[start..]);
    let checksum = match !fold(sum) {
        // RFC 768: a UDP checksum that comes out as zero is sent as all ones; equal for the others.
        0 => 0xffff,
        checksum => checksum,
    };
    put(packet, field, checksum);
    true
}

/// Computes the checksum of the transport header whole. For what we build ourselves.
pub(crate) fn fill(packet: &mut [u8], layout: &Layout) {
    let Some(field) = layout.checksum_field() else {
        return;
    };
    put(packet, field, 0);
    let segment = &packet[layout.l4..layout.end];
    let pseudo = match layout.protocol {
        Protocol::Icmp => 0,
        protocol => pseudo_header(
            layout.source,
            layout.destination,
            protocol.number(),
            segment.len(),
        ),
    };
    let checksum = match !fold(add(pseudo, segment)) {
        0 if layout.protocol == Protocol::Udp => 0xffff,
        checksum => checksum,
    };
    put(packet, field, checksum);
}

/// Computes the checksum of the IPv4 header that fills `header`.
pub(crate) fn fill_ipv4_header(header: &mut [u8]) {
    put(header, 10, 0);
    let checksum = !fold(add(0, header));
    put(header, 10, checksum);
}

pub(crate) fn get(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        let sum = add(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(fold(sum), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        let mut delta = Delta::default();
        delta.word(0x5555, 0x3285);
        assert_eq!(delta.apply(0xdd2f), 0x0000);
    }

    #[test]
    fn a_field_outside_the_packet_is_left_alone() {
        let mut packet = [1u8; 30];
        assert!(!complete_partial(&mut packet, 20, 9));
        assert!(!complete_partial(&mut packet, usize::MAX, 1));
        assert_eq!(packet, [1; 30]);
    }
}
