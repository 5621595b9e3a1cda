//! Answers to what cannot be delivered, the MSS clamp, cutting in software: checked byte for byte.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Kind, Spec, spec};
use turnpike_wire::frame::{Frame, HEADER_LEN, Header};
use turnpike_wire::ip::answer::{Unreachable, tcp_reset, too_big, unreachable};
use turnpike_wire::ip::segment::segment;
use turnpike_wire::ip::{Checksum, Packet, Rewrite, clamp_mss, complete_partial, rewrite};

/// A packet with sound checksums is one that two rewrites by different routes leave equal to a rebuilt one;
/// here it is enough to sum it.
fn checksums_hold(bytes: &[u8]) -> bool {
    let packet = Packet::parse(bytes).unwrap();
    let fold = |mut sum: u64| {
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum
    };
    let sum = |bytes: &[u8]| {
        bytes
            .chunks(2)
            .map(|c| u64::from(c[0]) << 8 | u64::from(*c.get(1).unwrap_or(&0)))
            .sum::<u64>()
    };
    let is_v4 = packet.source().is_ipv4();
    let header = !is_v4 || fold(sum(&bytes[..usize::from(bytes[0] & 15) * 4])) == 0xffff;
    let pseudo = sum(&common::octets(packet.source()))
        + sum(&common::octets(packet.destination()))
        + u64::from(packet.protocol().number())
        + packet.segment().len() as u64;
    let pseudo = if packet.protocol().number() == 1 {
        0
    } else {
        pseudo
    };
    header && fold(pseudo + sum(packet.segment())) == 0xffff
}

#[test]
fn a_syn_is_refused_with_a_reset_that_acknowledges_it() {
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let mut syn = spec(src, dst, Kind::Tcp, b"").build();
        let tcp = Packet::parse(&syn).unwrap().layout().l4;
        syn[tcp + 13] = 2;
        let reset = tcp_reset(&syn).unwrap();
        assert!(checksums_hold(&reset));
        let packet = Packet::parse(&reset).unwrap();
        assert_eq!(
            (
                packet.source().to_string(),
                packet.destination().to_string()
            ),
            (dst.to_owned(), src.to_owned())
        );
        assert_eq!(packet.ports(), Some((50000, 8080)));
        assert_eq!(packet.tcp_flags(), Some(4 | 16));
        assert_eq!(packet.segment()[4..12], [0, 0, 0, 0, 1, 2, 3, 5]);
        assert_eq!(tcp_reset(&reset), None, "a reset is never answered");
    }
}

#[test]
fn a_segment_of_an_unknown_connection_is_reset_where_it_stands() {
    let segment = spec("10.0.0.1", "10.0.0.2", Kind::Tcp, b"data").build();
    let reset = tcp_reset(&segment).unwrap();
    let packet = Packet::parse(&reset).unwrap();
    assert_eq!(packet.tcp_flags(), Some(4));
    assert_eq!(packet.segment()[4..12], [5, 6, 7, 8, 0, 0, 0, 0]);
    assert!(checksums_hold(&reset));
}

#[test]
fn unreachable_quotes_what_fits_and_says_why() {
    let long = spec("10.0.0.1", "10.0.0.2", Kind::Udp, &[9; 3_000]).build();
    let error = unreachable(&long, [10, 0, 0, 2].into(), Unreachable::Port).unwrap();
    assert_eq!((error.len(), &error[20..22]), (576, [3, 3].as_slice()));
    assert!(checksums_hold(&error));
    let embedded = Packet::parse(&error).unwrap().embedded().unwrap();
    assert_eq!(
        (embedded.source.to_string().as_str(), embedded.ports),
        ("10.0.0.1", Some((9000, 53)))
    );

    let long = spec("fd00::1", "fd00::2", Kind::Udp, &[9; 3_000]).build();
    let reason = Unreachable::AdminProhibited;
    let error = unreachable(&long, "fd00::9".parse().unwrap(), reason).unwrap();
    assert_eq!((error.len(), &error[40..42]), (1_280, [1, 1].as_slice()));
    assert!(checksums_hold(&error));
    let reason = Unreachable::TooBig { mtu: 1_400 };
    let error = unreachable(&long, "fd00::9".parse().unwrap(), reason).unwrap();
    assert_eq!(error[40..48], [2, 0, error[42], error[43], 0, 0, 5, 120]);
}

#[test]
fn errors_fragments_and_groups_get_no_answer() {
    let from = [10, 0, 0, 9].into();
    let inner = spec("10.0.0.1", "10.0.0.2", Kind::Udp, b"x");
    let error = Spec {
        quoted: Some((Box::new(inner), 100)),
        ..spec("10.0.0.2", "10.0.0.1", Kind::Error, b"")
    };
    assert_eq!(unreachable(&error.build(), from, Unreachable::Host), None);
    let later = Spec {
        fragment: (9, false),
        ..spec("10.0.0.1", "10.0.0.2", Kind::Udp, b"more")
    };
    assert_eq!(unreachable(&later.build(), from, Unreachable::Host), None);
    for dst in ["224.0.0.1", "255.255.255.255"] {
        let group = spec("10.0.0.1", dst, Kind::Udp, b"x").build();
        assert_eq!(unreachable(&group, from, Unreachable::Host), None);
    }
}

fn syn_with(options: &[u8]) -> Vec<u8> {
    // Start from a sound packet, replace its 4 bytes of options and correct the checksum by parts.
    let mut packet = spec("10.0.0.1", "10.0.0.2", Kind::Tcp, b"").build();
    packet.truncate(40);
    packet.extend_from_slice(options);
    packet[3] = packet.len() as u8;
    packet[32] = (((20 + options.len()) / 4) as u8) << 4;
    packet[33] = 2;
    packet[10..12].fill(0);
    complete_header(&mut packet);
    packet[36..38].fill(0);
    let pseudo = [&packet[12..20], &[0, 6, 0, (20 + options.len()) as u8]].concat();
    let sum = pseudo
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
        .sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[36..38].copy_from_slice(&((sum & 0xffff) as u16 + (sum >> 16) as u16).to_be_bytes());
    assert!(complete_partial(&mut packet, 20, 16));
    packet
}

fn complete_header(packet: &mut [u8]) {
    // The header is its own sum without a pseudo-header.
    let mut header = packet[..20].to_vec();
    assert!(complete_partial(&mut header, 0, 10));
    packet[..20].copy_from_slice(&header);
}

#[test]
fn the_mss_of_a_syn_is_lowered_wherever_the_option_is() {
    let at_even = [2, 4, 0x05, 0xb4, 1, 1, 1, 0];
    let at_odd = [1, 2, 4, 0x05, 0xb4, 1, 1, 0];
    for options in [at_even, at_odd] {
        let mut syn = syn_with(&options);
        assert!(checksums_hold(&syn));
        assert!(
            !clamp_mss(&mut syn, 1_460, Checksum::Full),
            "low enough already"
        );
        assert!(clamp_mss(&mut syn, 1_200, Checksum::Full));
        assert!(checksums_hold(&syn));
        assert!(syn[40..].windows(4).any(|w| w == [2, 4, 0x04, 0xb0]));
    }
}

#[test]
fn no_syn_and_no_option_means_no_change() {
    let mut syn = syn_with(&[1, 1, 1, 0]);
    assert!(!clamp_mss(&mut syn, 100, Checksum::Full));
    let mut data = spec("10.0.0.1", "10.0.0.2", Kind::Tcp, b"data").build();
    assert!(!clamp_mss(&mut data, 100, Checksum::Full));
    let mut broken = syn_with(&[2, 0, 2, 4]);
    assert!(!clamp_mss(&mut broken, 100, Checksum::Full));
}

#[test]
fn a_joined_tcp_packet_is_cut_into_sound_segments() {
    for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
        let payload: Vec<u8> = (0..2_500u32).map(|i| i as u8).collect();
        let joined = Spec {
            partial: true,
            ..spec(src, dst, Kind::Tcp, &payload)
        }
        .build();
        let (mut scratch, mut pieces) = (Vec::new(), Vec::new());
        let count = segment(&joined, 1_000, &mut scratch, |piece| {
            pieces.push(piece.to_vec())
        });
        assert_eq!((count, pieces.len()), (3, 3));
        let mut together = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            assert!(checksums_hold(piece));
            let packet = Packet::parse(piece).unwrap();
            let sequence = u32::from_be_bytes(*packet.segment()[4..].first_chunk().unwrap());
            assert_eq!(sequence, 0x0102_0304 + 1_000 * index as u32);
            let push = packet.tcp_flags().unwrap() & 8 != 0;
            assert_eq!(push, index == 2, "PSH belongs to the last");
            together.extend_from_slice(packet.payload().unwrap());
        }
        assert_eq!(together, payload);
    }
}

#[test]
fn joined_udp_is_cut_into_sound_datagrams() {
    let joined = Spec {
        partial: true,
        ..spec("fd00::1", "fd00::2", Kind::Udp, &[5; 250])
    }
    .build();
    let (mut scratch, mut lens) = (Vec::new(), Vec::new());
    segment(&joined, 100, &mut scratch, |piece| {
        assert!(checksums_hold(piece));
        lens.push(Packet::parse(piece).unwrap().payload().unwrap().len());
    });
    assert_eq!(lens, [100, 100, 50]);
}

#[test]
fn a_partial_checksum_is_completed_also_after_a_rewrite() {
    let new: (std::net::IpAddr, std::net::IpAddr) = ([9, 9, 9, 9].into(), [8, 8, 8, 8].into());
    for (kind, offset) in [(Kind::Tcp, 16), (Kind::Udp, 6)] {
        let begun = Spec {
            partial: true,
            ..spec("10.0.0.1", "10.0.0.2", kind, b"payload")
        };
        let mut packet = begun.build();
        rewrite(
            &mut packet,
            Rewrite {
                src: Some(new.0),
                dst: Some(new.1),
            },
            Checksum::Partial,
        )
        .unwrap();
        assert!(complete_partial(&mut packet, 20, offset));
        let whole = Spec {
            src: new.0,
            dst: new.1,
            partial: false,
            ..begun
        }
        .build();
        assert_eq!(packet, whole);
    }
}

#[test]
fn too_big_is_said_to_who_forbids_fragments_and_never_below_what_the_version_guarantees() {
    const FLAGS: usize = HEADER_LEN + 6;
    let frame = |packet: &[u8]| [&Header::PLAIN.encode()[..], packet].concat();
    let mut v4 = frame(&spec("10.0.0.1", "10.0.0.2", Kind::Udp, &[0; 1_400]).build());
    let total = v4.len() - HEADER_LEN;
    v4[FLAGS] = 0;
    let said = |frame: &[u8], limit| too_big(&Frame::decode(frame).unwrap(), limit);
    assert_eq!(said(&v4, 1_000), None, "it may be fragmented");
    v4[FLAGS] = 0x40;
    assert_eq!(said(&v4, total), None, "it fits");
    let icmp = said(&v4, total - 1).unwrap();
    assert_eq!(icmp[20..22], [3, 4]);
    assert_eq!(icmp[26..28], (total as u16 - 1).to_be_bytes());

    let v6 = frame(&spec("fd00::1", "fd00::2", Kind::Udp, &[0; 1_400]).build());
    let icmp = said(&v6, 1_000).unwrap();
    assert_eq!(icmp[40..42], [2, 0]);
    assert_eq!(icmp[44..48], 1_280_u32.to_be_bytes());
    let short = frame(&spec("fd00::1", "fd00::2", Kind::Udp, &[0; 1_280 - 48]).build());
    assert_eq!(said(&short, 1_000), None, "IPv6 takes 1280 everywhere");
}
