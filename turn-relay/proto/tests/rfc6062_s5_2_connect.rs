//! RFC 6062 section 5.2: Connect requests.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use common::{Client, Outcome, Relay, Setup};
use tcp::{allocate, answered, bind, client, connect, connected, refused};
use turn_relay_proto::{Limits, Output};
use turn_types::message::CONNECT;

#[test]
fn who_connects_gets_the_connections_number() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    allocate(&mut client, &mut relay);
    // Without a permission: the client names the peer itself.
    let first = connected(&mut client, &mut relay, "10.0.0.5:80");
    let second = connected(&mut client, &mut relay, "10.0.0.5:81");
    assert_ne!(first, second);
    assert_eq!(relay.stats().peer_connections_made, 2);
    assert_eq!(relay.server.peer_connections(), 2);
}

#[test]
fn without_an_allocation_for_tcp_there_is_a_mismatch() {
    let mut relay = Relay::new();
    let mut none = client("192.0.2.1:4000", 1);
    assert_eq!(refused(&mut none, &mut relay, "10.0.0.5:80"), 437);
    let mut for_udp = client("192.0.2.1:4001", 2);
    for_udp.allocate(&mut relay);
    assert_eq!(refused(&mut for_udp, &mut relay, "10.0.0.5:80"), 437);
}

#[test]
fn another_users_allocation_connects_for_nobody_else() {
    let mut relay = Relay::new();
    let mut alice = client("192.0.2.1:4000", 1);
    allocate(&mut alice, &mut relay);
    let mut bob = Client::named("192.0.2.1:4000", "bob", "builder");
    bob.transport = alice.transport;
    assert_eq!(refused(&mut bob, &mut relay, "10.0.0.5:80"), 441);
    assert!(relay.take_peer_outputs().is_empty());
}

#[test]
fn a_peer_is_needed_of_the_family_and_allowed() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    allocate(&mut client, &mut relay);
    assert_eq!(client.request(&mut relay, CONNECT, &[]).code(), 400);
    assert_eq!(refused(&mut client, &mut relay, "[fd00:10::5]:80"), 443);
    for denied in [
        "192.0.2.9:80",
        "127.0.0.1:80",
        "0.0.0.0:80",
        "10.0.0.5:0",
        "203.0.113.12:3478",
    ] {
        assert_eq!(refused(&mut client, &mut relay, denied), 403, "{denied}");
    }
    assert!(relay.take_peer_outputs().is_empty());
}

#[test]
fn a_second_connection_to_a_peer_is_refused_while_the_first_lasts() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    allocate(&mut client, &mut relay);
    let peer = "10.0.0.5:80";
    // While it comes up, while it waits, and while it is bound.
    let (id, connection) = connect(&mut client, &mut relay, peer);
    assert_eq!(refused(&mut client, &mut relay, peer), 446);
    relay.connected(id, connection, true);
    answered(&client, &mut relay);
    assert_eq!(refused(&mut client, &mut relay, peer), 446);
    let mut data = tcp::client("192.0.2.1:4001", 2);
    assert_eq!(bind(&mut data, &mut relay, connection.number()), 0);
    assert_eq!(refused(&mut client, &mut relay, peer), 446);
    relay.server.handle_peer_connection_closed(connection);
    relay.take_peer_outputs();
    connect(&mut client, &mut relay, peer);
}

#[test]
fn a_connection_that_fails_is_told_and_may_be_tried_again() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    allocate(&mut client, &mut relay);
    let (id, connection) = connect(&mut client, &mut relay, "10.0.0.5:80");
    assert!(!relay.connected(id, connection, false));
    assert_eq!(answered(&client, &mut relay).code(), 447);
    assert_eq!(relay.stats().error_responses(447), 1);
    connected(&mut client, &mut relay, "10.0.0.5:80");
}

#[test]
fn after_thirty_seconds_it_has_failed() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    allocate(&mut client, &mut relay);
    let (id, connection) = connect(&mut client, &mut relay, "10.0.0.5:80");
    relay.pass(29);
    assert!(relay.take_answers().is_empty());
    relay.pass(1);
    assert_eq!(answered(&client, &mut relay).code(), 447);
    assert_eq!(
        relay.take_peer_outputs(),
        [Output::ClosePeer { connection }]
    );
    // What comes too late is not wanted.
    assert!(!relay.connected(id, connection, true));
    assert!(relay.take_answers().is_empty());
    assert_eq!(relay.server.peer_connections(), 0);
}

#[test]
fn nobody_has_more_than_the_limits() {
    let mut relay = Relay::with(Setup {
        limits: Limits {
            peer_connections: 3,
            peer_connections_per_allocation: 2,
            ..Limits::default()
        },
        ..Setup::default()
    });
    let mut first = client("192.0.2.1:4000", 1);
    allocate(&mut first, &mut relay);
    connected(&mut first, &mut relay, "10.0.0.5:80");
    let (_, second) = connect(&mut first, &mut relay, "10.0.0.5:81");
    assert_eq!(refused(&mut first, &mut relay, "10.0.0.5:82"), 508);
    let mut other = client("192.0.2.1:4001", 2);
    allocate(&mut other, &mut relay);
    connected(&mut other, &mut relay, "10.0.0.5:80");
    assert_eq!(refused(&mut other, &mut relay, "10.0.0.5:81"), 508);
    relay.server.handle_peer_connection_closed(second);
    connected(&mut other, &mut relay, "10.0.0.5:81");
}

#[test]
fn whoever_proves_nothing_makes_nothing() {
    let mut relay = Relay::new();
    let client = client("192.0.2.1:4000", 1);
    let request = client.unsigned(CONNECT, &[]);
    match relay.client_sends_over(client.transport, client.address, &request) {
        Outcome::Answer(bytes) => assert_eq!(common::Answer(bytes).code(), 401),
        other => panic!("{other:?}"),
    }
    assert!(relay.take_peer_outputs().is_empty());
}
