//! What the ECN field of a packet says arrives as it left, by both carriers, whatever is cut and joined on the way.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{ANSWERER, OFFERER, World, addresses};
use turnpike_link::{CandidateKind, Carrier, DtlsCertificate, LinkConfig, Transmit};
use wire::frame::{Frame, Gso, GsoKind, HEADER_LEN, Header, PartialChecksum};
use wire::ip::{Ecn, mark_congestion};

const SECOND: Duration = Duration::from_secs(1);
const HEADERS: usize = 40;
const SEGMENT: usize = 1_000;

fn sum(words: &[u8]) -> u16 {
    let pairs = words.chunks_exact(2);
    let mut sum: u32 = pairs
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Segments of one TCP flow in one frame, the first of which has this number; ECT(0).
fn frame(number: usize, segments: usize) -> Vec<u8> {
    let length = HEADERS + SEGMENT * segments;
    let mut packet = vec![0; length];
    packet[..12].copy_from_slice(&[0x45, 0b10, 0, 0, 0, number as u8, 0x40, 0, 64, 6, 0, 0]);
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    let checksum = !sum(&packet[..20]);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet[24..28].copy_from_slice(&((number * SEGMENT) as u32).to_be_bytes());
    packet[32..34].copy_from_slice(&[0x50, 0x10]);
    let transport = (length - 20) as u16;
    let pseudo = [&packet[12..20], &[0, 6], &transport.to_be_bytes()].concat();
    packet[36..38].copy_from_slice(&sum(&pseudo).to_be_bytes());
    let header = Header {
        gso: (segments > 1).then_some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: SEGMENT as u16,
        }),
        partial_checksum: Some(PartialChecksum {
            start: 20,
            offset: 16,
        }),
        headers_len: if segments > 1 { HEADERS as u16 } else { 0 },
    };
    [&header.encode()[..], &packet].concat()
}

/// What each segment says, by its number.
fn fields(frames: &[&[u8]]) -> Vec<(usize, Ecn)> {
    let mut all = Vec::new();
    for frame in frames {
        let packet = Frame::decode(frame).unwrap().packet.bytes();
        assert_eq!(sum(&packet[..20]), 0xffff, "the header's checksum");
        let first = u32::from_be_bytes(packet[24..28].try_into().unwrap()) as usize / SEGMENT;
        let segments = (packet.len() - HEADERS) / SEGMENT;
        all.extend((first..first + segments).map(|number| (number, Ecn::of(packet))));
    }
    all.sort_by_key(|(number, _)| *number);
    all
}

#[test]
fn the_field_arrives_as_it_left_by_both_carriers_and_no_mark_is_joined_away() {
    for carrier in [Carrier::Datagram, Carrier::DataChannel] {
        let config = LinkConfig {
            carrier,
            ..LinkConfig::default()
        };
        let certificates = [(); 2].map(|()| DtlsCertificate::generate().unwrap());
        let wait = Duration::from_millis(1);
        let mut world = World::with(wait, &config, certificates, CandidateKind::Host);
        world.signal();
        assert!(world.run_until(5 * SECOND, World::both_open));
        world.run_until(SECOND, |_| false);
        // One by one, two of them marked; and a frame of many, which a queue before us had marked.
        let mut sent: Vec<_> = (0..8).map(|number| frame(number, 1)).collect();
        sent.push(frame(8, 6));
        for marked in [3, 4, 8] {
            assert!(mark_congestion(&mut sent[marked][HEADER_LEN..]));
        }
        let expected: Vec<_> = (0..14)
            .map(|number| match number {
                3 | 4 | 8.. => (number, Ecn::CongestionExperienced),
                _ => (number, Ecn::Ect0),
            })
            .collect();
        let now = world.now;
        for frame in &sent {
            world.links[OFFERER].send_frame(frame, now).unwrap();
        }
        // All of it arrives at once.
        let [to, from] = [ANSWERER, OFFERER].map(|side| addresses()[side]);
        while let Some(Transmit {
            payload, segment, ..
        }) = world.links[OFFERER].poll_transmit()
        {
            world.links[ANSWERER].handle_datagrams(to, from, payload, segment, now);
        }
        world.drain();
        world.run_until(SECOND, |_| false);
        let received = world.frames(ANSWERER);
        assert_eq!(fields(&received), expected, "{carrier}");
        // It is about what is joined, after all.
        assert!(received.len() < sent.len(), "{carrier}: {}", received.len());
        assert_eq!(world.links[OFFERER].carrier(), carrier);
    }
}
