//! A frame as a TUN device with offload gives it: TCP over IPv4, several segments in one packet.

use wire::frame::{Gso, GsoKind, Header, PartialChecksum};

/// IPv4, and TCP with the timestamps option.
const HEADERS_LEN: usize = 20 + 32;
/// What TCP makes of a TUN device of 1 400 bytes.
const SEGMENT: usize = 1_400 - HEADERS_LEN;

/// A frame of `length` bytes in all.
pub(crate) fn tcp(length: usize) -> Vec<u8> {
    let packet_len = length - wire::frame::HEADER_LEN;
    let mut packet = vec![7; packet_len];
    let total = (packet_len as u16).to_be_bytes();
    packet[..20].copy_from_slice(&[
        0x45, 0, total[0], total[1], 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2,
    ]);
    let sum: u32 = packet[..20]
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    packet[20..52].copy_from_slice(&[
        0x1f, 0x90, 0xc3, 0x50, 1, 2, 3, 4, 5, 6, 7, 8, 0x80, 0x10, 0xff, 0xff, 0, 0, 0, 0, 1, 1,
        8, 10, 1, 2, 3, 4, 5, 6, 7, 8,
    ]);
    let joined = packet_len > HEADERS_LEN + SEGMENT;
    let header = Header {
        gso: joined.then_some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: SEGMENT as u16,
        }),
        partial_checksum: Some(PartialChecksum {
            start: 20,
            offset: 16,
        }),
        headers_len: if joined { HEADERS_LEN as u16 } else { 0 },
    };
    [&header.encode()[..], &packet].concat()
}
