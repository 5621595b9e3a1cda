//! What is cut and joined again is, packet by packet, what it was; and nothing is joined that would not be.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Kind, spec};
use proptest::prelude::*;
use turnpike_wire::frame::{Frame, Gso, GsoKind, Header, PartialChecksum};
use turnpike_wire::ip::{Cutter, Join, Layout, Protocol, complete_partial, segment::segment};

/// The packets that a kernel makes of a frame, with all checksums complete.
fn packets(frame: &[u8]) -> Vec<Vec<u8>> {
    let frame = Frame::decode(frame).unwrap();
    let packet = frame.packet.bytes().to_vec();
    let mut out = Vec::new();
    if let Some(gso) = frame.header.gso {
        segment(&packet, usize::from(gso.size), &mut Vec::new(), |piece| {
            out.push(piece.to_vec());
        });
        return out;
    }
    match frame.header.partial_checksum {
        Some(_) => vec![complete(packet)],
        None => vec![packet],
    }
}

/// A packet with its partial checksum completed. Zero and all ones mean the same there, but in UDP; what is cut says
/// the one, what is completed the other.
fn complete(mut packet: Vec<u8>) -> Vec<u8> {
    let layout = Layout::parse(&packet).unwrap();
    let field = layout.checksum_field().unwrap();
    assert!(complete_partial(&mut packet, layout.l4, field - layout.l4));
    if layout.protocol == Protocol::Tcp && packet[field..field + 2] == [0xff, 0xff] {
        packet[field..field + 2].fill(0);
    }
    packet
}

fn cut(frame: &[u8]) -> Vec<Vec<u8>> {
    let frame = Frame::decode(frame).unwrap();
    let mut cutter = Cutter::new(&frame).unwrap();
    let (longest, pieces) = (cutter.longest(), cutter.pieces());
    let mut out = Vec::new();
    while let Some((headers, payload)) = cutter.next_piece() {
        out.push([headers, payload].concat());
    }
    assert_eq!(out.len(), pieces);
    assert_eq!(out.iter().map(Vec::len).max(), Some(longest));
    assert!(out[..pieces - 1].iter().all(|piece| piece.len() == longest));
    out
}

/// Joins neighbours, and gives the frames.
fn join(pieces: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut made: Option<(Join, Vec<u8>)> = None;
    let finish = |made: Option<(Join, Vec<u8>)>, frames: &mut Vec<Vec<u8>>| {
        if let Some((join, mut packet)) = made {
            let header = join.finish(&mut packet);
            frames.push([&header.encode()[..], &packet].concat());
        }
    };
    for piece in pieces {
        if let Some((join, packet)) = &mut made
            && let Some(at) = join.take(packet, piece)
        {
            packet.extend_from_slice(&piece[at..]);
            continue;
        }
        finish(made.take(), &mut frames);
        let layout = Layout::parse(piece).unwrap();
        match Join::begin(piece, &layout) {
            Some(join) => made = Some((join, piece.clone())),
            None => {
                let field = layout.checksum_field().unwrap();
                let header = Header {
                    partial_checksum: Some(PartialChecksum {
                        start: layout.l4 as u16,
                        offset: (field - layout.l4) as u16,
                    }),
                    ..Header::PLAIN
                };
                frames.push([&header.encode()[..], piece].concat());
            }
        }
    }
    finish(made, &mut frames);
    frames
}

#[derive(Debug, Clone)]
struct Case {
    v6: bool,
    tcp: bool,
    extension: bool,
    size: u16,
    payload: usize,
    flags: u8,
    low: u8,
    identification: u16,
    sequence: u32,
    ecn: u8,
    ttl: u8,
}

prop_compose! {
    fn case()(
        v6 in any::<bool>(), tcp in any::<bool>(), extension in any::<bool>(),
        size in prop_oneof![1_u16..40, 500_u16..1_500, 8_000_u16..9_000],
        pieces in 1_usize..60, rest in 0_usize..9_000,
        flags in any::<u8>(), low in 0_u8..16, identification in any::<u16>(),
        sequence in prop_oneof![any::<u32>(), Just(u32::MAX - 700)],
        ecn in 0_u8..4, ttl in 1_u8..=255,
    ) -> Case {
        let whole = (pieces - 1) * usize::from(size) + 1 + rest % usize::from(size);
        let payload = whole.min(65_000);
        // SYN, RST and URG do not come joined.
        let flags = flags & !(2 | 4 | 32);
        Case { v6, tcp, extension, size, payload, flags, low, identification, sequence, ecn, ttl }
    }
}

impl Case {
    fn frame(&self) -> Vec<u8> {
        let (src, dst) = if self.v6 {
            ("fd00::1", "fd00::2")
        } else {
            ("10.0.0.1", "10.0.0.2")
        };
        let payload: Vec<u8> = (0..self.payload)
            .map(|at| (at * 7 + at / 251) as u8)
            .collect();
        let kind = if self.tcp { Kind::Tcp } else { Kind::Udp };
        let mut spec = spec(src, dst, kind, &payload);
        spec.partial = true;
        spec.extension = self.extension;
        let mut packet = spec.build();
        let l4 = Layout::parse(&packet).unwrap().l4;
        if self.v6 {
            packet[1] = packet[1] & 0x0f | self.ecn << 4;
            packet[7] = self.ttl;
        } else {
            packet[1] = self.ecn;
            packet[4..6].copy_from_slice(&self.identification.to_be_bytes());
            packet[8] = self.ttl;
            packet[10..12].fill(0);
            let sum: u32 = packet[..l4]
                .chunks(2)
                .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
                .sum();
            let sum = (sum & 0xffff) + (sum >> 16);
            packet[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
        }
        if self.tcp {
            packet[l4 + 4..l4 + 8].copy_from_slice(&self.sequence.to_be_bytes());
            packet[l4 + 12] = packet[l4 + 12] & 0xf0 | self.low;
            packet[l4 + 13] = self.flags;
        }
        let (kind, offset, transport) = match (self.tcp, self.v6) {
            (true, false) => (GsoKind::TcpV4, 16, 24),
            (true, true) => (GsoKind::TcpV6, 16, 24),
            (false, _) => (GsoKind::UdpL4, 6, 8),
        };
        let header = Header {
            gso: Some(Gso {
                kind,
                ecn: self.tcp && self.flags & 128 != 0,
                size: self.size,
            }),
            partial_checksum: Some(PartialChecksum {
                start: l4 as u16,
                offset,
            }),
            headers_len: (l4 + transport) as u16,
        };
        [&header.encode()[..], &packet].concat()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn cutting_gives_what_the_kernel_would_and_joining_undoes_it(case in case()) {
        let frame = case.frame();
        prop_assume!(Frame::decode(&frame).is_ok());
        let pieces = cut(&frame);
        let expected = packets(&frame);
        let completed: Vec<Vec<u8>> = pieces.iter().cloned().map(complete).collect();
        prop_assert_eq!(&completed, &expected);
        let joined = join(&pieces);
        let again: Vec<Vec<u8>> = joined.iter().flat_map(|frame| packets(frame)).collect();
        prop_assert_eq!(&again, &expected);
        // UDP is joined by no more than 64.
        let most = if case.tcp { usize::MAX } else { 64 };
        prop_assert_eq!(joined.len(), pieces.len().div_ceil(most));
    }

    #[test]
    fn whatever_bit_differs_what_comes_out_is_what_went_in(
        case in case(), at in any::<prop::sample::Index>(), bit in 0_u8..8, piece in any::<prop::sample::Index>(),
        lost in any::<prop::sample::Index>(), swapped in any::<prop::sample::Index>(),
    ) {
        let frame = case.frame();
        prop_assume!(Frame::decode(&frame).is_ok());
        let mut pieces = cut(&frame);
        let changed = piece.index(pieces.len());
        let headers = Layout::parse(&pieces[changed]).unwrap().l4 + 8;
        let at = at.index(headers);
        pieces[changed][at] ^= 1 << bit;
        if pieces.len() > 2 {
            pieces.remove(lost.index(pieces.len()));
            let one = swapped.index(pieces.len() - 1);
            pieces.swap(one, one + 1);
        }
        // What is not a packet any more is not joined either: the lane drops it.
        let sound = |piece: &Vec<u8>| {
            let layout = Layout::parse(piece);
            layout.is_ok_and(|layout| layout.end == piece.len() && layout.checksum_field().is_some())
        };
        pieces.retain(sound);
        let expected: Vec<Vec<u8>> = pieces.iter().cloned().map(complete).collect();
        let again: Vec<Vec<u8>> = join(&pieces).iter().flat_map(|frame| packets(frame)).collect();
        prop_assert_eq!(again, expected);
    }
}

#[test]
fn two_flows_and_a_gap_are_not_joined() {
    let case = Case {
        v6: false,
        tcp: true,
        extension: false,
        size: 1_000,
        payload: 3_000,
        flags: 16,
        low: 0,
        identification: 65_535,
        sequence: u32::MAX - 500,
        ecn: 2,
        ttl: 64,
    };
    let pieces = cut(&case.frame());
    assert_eq!(join(&pieces).len(), 1);
    assert_eq!(join(&[pieces[0].clone(), pieces[2].clone()]).len(), 2);
    let mut other = pieces[1].clone();
    other[21] ^= 1;
    assert_eq!(
        join(&[pieces[0].clone(), other, pieces[2].clone()]).len(),
        3
    );
    let fin = Case {
        flags: 16 | 8 | 1 | 128,
        ..case
    };
    let pieces = cut(&fin.frame());
    let flags: Vec<u8> = pieces.iter().map(|piece| piece[33]).collect();
    assert_eq!(flags, [16 | 128, 16, 16 | 8 | 1]);
    let joined = join(&pieces);
    assert_eq!(joined.len(), 1);
    assert!(Frame::decode(&joined[0]).unwrap().header.gso.unwrap().ecn);
}
