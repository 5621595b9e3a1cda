//! Allocations told apart by address: unique relayed addresses (RFC 8656 section 5) on one port per shard.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay, Setup};
use std::collections::BTreeSet;
use turn_types::attribute::EvenPort;

fn setup() -> Setup {
    Setup {
        networks: vec!["10.0.64.0/28", "fd00:10:1::/64"],
        allow: vec!["10.0.0.0/16"],
        ..Setup::default()
    }
}

#[test]
fn every_address_of_the_network_is_given_out_once_and_not_the_first_and_last() {
    let mut shards = Relay::shards(2, setup());
    let mut seen = BTreeSet::new();
    for number in 0..14 {
        let mut client = Client::new(&format!("192.0.2.1:{}", 5000 + number));
        let relayed = client.allocate(&mut shards[number % 2]);
        assert_eq!(relayed.port(), [50_000, 50_002][number % 2]);
        assert!(seen.insert(relayed.ip().to_string()), "{relayed} twice");
    }
    assert!(
        !seen.contains("10.0.64.0") && !seen.contains("10.0.64.15"),
        "{seen:?}"
    );
    let mut client = Client::new("192.0.2.1:6000");
    assert_eq!(client.try_allocate(&mut shards[0], &[]).code(), 508);
}

#[test]
fn an_even_port_can_be_had_and_the_next_one_cannot_be_reserved() {
    let mut relay = Relay::with(setup());
    let mut client = Client::new("192.0.2.1:5000");
    let pair = client.try_allocate(&mut relay, &[&EvenPort::new(true)]);
    assert_eq!(pair.code(), 508);
    let even = client.try_allocate(&mut relay, &[&EvenPort::new(false)]);
    assert_eq!((even.code(), even.relayed()[0].port()), (0, 50_000));
}

#[test]
fn the_short_cut_is_open_between_addresses_of_the_networks() {
    let mut relay = Relay::with(setup());
    let mut ann = Client::new("192.0.2.1:5000");
    let mut bob = Client::new("192.0.2.2:6000");
    let (a, b) = (ann.allocate(&mut relay), bob.allocate(&mut relay));
    assert_eq!(ann.bind(&mut relay, 0x4000, &b.to_string()), 0);
    assert_eq!(bob.bind(&mut relay, 0x4001, &a.to_string()), 0);
    let sent = ann.sends_channel_data(&mut relay, 0x4000, b"x");
    assert!(matches!(sent, Outcome::ToClient { client, .. } if client == bob.address));
}
