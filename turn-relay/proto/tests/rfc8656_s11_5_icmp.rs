//! RFC 8656 section 11.5: ICMP errors are told to the client.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay, Setup, addr};
use model::PeerAddr;
use std::net::SocketAddr;
use stun_types::message::{Message, MessageClass};
use turn_relay_proto::{Icmp, RelayId};
use turn_types::attribute::{Data, RequestedAddressFamily, XorPeerAddress};
use turn_types::message::DATA;

const UNREACHABLE: Icmp = Icmp {
    kind: 3,
    code: 3,
    data: 0,
};

fn comes_back(relay: &mut Relay, id: RelayId, peer: &str, icmp: Icmp) -> Option<Vec<u8>> {
    relay
        .server
        .handle_peer_icmp(relay.now, id, PeerAddr(addr(peer)), icmp);
    match relay.polled() {
        Outcome::Answer(bytes) => Some(bytes),
        Outcome::Nothing => None,
        other => panic!("{other:?}"),
    }
}

/// Peer, type, code and data.
fn read(bytes: &[u8]) -> (SocketAddr, u8, u8, u32) {
    let message = Message::from_bytes(bytes).unwrap();
    assert_eq!(message.class(), MessageClass::Indication);
    assert_eq!(message.method(), DATA);
    assert!(message.attribute::<Data<'_>>().is_err());
    let peer: XorPeerAddress = message.attribute().unwrap();
    let icmp: turn_types::attribute::Icmp = message.attribute().unwrap();
    let peer = peer.addr(message.transaction_id());
    (peer, icmp.icmp_type(), icmp.code(), icmp.data())
}

#[test]
fn an_error_about_a_permitted_peer_comes_as_a_data_indication_with_icmp() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    let id = relay.open[&relayed];
    assert_eq!(client.permit(&mut relay, &["10.0.0.5:1"]), 0);
    let told = comes_back(&mut relay, id, "10.0.0.5:9", UNREACHABLE).unwrap();
    assert_eq!(read(&told), (addr("10.0.0.5:9"), 3, 3, 0));
    // A channel changes nothing.
    assert_eq!(client.bind(&mut relay, 0x4000, "10.0.0.5:9"), 0);
    let too_big = Icmp::too_big(turn_relay_proto::Family::V4, 1_280);
    let told = comes_back(&mut relay, id, "10.0.0.5:9", too_big).unwrap();
    assert_eq!(read(&told), (addr("10.0.0.5:9"), 3, 4, 1_280));
    assert_eq!(relay.stats().icmp_relayed, 2);
}

#[test]
fn without_permission_or_after_it_there_is_none() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    let id = relay.open[&relayed];
    assert!(comes_back(&mut relay, id, "10.0.0.5:9", UNREACHABLE).is_none());
    client.permit(&mut relay, &["10.0.0.5:1"]);
    assert!(comes_back(&mut relay, id, "10.0.0.6:9", UNREACHABLE).is_none());
    relay.pass(301);
    assert!(comes_back(&mut relay, id, "10.0.0.5:9", UNREACHABLE).is_none());
    relay.pass(600);
    assert!(comes_back(&mut relay, id, "10.0.0.5:9", UNREACHABLE).is_none());
    assert_eq!(relay.stats().icmp_ignored, 4);
}

#[test]
fn of_all_types_those_that_say_that_something_did_not_arrive() {
    let mut relay = Relay::with(Setup::default());
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    let v4 = relay.open[&relayed];
    client.permit(&mut relay, &["10.0.0.5:1"]);
    let mut other = Client::new("192.0.2.1:4001");
    let family = RequestedAddressFamily::new(turn_types::AddressFamily::IPV6);
    let answer = other.try_allocate(&mut relay, &[&family]);
    let v6 = relay.open[&answer.relayed()[0]];
    other.permit(&mut relay, &["[fd00:10::5]:1"]);
    for kind in 0..=255 {
        relay.pass(1);
        let icmp = Icmp {
            kind,
            code: 0,
            data: 0,
        };
        let told = comes_back(&mut relay, v4, "10.0.0.5:9", icmp).is_some();
        assert_eq!(told, [3, 11].contains(&kind), "{kind}");
        let told = comes_back(&mut relay, v6, "[fd00:10::5]:9", icmp).is_some();
        assert_eq!(told, [1, 2, 3].contains(&kind), "{kind}");
        if kind == 100 {
            client.permit(&mut relay, &["10.0.0.5:1"]);
            other.permit(&mut relay, &["[fd00:10::5]:1"]);
        }
    }
}

#[test]
fn a_flood_of_them_is_eight_and_then_ten_a_second() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    let id = relay.open[&relayed];
    client.permit(&mut relay, &["10.0.0.5:1"]);
    let flood = |relay: &mut Relay| {
        let told =
            (0..1_000).filter(|_| comes_back(relay, id, "10.0.0.5:9", UNREACHABLE).is_some());
        told.count()
    };
    assert_eq!(flood(&mut relay), 8);
    assert_eq!(flood(&mut relay), 0);
    relay.pass(1);
    assert_eq!(flood(&mut relay), 8);
    // Another client is not held back by this one.
    let mut other = Client::new("192.0.2.1:4001");
    let relayed = other.allocate(&mut relay);
    other.permit(&mut relay, &["10.0.0.5:1"]);
    let theirs = relay.open[&relayed];
    assert!(comes_back(&mut relay, theirs, "10.0.0.5:9", UNREACHABLE).is_some());
}
