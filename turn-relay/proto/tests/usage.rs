//! What is told about finished allocations, and about users.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Relay, Setup};
use std::time::Duration;
use turn_relay_proto::{EndReason, Extensions, Traffic, UserUsage};
use turn_types::attribute::Lifetime;
use turn_types::message::REFRESH;

fn setup() -> Setup {
    Setup {
        extensions: Extensions {
            usage: true,
            ..Extensions::default()
        },
        ..Setup::default()
    }
}

fn traffic(packets: u64, bytes: u64) -> Traffic {
    Traffic { packets, bytes }
}

#[test]
fn a_finished_allocation_says_who_what_how_much_how_long_and_why() {
    let mut relay = Relay::with(setup());
    let mut alice = Client::new("192.0.2.1:4000");
    let relayed = alice.allocate(&mut relay);
    alice.bind(&mut relay, 0x4001, "10.0.0.5:9000");
    alice.permit(&mut relay, &["10.0.0.6:1", "10.0.0.5:7"]);
    for length in [10, 20, 30] {
        alice.sends_channel_data(&mut relay, 0x4001, &vec![0; length]);
    }
    alice.sends_indication(&mut relay, "10.0.0.6:1", b"four");
    relay.peer_sends("10.0.0.5:9000", relayed, b"and back");
    relay.peer_sends("10.0.0.77:9000", relayed, b"dropped");
    relay.pass(100);
    alice.request(&mut relay, REFRESH, &[&Lifetime::new(0)]);
    let ended = relay.ended.pop().unwrap();
    assert_eq!(
        (&*ended.user.name, ended.reason),
        ("alice", EndReason::Deleted)
    );
    assert_eq!(ended.relayed, [relayed]);
    assert_eq!(ended.lasted, Duration::from_secs(100));
    assert_eq!(ended.total.to_peer, traffic(4, 64));
    assert_eq!(ended.total.to_client, traffic(1, 8));
    assert_eq!(ended.peers, 2);
    assert_eq!(ended.untold.usage, ended.total);
    assert!(relay.ended.is_empty());
}

#[test]
fn nothing_is_told_twice_and_nothing_is_forgotten_not_even_by_a_successor() {
    let mut relay = Relay::with(setup());
    let mut clients: Vec<_> = (0..3)
        .map(|n| Client::new(&format!("192.0.2.1:{}", 4_000 + n)))
        .collect();
    clients[2] = Client::named("192.0.2.1:4002", "bob", "builder");
    for client in &mut clients {
        client.allocate(&mut relay);
        client.bind(&mut relay, 0x4001, "10.0.0.5:9000");
    }
    let mut told: std::collections::BTreeMap<Box<str>, UserUsage> = Default::default();
    let mut sent = 0;
    for round in 0..10 {
        for client in &clients {
            client.sends_channel_data(&mut relay, 0x4001, b"ten bytes!");
        }
        sent += 1;
        relay.pass(10);
        if round % 3 == 0 {
            for (user, did) in relay.server.take_usage(relay.now.instant) {
                told.entry(user.name).or_default().add(did);
            }
        }
        if round == 4 {
            let exported = relay.server.export(relay.now.instant);
            let mut new = Relay::with(setup());
            let imported = new
                .server
                .import(&exported.state, new.now.instant, |_| true)
                .unwrap();
            for adopted in imported.relays {
                new.open.insert(adopted.address, adopted.relay);
            }
            relay = new;
        }
    }
    clients[0].request(&mut relay, REFRESH, &[&Lifetime::new(0)]);
    relay.server.tell_stopped(relay.now.instant);
    while let Some(output) = relay.server.poll_output() {
        let turn_relay_proto::Output::Ended(ended) = output else {
            panic!("{output:?}");
        };
        relay.ended.push(*ended);
    }
    assert_eq!(relay.ended.len(), 3);
    for ended in &relay.ended {
        assert_eq!(ended.total.to_peer, traffic(sent, sent * 10));
        assert_eq!(ended.lasted, Duration::from_secs(100));
        told.entry(ended.user.name.clone())
            .or_default()
            .add(ended.untold);
    }
    let of = |user: &str| (told[user].usage.to_peer, told[user].held.as_secs());
    assert_eq!(of("alice"), (traffic(2 * sent, 20 * sent), 200));
    assert_eq!(of("bob"), (traffic(sent, 10 * sent), 100));
}

#[test]
fn why_it_ended_is_told() {
    let mut relay = Relay::with(setup());
    Client::new("192.0.2.1:4000").allocate(&mut relay);
    relay.pass(600);
    assert_eq!(relay.ended.pop().unwrap().reason, EndReason::Expired);
    // Nobody asked.
    let mut relay = Relay::new();
    Client::new("192.0.2.1:4000").allocate(&mut relay);
    relay.pass(600);
    assert!(relay.ended.is_empty());
}
