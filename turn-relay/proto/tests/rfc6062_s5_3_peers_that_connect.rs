//! RFC 6062 section 5.3: a peer connects to a relayed address.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use common::{Relay, Setup, addr};
use stun_types::message::MessageClass;
use tcp::{allocate, answered, bind, client};
use turn_relay_proto::{Limits, Output};
use turn_types::attribute::{ConnectionId, XorPeerAddress};
use turn_types::message::CONNECTION_ATTEMPT;

#[test]
fn the_client_is_told_who_it_is_and_the_connections_number() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    let relayed = allocate(&mut client, &mut relay);
    assert_eq!(client.permit(&mut relay, &["10.0.0.5:9"]), 0);
    let connection = relay.peer_connects("10.0.0.5:4444", relayed).unwrap();
    let told = answered(&client, &mut relay);
    let message = told.message();
    assert_eq!(message.class(), MessageClass::Indication);
    assert_eq!(message.method(), CONNECTION_ATTEMPT);
    let peer = told.get::<XorPeerAddress>().unwrap();
    assert_eq!(peer.addr(message.transaction_id()), addr("10.0.0.5:4444"));
    let number = told.get::<ConnectionId>().unwrap().id();
    assert_eq!(number, connection.number());
    let mut data = tcp::client("192.0.2.1:4001", 2);
    assert_eq!(bind(&mut data, &mut relay, number), 0);
}

#[test]
fn without_permission_it_is_closed_and_the_client_hears_nothing() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    let relayed = allocate(&mut client, &mut relay);
    assert_eq!(relay.peer_connects("10.0.0.5:4444", relayed), None);
    client.permit(&mut relay, &["10.0.0.5:9"]);
    assert_eq!(relay.peer_connects("10.0.0.6:4444", relayed), None);
    relay.pass(300);
    assert_eq!(relay.peer_connects("10.0.0.5:4444", relayed), None);
    assert!(relay.take_answers().is_empty());
    assert_eq!(relay.stats().peer_connections_refused, 3);
    assert_eq!(relay.server.peer_connections(), 0);
}

#[test]
fn one_that_nobody_binds_is_closed_after_thirty_seconds() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    let relayed = allocate(&mut client, &mut relay);
    client.permit(&mut relay, &["10.0.0.5:9"]);
    let connection = relay.peer_connects("10.0.0.5:4444", relayed).unwrap();
    relay.take_answers();
    relay.pass(29);
    assert!(relay.take_peer_outputs().is_empty());
    relay.pass(1);
    assert_eq!(
        relay.take_peer_outputs(),
        [Output::ClosePeer { connection }]
    );
    assert_eq!(relay.stats().peer_connections_unbound, 1);
    let mut data = tcp::client("192.0.2.1:4001", 2);
    assert_eq!(bind(&mut data, &mut relay, connection.number()), 400);
}

#[test]
fn beyond_the_limit_they_are_closed() {
    let mut relay = Relay::with(Setup {
        limits: Limits {
            peer_connections_per_allocation: 2,
            ..Limits::default()
        },
        ..Setup::default()
    });
    let mut client = client("192.0.2.1:4000", 1);
    let relayed = allocate(&mut client, &mut relay);
    client.permit(&mut relay, &["10.0.0.5:9"]);
    let first = relay.peer_connects("10.0.0.5:4001", relayed).unwrap();
    assert!(relay.peer_connects("10.0.0.5:4002", relayed).is_some());
    assert_eq!(relay.peer_connects("10.0.0.5:4003", relayed), None);
    relay.server.handle_peer_connection_closed(first);
    assert!(relay.peer_connects("10.0.0.5:4003", relayed).is_some());
}
