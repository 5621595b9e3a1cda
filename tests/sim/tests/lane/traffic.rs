//! Frames of every kind, and the packets that a kernel makes of them.

use wire::frame::{Frame, Gso, GsoKind, Header, PartialChecksum};
use wire::ip::{Layout, Protocol, complete_partial, segment::segment};

use crate::packets::{Kind, spec};
use crate::path::Random;

/// A frame with a payload that no other has.
pub(crate) fn frame(random: &mut Random) -> Vec<u8> {
    let v6 = random.below(2) == 0;
    let (src, dst) = if v6 {
        ("fd00::1", "fd00::2")
    } else {
        ("10.0.0.1", "10.0.0.2")
    };
    let kind = match random.below(8) {
        0..=3 => Kind::Tcp,
        4..=5 => Kind::Udp,
        6 => Kind::Echo,
        _ => Kind::UdpWithoutChecksum,
    };
    let joined = matches!(kind, Kind::Tcp | Kind::Udp) && random.below(2) == 0;
    let sizes = [37, 536, 1_360, 1_448, 4_000];
    let size = sizes[random.below(5) as usize];
    let length = match (joined, random.below(4)) {
        (true, _) => 1 + random.below(u64::from(size) * 45).min(64_000) as usize,
        (false, 0) => random.below(9_000) as usize,
        (false, 1) => 0,
        (false, _) => random.below(1_280) as usize,
    };
    let mut payload = vec![0; length];
    payload.chunks_mut(8).for_each(|chunk| {
        let bytes = random.next().to_be_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    });
    let mut spec = spec(src, dst, kind, &payload);
    spec.extension = random.below(4) == 0;
    spec.partial = joined || (matches!(kind, Kind::Tcp | Kind::Udp) && random.below(3) == 0);
    if !joined && !spec.partial && random.below(6) == 0 {
        spec.fragment = (8 * random.below(3) as u16, random.below(2) == 0);
    }
    let mut packet = spec.build();
    let Ok(layout) = Layout::parse(&packet) else {
        return frame(random);
    };
    let mut header = Header::PLAIN;
    if kind == Kind::Tcp && spec.fragment == (0, false) && spec.partial {
        // The partial checksum does not cover any of these.
        let transport = &mut packet[layout.l4..];
        transport[4..8].copy_from_slice(&(random.next() as u32).to_be_bytes());
        transport[13] = [16, 16, 24, 17, 25, 80, 144, 208][random.below(8) as usize];
    }
    if spec.partial {
        let offset = if kind == Kind::Tcp { 16 } else { 6 };
        header.partial_checksum = Some(PartialChecksum {
            start: layout.l4 as u16,
            offset,
        });
    }
    if joined {
        let transport = if kind == Kind::Tcp { 24 } else { 8 };
        header.headers_len = (layout.l4 + transport) as u16;
        header.gso = Some(Gso {
            kind: match (kind, v6) {
                (Kind::Tcp, false) => GsoKind::TcpV4,
                (Kind::Tcp, true) => GsoKind::TcpV6,
                _ => GsoKind::UdpL4,
            },
            ecn: kind == Kind::Tcp && packet[layout.l4 + 13] & 128 != 0,
            size,
        });
    }
    let made = [&header.encode()[..], &packet].concat();
    // Too many pieces for UDP, or the like.
    if Frame::decode(&made).is_err() {
        frame(random)
    } else {
        made
    }
}

/// What a kernel makes of a frame: packets with complete checksums.
pub(crate) fn packets(frame: &[u8]) -> Vec<Vec<u8>> {
    let frame = Frame::decode(frame).expect("a frame");
    let mut packet = frame.packet.bytes().to_vec();
    let mut out = Vec::new();
    if let Some(gso) = frame.header.gso {
        segment(&packet, usize::from(gso.size), &mut Vec::new(), |piece| {
            out.push(piece.to_vec())
        });
        return out;
    }
    if let Some(PartialChecksum { start, offset }) = frame.header.partial_checksum {
        let field = usize::from(start + offset);
        assert!(complete_partial(
            &mut packet,
            usize::from(start),
            usize::from(offset)
        ));
        // Zero and all ones are the same but in UDP.
        if frame.packet.protocol() == Protocol::Tcp && packet[field..field + 2] == [255; 2] {
            packet[field..field + 2].fill(0);
        }
    }
    vec![packet]
}
