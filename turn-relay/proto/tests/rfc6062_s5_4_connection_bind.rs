//! RFC 6062 sections 5.4 and 5.5: ConnectionBind requests, and the end of connections.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use common::{Client, Relay, Setup};
use tcp::{allocate, bind, client, connect, connected};
use turn_relay_proto::{Output, Transport};
use turn_types::message::CONNECTION_BIND;

#[test]
fn the_connection_that_binds_is_joined_once() {
    let mut relay = Relay::new();
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut relay);
    let number = connected(&mut control, &mut relay, "10.0.0.5:80");
    let mut data = client("192.0.2.1:4001", 2);
    assert_eq!(bind(&mut data, &mut relay, number), 0);
    match relay.take_peer_outputs()[..] {
        [
            Output::Join {
                path, connection, ..
            },
        ] => {
            assert_eq!((path.client.0, connection.number()), (data.address, number));
            assert_eq!(path.transport, data.transport);
        }
        ref other => panic!("{other:?}"),
    }
    assert_eq!(relay.stats().peer_connections_bound, 1);
    let mut again = client("192.0.2.1:4002", 3);
    assert_eq!(bind(&mut again, &mut relay, number), 400);
    // It has all the time of the world now.
    relay.pass(60);
    assert!(relay.take_peer_outputs().is_empty());
}

#[test]
fn on_any_shard_of_the_process() {
    let mut shards = Relay::shards(2, Setup::default());
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut shards[0]);
    let number = connected(&mut control, &mut shards[0], "10.0.0.5:80");
    let mut data = client("192.0.2.1:4001", 1);
    assert_eq!(bind(&mut data, &mut shards[1], number), 0);
    assert_eq!(shards[1].take_peer_outputs().len(), 1);
}

#[test]
fn what_is_not_there_or_not_ready_cannot_be_bound() {
    let mut relay = Relay::new();
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut relay);
    let mut data = client("192.0.2.1:4001", 2);
    let (_, connection) = connect(&mut control, &mut relay, "10.0.0.5:80");
    assert_eq!(bind(&mut data, &mut relay, connection.number()), 400);
    assert_eq!(bind(&mut data, &mut relay, connection.number() ^ 1), 400);
    let missing = data.request(&mut relay, CONNECTION_BIND, &[]);
    assert_eq!(missing.code(), 400);
    assert!(relay.take_peer_outputs().is_empty());
}

#[test]
fn only_the_user_of_the_allocation_binds() {
    let mut relay = Relay::new();
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut relay);
    let number = connected(&mut control, &mut relay, "10.0.0.5:80");
    let mut bob = Client::named("192.0.2.1:4001", "bob", "builder");
    bob.transport = client("192.0.2.1:4001", 2).transport;
    assert_eq!(bind(&mut bob, &mut relay, number), 441);
    // It still waits for whom it belongs to.
    let mut data = client("192.0.2.1:4002", 3);
    assert_eq!(bind(&mut data, &mut relay, number), 0);
}

#[test]
fn neither_datagrams_nor_a_control_connection_can_be_joined() {
    let mut relay = Relay::new();
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut relay);
    let number = connected(&mut control, &mut relay, "10.0.0.5:80");
    let mut datagrams = Client::new("192.0.2.1:4001");
    assert_eq!(datagrams.transport, Transport::Udp);
    assert_eq!(bind(&mut datagrams, &mut relay, number), 400);
    assert_eq!(bind(&mut control, &mut relay, number), 400);
}

#[test]
fn everything_ends_with_the_allocation() {
    for way in 0..3 {
        let mut relay = Relay::new();
        let mut control = client("192.0.2.1:4000", 1);
        let relayed = allocate(&mut control, &mut relay);
        control.permit(&mut relay, &["10.0.0.5:9"]);
        let bound = connected(&mut control, &mut relay, "10.0.0.5:80");
        let mut data = client("192.0.2.1:4001", 2);
        assert_eq!(bind(&mut data, &mut relay, bound), 0);
        relay.take_peer_outputs();
        let (_, coming) = connect(&mut control, &mut relay, "10.0.0.5:81");
        let waiting = relay.peer_connects("10.0.0.5:4444", relayed).unwrap();
        relay.take_answers();
        relay.take_peer_outputs();
        match way {
            0 => relay.client_disconnects(control.transport, control.address),
            1 => {
                let zero = turn_types::attribute::Lifetime::new(0);
                let refresh = turn_types::message::REFRESH;
                assert_eq!(control.request(&mut relay, refresh, &[&zero]).code(), 0);
            }
            _ => relay.pass(600),
        }
        let mut closed: Vec<u32> = relay
            .take_peer_outputs()
            .into_iter()
            .map(|output| match output {
                Output::ClosePeer { connection } => connection.number(),
                other => panic!("{other:?}"),
            })
            .collect();
        closed.sort_unstable();
        let mut all = vec![bound, coming.number(), waiting.number()];
        all.sort_unstable();
        assert_eq!(closed, all);
        assert_eq!(relay.server.peer_connections(), 0);
    }
}
