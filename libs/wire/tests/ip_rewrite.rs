//! Rewriting a packet gives, to the last bit, the packet that would have been built with the new addresses.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::IpAddr;

use common::{Kind, Spec, spec};
use proptest::prelude::*;
use turnpike_wire::ip::{
    Checksum, Fragment, Packet, PacketError, Protocol, Rewrite, RewriteError, rewrite,
};

fn address(v4: bool) -> BoxedStrategy<IpAddr> {
    // Words of zeros and ones are where one's complement sums go wrong.
    let v4s = prop_oneof![
        any::<[u8; 4]>(),
        Just([0, 0, 0, 1]),
        Just([255, 255, 255, 254]),
        Just([255, 255, 0, 0])
    ];
    let v6s = prop_oneof![any::<[u8; 16]>(), Just([0xff; 16]), Just([0; 16])];
    if v4 {
        v4s.prop_map(IpAddr::from).boxed()
    } else {
        v6s.prop_map(IpAddr::from).boxed()
    }
}

#[derive(Debug, Clone)]
struct Case {
    spec: Spec,
    new_src: Option<IpAddr>,
    new_dst: Option<IpAddr>,
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        Just(Kind::Tcp),
        Just(Kind::Udp),
        Just(Kind::UdpWithoutChecksum),
        Just(Kind::Echo)
    ];
    (any::<bool>(), kind).prop_flat_map(|(v4, kind)| {
        let fragment = prop_oneof![
            4 => Just((0, false)),
            1 => Just((0, true)),
            1 => (1u16..0x1fff, any::<bool>())
        ];
        // Only TCP and UDP are offloaded.
        let partial = any::<bool>().prop_map(move |p| p && matches!(kind, Kind::Tcp | Kind::Udp));
        (
            (address(v4), address(v4), partial, fragment, any::<bool>()),
            prop::collection::vec(any::<u8>(), 0..200),
            proptest::option::of(address(v4)),
            proptest::option::of(address(v4)),
        )
            .prop_map(
                move |((src, dst, partial, fragment, extension), payload, s, d)| Case {
                    spec: Spec {
                        src,
                        dst,
                        kind,
                        partial,
                        fragment,
                        extension,
                        payload,
                        quoted: None,
                    },
                    new_src: s,
                    new_dst: d,
                },
            )
    })
}

fn mode(partial: bool) -> Checksum {
    if partial {
        Checksum::Partial
    } else {
        Checksum::Full
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_rewritten_packet_is_the_packet_with_these_addresses(case in case()) {
        let mut packet = case.spec.build();
        let to = Rewrite { src: case.new_src, dst: case.new_dst };
        rewrite(&mut packet, to, mode(case.spec.partial)).unwrap();
        let expected = Spec {
            src: case.new_src.unwrap_or(case.spec.src),
            dst: case.new_dst.unwrap_or(case.spec.dst),
            ..case.spec
        };
        prop_assert_eq!(packet, expected.build());
    }

    #[test]
    fn an_error_is_rewritten_with_the_packet_it_quotes(
        inner in case(), router in any::<[u8; 16]>(), half_len in 28usize..150,
    ) {
        // The quoted packet went from here to there; the error comes back from there or from a router.
        let v4 = inner.spec.src.is_ipv4();
        let router = if v4 { IpAddr::from([router[0], 1, 2, 3]) } else { IpAddr::from(router) };
        let quoted = Spec { partial: false, ..inner.spec };
        let error = |quoted: Spec, from: IpAddr| Spec {
            src: from,
            dst: quoted.src,
            kind: Kind::Error,
            fragment: (0, false),
            payload: Vec::new(),
            quoted: Some((Box::new(quoted.clone()), 2 * half_len)),
            ..quoted
        };
        let mut packet = error(quoted.clone(), router).build();
        rewrite(&mut packet, Rewrite { src: inner.new_src, dst: inner.new_dst }, Checksum::Full)
            .unwrap();
        let renamed = Spec {
            src: inner.new_dst.unwrap_or(quoted.src),
            dst: inner.new_src.unwrap_or(quoted.dst),
            ..quoted
        };
        let expected = error(renamed, inner.new_src.unwrap_or(router));
        prop_assert_eq!(packet, expected.build());
    }

    #[test]
    fn random_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..400), version in 0u8..2, proto in any::<u8>(),
        partial in any::<bool>(), zero_frag in any::<bool>(),
    ) {
        // Steer some of them past the first checks.
        if bytes.len() > 40 {
            let len = bytes.len() as u16;
            if version == 0 {
                bytes[0] = 0x45 + bytes[0] % 11;
                let total = len - u16::from(bytes[2] % 8);
                bytes[2..4].copy_from_slice(&total.to_be_bytes());
                if zero_frag { bytes[6..8].fill(0); }
                bytes[9] = [1, 6, 17, proto][usize::from(proto % 4)];
            } else {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(len - 40).to_be_bytes());
                bytes[6] = [0, 43, 44, 51, 60, 58, 6, 17][usize::from(proto % 8)];
            }
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            let _ = (packet.ports(), packet.payload(), packet.tcp_flags(), packet.icmp());
            let _ = (packet.embedded(), packet.echo_identifier(), packet.is_icmp_error());
            let _ = turnpike_wire::ip::answer::tcp_reset(&bytes);
            let reason = turnpike_wire::ip::answer::Unreachable::Port;
            let _ = turnpike_wire::ip::answer::unreachable(&bytes, packet.destination(), reason);
            let to = Rewrite { src: Some(packet.destination()), dst: Some(packet.source()) };
            let mut scratch = Vec::new();
            turnpike_wire::ip::segment::segment(&bytes, 100, &mut scratch, |piece| {
                assert!(Packet::parse(piece).is_ok());
            });
            let _ = turnpike_wire::ip::clamp_mss(&mut bytes, 500, mode(partial));
            let _ = rewrite(&mut bytes, to, mode(partial));
        }
    }
}

#[test]
fn there_and_back_is_where_it_was() {
    for kind in [Kind::Tcp, Kind::Udp, Kind::Echo] {
        let before = spec("fd74::1", "fd10::2", kind, b"payload").build();
        let mut packet = before.clone();
        let to = |s: &str, d: &str| Rewrite {
            src: Some(s.parse().unwrap()),
            dst: Some(d.parse().unwrap()),
        };
        rewrite(&mut packet, to("fd00::9", "fd00::8"), Checksum::Full).unwrap();
        assert_ne!(packet, before);
        rewrite(&mut packet, to("fd74::1", "fd10::2"), Checksum::Full).unwrap();
        assert_eq!(packet, before);
    }
}

#[test]
fn the_view_tells_what_is_there() {
    let bytes = spec("10.0.0.1", "10.0.0.2", Kind::Tcp, b"GET /").build();
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.protocol(), Protocol::Tcp);
    assert_eq!(packet.ports(), Some((8080, 50000)));
    assert_eq!(packet.payload(), Some(b"GET /".as_slice()));
    assert_eq!(packet.tcp_flags(), Some(0x18));
    let bytes = spec("10.0.0.1", "10.0.0.2", Kind::Echo, b"x").build();
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(
        (packet.icmp(), packet.echo_identifier()),
        (Some((8, 0)), Some(0xabcd))
    );
    assert!(!packet.is_icmp_error());
    let later = Spec {
        fragment: (10, true),
        ..spec("::1", "::2", Kind::Udp, &[7; 64])
    }
    .build();
    let packet = Packet::parse(&later).unwrap();
    assert_eq!((packet.fragment(), packet.ports()), (Fragment::Later, None));
}

#[test]
fn an_error_tells_what_it_is_about() {
    let quoted = spec("10.0.0.1", "10.0.0.2", Kind::Udp, b"lost");
    let error = Spec {
        quoted: Some((Box::new(quoted), 28)),
        ..spec("192.0.2.1", "10.0.0.1", Kind::Error, b"")
    };
    let bytes = error.build();
    let embedded = Packet::parse(&bytes).unwrap().embedded().unwrap();
    assert_eq!(embedded.destination.to_string(), "10.0.0.2");
    assert_eq!(
        (embedded.protocol, embedded.ports),
        (Protocol::Udp, Some((9000, 53)))
    );
}

#[test]
fn an_error_about_someone_elses_packet_is_refused_unchanged() {
    let quoted = spec("10.9.9.9", "10.0.0.2", Kind::Udp, b"lost");
    let error = Spec {
        quoted: Some((Box::new(quoted), 28)),
        ..spec("10.0.0.2", "10.0.0.1", Kind::Error, b"")
    };
    let before = error.build();
    let mut packet = before.clone();
    let to = Rewrite {
        src: Some([1, 1, 1, 1].into()),
        dst: Some([2, 2, 2, 2].into()),
    };
    assert_eq!(
        rewrite(&mut packet, to, Checksum::Full),
        Err(RewriteError::ForeignError)
    );
    assert_eq!(packet, before);
}

#[test]
fn what_is_no_packet_is_refused() {
    let good = spec("10.0.0.1", "10.0.0.2", Kind::Udp, b"12345678").build();
    assert_eq!(Packet::parse(&[]).unwrap_err(), PacketError::Truncated);
    assert_eq!(
        Packet::parse(&good[..good.len() - 1]).unwrap_err(),
        PacketError::Truncated
    );
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Packet::parse(&bytes).map(|_| ()).unwrap_err()
    };
    assert_eq!(with(0, 0x55), PacketError::Malformed);
    assert_eq!(with(0, 0x44), PacketError::Malformed);
    assert_eq!(with(3, 19), PacketError::Malformed);
    let tiny = Spec {
        fragment: (0, true),
        ..spec("10.0.0.1", "10.0.0.2", Kind::Tcp, b"")
    };
    let mut tiny = tiny.build();
    tiny.truncate(28);
    tiny[3] = 28;
    assert_eq!(Packet::parse(&tiny).unwrap_err(), PacketError::Truncated);
}

#[test]
fn source_routes_and_endless_extensions_are_refused() {
    let routed = Spec {
        extension: true,
        ..spec("10.0.0.1", "10.0.0.2", Kind::Udp, b"")
    };
    let mut packet = routed.build();
    packet[20] = 131;
    assert_eq!(
        Packet::parse(&packet).unwrap_err(),
        PacketError::SourceRouted
    );
    let mut packet = spec("::1", "::2", Kind::Udp, &[0; 100]).build();
    packet[6] = 43;
    packet[43] = 1;
    assert_eq!(
        Packet::parse(&packet).unwrap_err(),
        PacketError::SourceRouted
    );
    let mut packet = spec("::1", "::2", Kind::Udp, &[60; 200]).build();
    packet[6] = 60;
    packet[40..]
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .for_each(|e| *e = [60, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(
        Packet::parse(&packet).unwrap_err(),
        PacketError::TooManyExtensions
    );
}

#[test]
fn an_address_of_the_other_family_is_refused() {
    let mut packet = spec("10.0.0.1", "10.0.0.2", Kind::Udp, b"").build();
    let to = Rewrite {
        src: None,
        dst: Some("::1".parse().unwrap()),
    };
    assert_eq!(
        rewrite(&mut packet, to, Checksum::Full),
        Err(RewriteError::Family)
    );
}

#[test]
fn a_udp_checksum_never_becomes_zero_and_a_missing_one_never_appears() {
    let before = spec("10.0.0.1", "10.0.0.2", Kind::Udp, b"payload");
    let mut all_ones = 0;
    for host in 0..=u16::MAX {
        let [high, low] = host.to_be_bytes();
        let dst = IpAddr::from([10, 1, high, low]);
        let mut packet = before.build();
        rewrite(
            &mut packet,
            Rewrite {
                src: None,
                dst: Some(dst),
            },
            Checksum::Full,
        )
        .unwrap();
        assert_eq!(
            packet,
            Spec {
                dst,
                ..before.clone()
            }
            .build()
        );
        all_ones += u32::from(packet[26..28] == [0xff, 0xff]);
    }
    assert!(all_ones > 0, "the case that this is about did not come up");
}
