//! RFC 5780 sections 6 and 7: NAT behavior discovery, where two addresses are configured.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Relay, Setup, addr, server_addr};
use model::{ClientAddr, ServerAddr};
use std::net::SocketAddr;
use stun_types::attribute::{
    AttributeType, AttributeWrite, RawAttribute, UnknownAttributes, XorMappedAddress,
};
use stun_types::message::{
    BINDING, Message, MessageWrite as _, MessageWriteExt as _, MessageWriteVec,
};
use turn_relay_proto::{Extensions, FiveTuple, NatDiscovery, Output, Transport};

const ALTERNATE: &str = "203.0.113.13:3479";
const CLIENT: &str = "192.0.2.1:4000";

fn two_addresses() -> Relay {
    let discovery = vec![NatDiscovery {
        primary: server_addr(),
        alternate: addr(ALTERNATE),
    }];
    Relay::with(Setup {
        extensions: Extensions {
            discovery,
            ..Extensions::default()
        },
        ..Setup::default()
    })
}

/// From where, to where, and what.
struct Answer {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Answer {
    fn address(&self, kind: u16) -> Option<SocketAddr> {
        let message = Message::from_bytes(&self.bytes).unwrap();
        let raw = message.raw_attribute(AttributeType::new(kind))?;
        // All of them have the form of MAPPED-ADDRESS.
        let [0, 1, p0, p1, a, b, c, d] = raw.value[..] else {
            panic!("not an IPv4 address: {:?}", raw.value);
        };
        Some(([a, b, c, d], u16::from_be_bytes([p0, p1])).into())
    }

    fn code(&self) -> u16 {
        let message = Message::from_bytes(&self.bytes).unwrap();
        let error = message.attribute::<stun_types::attribute::ErrorCode>();
        error.map_or(0, |error| error.code())
    }
}

fn ask(relay: &mut Relay, at: &str, transport: Transport, with: &[(u16, &[u8])]) -> Answer {
    let raw: Vec<_> = with
        .iter()
        .map(|(kind, value)| RawAttribute::new(AttributeType::new(*kind), value))
        .collect();
    let mut request = Message::builder_request(BINDING, MessageWriteVec::new());
    for attribute in &raw {
        request
            .add_attribute(attribute as &dyn AttributeWrite)
            .unwrap();
    }
    let request = request.finish();
    let path = FiveTuple {
        client: ClientAddr(addr(CLIENT)),
        server: ServerAddr(addr(at)),
        transport,
    };
    let _ = relay
        .server
        .handle_client_datagram(relay.now, path, &request);
    let Some(Output::Answer { path, bytes }) = relay.server.poll_output() else {
        panic!("no answer");
    };
    assert!(relay.server.poll_output().is_none());
    // Nothing that is not asked for makes it large.
    let asked: usize = with.iter().map(|(_, value)| value.len()).sum();
    assert!(bytes.len() <= 20 + 6 * 24 + asked, "{}", bytes.len());
    Answer {
        from: path.server.0,
        to: path.client.0,
        bytes,
    }
}

fn binding(relay: &mut Relay, at: &str, with: &[(u16, &[u8])]) -> Answer {
    ask(relay, at, Transport::Udp, with)
}

#[test]
fn each_of_the_four_addresses_names_itself_and_the_one_that_differs_in_both() {
    let mut relay = two_addresses();
    for (at, other) in [
        ("203.0.113.12:3478", "203.0.113.13:3479"),
        ("203.0.113.12:3479", "203.0.113.13:3478"),
        ("203.0.113.13:3478", "203.0.113.12:3479"),
        ("203.0.113.13:3479", "203.0.113.12:3478"),
    ] {
        let answer = binding(&mut relay, at, &[]);
        assert_eq!((answer.from, answer.to), (addr(at), addr(CLIENT)));
        assert_eq!(answer.address(0x802B), Some(addr(at)));
        assert_eq!(answer.address(0x802C), Some(addr(other)));
        assert_eq!(answer.address(0x0001), Some(addr(CLIENT)));
        let message = Message::from_bytes(&answer.bytes).unwrap();
        let mapped: XorMappedAddress = message.attribute().unwrap();
        assert_eq!(mapped.addr(message.transaction_id()), addr(CLIENT));
    }
}

#[test]
fn change_request_says_from_where_the_answer_comes() {
    let mut relay = two_addresses();
    for (flags, from) in [
        (0, "203.0.113.12:3478"),
        (2, "203.0.113.12:3479"),
        (4, "203.0.113.13:3478"),
        (6, "203.0.113.13:3479"),
    ] {
        let change: &[u8] = &[0, 0, 0, flags];
        let answer = binding(&mut relay, "203.0.113.12:3478", &[(3, change)]);
        assert_eq!((answer.from, answer.to), (addr(from), addr(CLIENT)));
        assert_eq!(answer.address(0x802B), Some(addr(from)));
        assert_eq!(answer.address(0x802C), Some(addr("203.0.113.13:3479")));
    }
}

#[test]
fn response_port_says_where_to_on_the_same_host() {
    let mut relay = two_addresses();
    let port = 5_000u16.to_be_bytes();
    for value in [&[port[0], port[1]][..], &[port[0], port[1], 0, 0]] {
        let answer = binding(&mut relay, "203.0.113.12:3478", &[(0x27, value)]);
        assert_eq!(answer.to, addr("192.0.2.1:5000"));
        // What the client is mapped to is still where it asked from.
        assert_eq!(answer.address(0x0001), Some(addr(CLIENT)));
    }
}

#[test]
fn padding_is_answered_with_as_much_and_never_to_another_port() {
    let mut relay = two_addresses();
    let padding = vec![7; 1_000];
    let answer = binding(&mut relay, "203.0.113.12:3478", &[(0x26, &padding)]);
    let message = Message::from_bytes(&answer.bytes).unwrap();
    let raw = message.raw_attribute(AttributeType::new(0x26)).unwrap();
    assert_eq!(raw.value.len(), 1_000);
    assert!(raw.value.iter().all(|byte| *byte == 0));
    let both: [(u16, &[u8]); 2] = [(0x26, &padding), (0x27, &[1, 2])];
    let answer = binding(&mut relay, "203.0.113.12:3478", &both);
    assert_eq!((answer.code(), answer.to), (400, addr(CLIENT)));
    assert!(answer.bytes.len() < 100);
}

#[test]
fn malformed_values_are_bad_requests() {
    let mut relay = two_addresses();
    for with in [(3, &[0, 0][..]), (0x27, &[1]), (0x27, &[0, 0])] {
        let answer = binding(&mut relay, "203.0.113.12:3478", &[with]);
        assert_eq!((answer.code(), answer.to), (400, addr(CLIENT)));
    }
}

#[test]
fn where_it_is_not_configured_the_attributes_are_unknown() {
    let change: &[u8] = &[0, 0, 0, 6];
    let over_tcp = Transport::Tcp(turn_relay_proto::ConnectionId(1));
    let somewhere = "203.0.113.99:3478";
    for (mut relay, at, transport) in [
        (Relay::new(), "203.0.113.12:3478", Transport::Udp),
        (two_addresses(), somewhere, Transport::Udp),
        (two_addresses(), "203.0.113.12:3478", over_tcp),
    ] {
        let answer = ask(&mut relay, at, transport, &[(3, change)]);
        assert_eq!((answer.code(), answer.from), (420, addr(at)));
        let message = Message::from_bytes(&answer.bytes).unwrap();
        let unknown: UnknownAttributes = message.attribute().unwrap();
        assert!(unknown.has_attribute(AttributeType::new(3)));
        let plain = ask(&mut relay, at, transport, &[]);
        assert_eq!(plain.address(0x802C), None);
        assert_eq!(plain.address(0x802B), None);
    }
}
