//! The header in front of a packet on the `ip` channel: what is written is read, and what a hostile peer
//! writes is refused.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Kind, spec};
use proptest::prelude::*;
use turnpike_wire::frame::{Frame, FrameError, Gso, GsoKind, Header, PartialChecksum};
use turnpike_wire::ip::{Checksum, PacketError};

fn frame(header: Header, packet: &[u8]) -> Vec<u8> {
    [&header.encode(), packet].concat()
}

fn joined_tcp() -> (Header, Vec<u8>) {
    let packet = spec("10.0.0.1", "10.0.0.2", Kind::Tcp, &[1; 5_000]).build();
    let header = Header {
        gso: Some(Gso {
            kind: GsoKind::TcpV4,
            ecn: true,
            size: 1_400,
        }),
        partial_checksum: Some(PartialChecksum {
            start: 20,
            offset: 16,
        }),
        headers_len: 44,
    };
    (header, packet)
}

#[test]
fn the_bytes_are_as_drawn() {
    let (header, _) = joined_tcp();
    assert_eq!(
        header.encode(),
        [0x11, 0x81, 0, 44, 0x05, 0x78, 0, 20, 0, 16, 0, 0]
    );
    assert_eq!(
        Header::PLAIN.encode(),
        [0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn what_is_encoded_is_decoded() {
    let (header, packet) = joined_tcp();
    let bytes = frame(header, &packet);
    let decoded = Frame::decode(&bytes).unwrap();
    assert_eq!(
        (decoded.header, decoded.packet.bytes()),
        (header, packet.as_slice())
    );
    assert_eq!(decoded.header.checksum(), Checksum::Partial);
    let v6 = spec("fd00::1", "fd00::2", Kind::Udp, &[1; 500]).build();
    let header = Header {
        gso: Some(Gso {
            kind: GsoKind::UdpL4,
            ecn: false,
            size: 100,
        }),
        partial_checksum: Some(PartialChecksum {
            start: 40,
            offset: 6,
        }),
        headers_len: 48,
    };
    assert_eq!(Frame::decode(&frame(header, &v6)).unwrap().header, header);
    let plain = frame(Header::PLAIN, &v6);
    assert_eq!(
        Frame::decode(&plain).unwrap().header.checksum(),
        Checksum::Full
    );
}

#[test]
fn the_checksum_can_be_nowhere_but_in_the_transport_header() {
    let (header, packet) = joined_tcp();
    // Position 22 is the destination port: the kernel would write a port of the peer's choice.
    for (start, offset) in [
        (20, 2),
        (0, 10),
        (22, 14),
        (20, 17),
        (65_535, 65_535),
        (20, 6),
    ] {
        let partial_checksum = Some(PartialChecksum { start, offset });
        let hostile = frame(
            Header {
                partial_checksum,
                gso: None,
                headers_len: 0,
            },
            &packet,
        );
        assert_eq!(Frame::decode(&hostile).unwrap_err(), FrameError::Checksum);
    }
    let without = frame(
        Header {
            partial_checksum: None,
            ..header
        },
        &packet,
    );
    assert_eq!(Frame::decode(&without).unwrap_err(), FrameError::Gso);
}

#[test]
fn segmentation_must_fit_the_packet() {
    let (header, packet) = joined_tcp();
    let with = |gso: Gso| {
        Frame::decode(&frame(
            Header {
                gso: Some(gso),
                ..header
            },
            &packet,
        ))
        .err()
    };
    let refused = Some(FrameError::Gso);
    assert_eq!(
        with(Gso {
            kind: GsoKind::TcpV6,
            ecn: false,
            size: 1_400
        }),
        refused
    );
    assert_eq!(
        with(Gso {
            kind: GsoKind::UdpL4,
            ecn: false,
            size: 1_400
        }),
        refused
    );
    assert_eq!(
        with(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 0
        }),
        refused
    );
    assert_eq!(
        with(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 2
        }),
        refused,
        "2 500 pieces"
    );
    assert_eq!(
        with(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 9_000
        }),
        None
    );
    for headers_len in [0, 43, 45, 65_535] {
        let hostile = frame(
            Header {
                headers_len,
                ..header
            },
            &packet,
        );
        assert_eq!(Frame::decode(&hostile).unwrap_err(), FrameError::Gso);
    }
}

#[test]
fn unknown_versions_flags_and_lengths_are_refused() {
    let (header, packet) = joined_tcp();
    let good = frame(header, &packet);
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        Frame::decode(&bytes).unwrap_err()
    };
    assert_eq!(with(0, 0x21), FrameError::Version);
    assert_eq!(with(0, 0x13), FrameError::Version);
    assert_eq!(with(11, 1), FrameError::Version);
    assert_eq!(with(1, 3), FrameError::Gso);
    assert_eq!(with(1, 0x80), FrameError::Gso);
    assert_eq!(Frame::decode(&good[..11]).unwrap_err(), FrameError::Length);
    assert_eq!(
        Frame::decode(&good[..12]).unwrap_err(),
        FrameError::Packet(PacketError::Truncated)
    );
    let longer = [good.as_slice(), &[0]].concat();
    assert_eq!(Frame::decode(&longer).unwrap_err(), FrameError::Length);
}

proptest! {
    #[test]
    fn hostile_headers_never_panic_and_never_point_outside(
        head in any::<[u8; 12]>(), tcp in any::<bool>(), payload in 0usize..300,
    ) {
        let kind = if tcp { Kind::Tcp } else { Kind::Udp };
        let packet = spec("10.0.0.1", "10.0.0.2", kind, &vec![3; payload]).build();
        let mut head = head;
        head[0] = 0x10 | (head[0] & 1);
        head[10..].fill(0);
        let bytes = [&head[..], &packet].concat();
        if let Ok(frame) = Frame::decode(&bytes) {
            prop_assert!(usize::from(frame.header.headers_len) <= packet.len());
            if let Some(p) = frame.header.partial_checksum {
                prop_assert!(usize::from(p.start) + usize::from(p.offset) + 2 <= packet.len());
            }
            prop_assert!(frame.header.gso.is_none_or(|gso| gso.size > 0));
        }
    }
}
