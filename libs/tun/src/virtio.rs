//! The header that the kernel puts in front of a packet: `struct virtio_net_hdr`, 10 bytes in the byte order
//! of the machine.
//!
//! ```text
//!  +-------+----------+---------+----------+------------+-------------+
//!  | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |
//!  |   1   |    1     |    2    |    2     |     2      |      2      |
//!  +-------+----------+---------+----------+------------+-------------+
//! ```

use wire::frame::{FrameError, Gso, GsoKind, Header, PartialChecksum};
use wire::ip::{Layout, complete_partial};

pub(crate) const LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What the kernel says of `packet`, as a frame's header. A checksum that is begun where a frame cannot say
/// (inside a packet of another protocol) is completed here.
pub(crate) fn to_frame(virtio: &[u8; LEN], packet: &mut [u8]) -> Result<Header, FrameError> {
    let layout = Layout::parse(packet)?;
    let word = |at: usize| u16::from_ne_bytes([virtio[at], virtio[at + 1]]);
    let kind = match virtio[1] & !GSO_ECN {
        GSO_NONE => None,
        GSO_TCPV4 => Some(GsoKind::TcpV4),
        GSO_TCPV6 => Some(GsoKind::TcpV6),
        GSO_UDP_L4 => Some(GsoKind::UdpL4),
        _ => return Err(FrameError::Gso),
    };
    let gso = kind.map(|kind| Gso {
        kind,
        ecn: virtio[1] & GSO_ECN != 0,
        size: word(4),
    });
    let header = Header {
        gso,
        partial_checksum: (virtio[0] & NEEDS_CSUM != 0).then(|| PartialChecksum {
            start: word(6),
            offset: word(8),
        }),
        // The kernel's hdr_len is a hint about its own memory, not the length of the headers.
        headers_len: match gso {
            Some(_) => layout.headers_len(packet).ok_or(FrameError::Gso)? as u16,
            None => 0,
        },
    };
    match header.validate(packet, &layout) {
        Err(FrameError::Checksum) if gso.is_none() => {
            if complete_partial(packet, usize::from(word(6)), usize::from(word(8))) {
                Ok(Header::PLAIN)
            } else {
                Err(FrameError::Checksum)
            }
        }
        result => result.map(|()| header),
    }
}

/// A frame's header as the kernel wants it.
pub(crate) fn from_frame(header: &Header) -> [u8; LEN] {
    let mut virtio = [0; LEN];
    let mut put = |at: usize, value: u16| virtio[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    put(2, header.headers_len);
    if let Some(PartialChecksum { start, offset }) = header.partial_checksum {
        put(6, start);
        put(8, offset);
        virtio[0] = NEEDS_CSUM;
    }
    if let Some(Gso { kind, ecn, size }) = header.gso {
        virtio[4..6].copy_from_slice(&size.to_ne_bytes());
        virtio[1] = match kind {
            GsoKind::TcpV4 => GSO_TCPV4,
            GsoKind::TcpV6 => GSO_TCPV6,
            GsoKind::UdpL4 => GSO_UDP_L4,
        } | if ecn { GSO_ECN } else { 0 };
    }
    virtio
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn udp(payload: usize) -> Vec<u8> {
        let total = (28 + payload) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([
            0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2,
        ]);
        packet.extend((8 + payload as u16).to_be_bytes());
        packet.extend([0, 0]);
        packet.resize(usize::from(total), 7);
        packet
    }

    #[test]
    fn there_and_back() {
        let mut packet = udp(3_000);
        let mut virtio = [NEEDS_CSUM, GSO_UDP_L4, 0, 0, 0, 0, 0, 0, 0, 0];
        virtio[4..6].copy_from_slice(&1_000u16.to_ne_bytes());
        virtio[6..8].copy_from_slice(&20u16.to_ne_bytes());
        virtio[8..10].copy_from_slice(&6u16.to_ne_bytes());
        let header = to_frame(&virtio, &mut packet).unwrap();
        assert_eq!(
            header.gso,
            Some(Gso {
                kind: GsoKind::UdpL4,
                ecn: false,
                size: 1_000
            })
        );
        assert_eq!(
            (header.headers_len, header.partial_checksum.unwrap().start),
            (28, 20)
        );
        virtio[2..4].copy_from_slice(&28u16.to_ne_bytes());
        assert_eq!(from_frame(&header), virtio);
    }

    #[test]
    fn a_checksum_in_an_unknown_place_is_completed() {
        let mut packet = udp(20);
        packet[9] = 47;
        let mut virtio = [NEEDS_CSUM, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        virtio[6..8].copy_from_slice(&28u16.to_ne_bytes());
        virtio[8..10].copy_from_slice(&4u16.to_ne_bytes());
        let before = packet.clone();
        assert_eq!(to_frame(&virtio, &mut packet), Ok(Header::PLAIN));
        assert_eq!(packet[..32], before[..32]);
        assert_ne!(packet[32..34], before[32..34]);
    }

    #[test]
    fn the_ecn_bit_is_kept() {
        let header = Header {
            gso: Some(Gso {
                kind: GsoKind::TcpV6,
                ecn: true,
                size: 5,
            }),
            partial_checksum: None,
            headers_len: 60,
        };
        assert_eq!(from_frame(&header)[1], 0x84);
    }
}
