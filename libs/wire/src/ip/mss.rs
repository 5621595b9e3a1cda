//! The MSS that TCP announces, kept to what the tunnel can carry.

use super::checksum::{Checksum, Delta, get, put};
use super::layout::Version;
use super::packet::Packet;

const SYN: u8 = 2;

/// The largest MSS whose segments fit `mtu`: less the IP header and the TCP header, without options
/// ([RFC 6691](https://www.rfc-editor.org/rfc/rfc6691)).
pub fn max_mss(version: Version, mtu: u16) -> u16 {
    mtu.saturating_sub(match version {
        Version::V4 => 40,
        Version::V6 => 60,
    })
}

/// Lowers the MSS option of a TCP SYN to `max` and corrects the checksum. Returns whether it did; false also
/// for what is no packet, no SYN, or has no such option.
pub fn clamp_mss(packet: &mut [u8], max: u16, checksum: Checksum) -> bool {
    let Some((option, segment_at, checksum_at)) = find(packet) else {
        return false;
    };
    let old = get(packet, option);
    if old <= max {
        return false;
    }
    put(packet, option, max);
    // The partial sum covers the pseudo-header only.
    if checksum == Checksum::Full {
        let mut delta = Delta::default();
        if (option - segment_at).is_multiple_of(2) {
            delta.word(old, max);
        } else {
            // The value straddles two words: the same as if both halves changed places.
            delta.word(old.swap_bytes(), max.swap_bytes());
        }
        let corrected = delta.apply(get(packet, checksum_at));
        put(packet, checksum_at, corrected);
    }
    true
}

/// Where the value of the MSS option, the segment and its checksum are.
fn find(packet: &[u8]) -> Option<(usize, usize, usize)> {
    let packet = Packet::parse(packet).ok()?;
    if packet.tcp_flags()? & SYN == 0 {
        return None;
    }
    let segment_at = packet.layout().l4;
    let options_end = packet.tcp_header_len();
    let header = &packet.segment()[..options_end];
    let mut at = 20;
    while at + 1 < options_end {
        match header[at] {
            0 => return None,
            1 => at += 1,
            2 if header[at + 1] == 4 && at + 4 <= options_end => {
                return Some((segment_at + at + 2, segment_at, segment_at + 16));
            }
            _ => at += usize::from(header[at + 1]).max(2),
        }
    }
    None
}
