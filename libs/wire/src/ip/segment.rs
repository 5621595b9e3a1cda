//! Cutting in software what a device with offload would cut: TCP segments and UDP datagrams that were joined.

use super::checksum::{self, put};
use super::layout::{Fragment, Layout, Protocol, Version};

const FIN_PSH: u8 = 1 | 8;
const CWR: u8 = 128;

/// Cuts `packet` into packets that carry at most `size` bytes each and hands them to `each`, in order, with
/// all checksums computed; what the checksum field held does not matter. `scratch` is room to reuse. Returns
/// how many packets there were; 0 when `packet` is not a whole TCP or UDP packet or `size` is 0.
pub fn segment(
    packet: &[u8],
    size: usize,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]),
) -> usize {
    let Ok(layout) = Layout::parse(packet) else {
        return 0;
    };
    let cuttable = matches!(layout.protocol, Protocol::Tcp | Protocol::Udp)
        && layout.fragment == Fragment::Whole
        && size > 0;
    let Some(headers_len) = layout.headers_len(packet).filter(|_| cuttable) else {
        return 0;
    };
    let (headers, payload) = packet[..layout.end].split_at(headers_len);
    let last = payload.len().div_ceil(size).max(1) - 1;
    for index in 0..=last {
        let from = index * size;
        scratch.clear();
        scratch.extend_from_slice(headers);
        scratch.extend_from_slice(&payload[from..payload.len().min(from + size)]);
        let end = scratch.len();
        put_ip_lengths(scratch, &layout, index);
        match layout.protocol {
            Protocol::Udp => put(scratch, layout.l4 + 4, (end - layout.l4) as u16),
            _ => put_tcp(
                &mut scratch[layout.l4..],
                from as u32,
                index == 0,
                index == last,
            ),
        }
        checksum::fill(scratch, &Layout { end, ..layout });
        each(scratch);
    }
    last + 1
}

fn put_ip_lengths(packet: &mut [u8], layout: &Layout, index: usize) {
    match layout.version {
        Version::V4 => {
            put(packet, 2, packet.len() as u16);
            let identification = checksum::get(packet, 4).wrapping_add(index as u16);
            put(packet, 4, identification);
            let header_len = usize::from(packet[0] & 0x0f) * 4;
            checksum::fill_ipv4_header(&mut packet[..header_len]);
        }
        Version::V6 => put(packet, 4, (packet.len() - 40) as u16),
    }
}

/// The sequence number moves on; FIN and PSH belong to the last segment, CWR to the first (RFC 3168 section
/// 6.1.2).
fn put_tcp(segment: &mut [u8], offset: u32, first: bool, last: bool) {
    let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
    segment[4..8].copy_from_slice(&sequence.wrapping_add(offset).to_be_bytes());
    if !last {
        segment[13] &= !FIN_PSH;
    }
    if !first {
        segment[13] &= !CWR;
    }
}
