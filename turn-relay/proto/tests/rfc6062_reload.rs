//! New settings and connections with peers (RFC 6062): those with peers that are no longer allowed end, in whichever state.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use common::{Relay, Setup};
use std::sync::Arc;
use tcp::{allocate, answered, bind, client, connect, connected, refused};
use turn_relay_proto::{Output, PeerPolicy, PeerRules, Replaced};

fn apply(relay: &mut Relay, deny: &[&str]) -> Replaced {
    let mut new = relay.config.clone();
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let policy = Arc::new(PeerPolicy::from(PeerRules {
        allow: rules(&["10.0.0.0/24"]),
        deny: rules(deny),
        ..PeerRules::default()
    }));
    common::change_realm(&mut new, |realm| realm.peer_policy = policy);
    let replaced = relay.server.replace_config(relay.now.instant, new);
    relay.drain();
    replaced
}

/// The numbers of those that the shell was told to close.
fn closed(relay: &mut Relay) -> Vec<u32> {
    let outputs = relay.take_peer_outputs().into_iter();
    let mut numbers: Vec<u32> = outputs
        .map(|output| match output {
            Output::ClosePeer { connection } => connection.number(),
            other => panic!("{other:?}"),
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn connections_with_denied_peers_end_in_every_state_and_others_stay() {
    let mut relay = Relay::new();
    let mut control = client("192.0.2.1:4000", 1);
    let relayed = allocate(&mut control, &mut relay);
    control.permit(&mut relay, &["10.0.0.5:9", "10.0.0.6:9"]);
    let stays = connected(&mut control, &mut relay, "10.0.0.6:80");
    let coming = relay.peer_connects("10.0.0.6:4444", relayed).unwrap();
    relay.take_answers();
    let bound = connected(&mut control, &mut relay, "10.0.0.5:80");
    let mut data = client("192.0.2.1:4001", 2);
    assert_eq!(bind(&mut data, &mut relay, bound), 0);
    relay.take_peer_outputs();
    let waiting = connected(&mut control, &mut relay, "10.0.0.5:81");
    let came = relay.peer_connects("10.0.0.5:4444", relayed).unwrap();
    relay.take_answers();
    relay.take_peer_outputs();
    let (id, trying) = connect(&mut control, &mut relay, "10.0.0.5:82");

    let replaced = apply(&mut relay, &["10.0.0.5/32"]);
    assert_eq!((replaced.permissions, replaced.peer_connections), (1, 4));
    let mut all = vec![bound, waiting, came.number(), trying.number()];
    all.sort_unstable();
    assert_eq!(closed(&mut relay), all);
    // Who waits for an answer gets one, and a connection that comes up meanwhile is not wanted.
    assert_eq!(answered(&control, &mut relay).code(), 403);
    assert!(!relay.connected(id, trying, true));
    assert_eq!(
        bind(&mut client("192.0.2.1:4002", 3), &mut relay, waiting),
        400
    );
    assert_eq!(relay.server.peer_connections(), 2);
    for number in [stays, coming.number()] {
        let mut data = client("192.0.2.1:4003", number);
        assert_eq!(bind(&mut data, &mut relay, number), 0);
    }
    assert_eq!(refused(&mut control, &mut relay, "10.0.0.5:80"), 403);
    assert_eq!(apply(&mut relay, &["10.0.0.5/32"]), Replaced::default());
}

#[test]
fn a_rule_for_ports_is_about_what_clients_connect_to() {
    let mut relay = Relay::with(Setup::default());
    let mut control = client("192.0.2.1:4000", 1);
    let relayed = allocate(&mut control, &mut relay);
    control.permit(&mut relay, &["10.0.0.5:9"]);
    let ssh = connected(&mut control, &mut relay, "10.0.0.5:22");
    connected(&mut control, &mut relay, "10.0.0.5:80");
    // The peer's own port, which it did not choose.
    relay.peer_connects("10.0.0.5:2222", relayed).unwrap();
    relay.take_peer_outputs();
    assert_eq!(apply(&mut relay, &["10.0.0.0/24:22"]).peer_connections, 1);
    assert_eq!(closed(&mut relay), [ssh]);
}
