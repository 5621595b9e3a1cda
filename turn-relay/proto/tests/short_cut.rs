//! Two clients of one relay, each with a channel to the other's relayed address: packets go from client to client.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay, Setup};
use std::net::SocketAddr;

fn data(number: u16, payload: &[u8]) -> Vec<u8> {
    let header = wire::channel_data::header(number, payload.len() as u16);
    [&header[..], payload].concat()
}

/// Two clients, each on its own shard (which may be the same), and their relayed addresses.
fn two(shards: &mut [Relay]) -> ([Client; 2], [SocketAddr; 2]) {
    let last = shards.len() - 1;
    let mut ann = Client::new("192.0.2.1:5000");
    let mut bob = Client::named("192.0.2.2:6000", "bob", "builder");
    let relayed = [
        ann.allocate(&mut shards[0]),
        bob.allocate(&mut shards[last]),
    ];
    ([ann, bob], relayed)
}

fn bound(shards: &mut [Relay]) -> ([Client; 2], [SocketAddr; 2]) {
    let last = shards.len() - 1;
    let (mut clients, relayed) = two(shards);
    let [ann, bob] = &mut clients;
    assert_eq!(ann.bind(&mut shards[0], 0x4000, &relayed[1].to_string()), 0);
    assert_eq!(
        bob.bind(&mut shards[last], 0x4abc, &relayed[0].to_string()),
        0
    );
    (clients, relayed)
}

#[test]
fn a_packet_goes_from_client_to_client_on_one_shard_and_across_two() {
    for count in [1, 2] {
        let mut shards = Relay::shards(count, Setup::default());
        let ([ann, bob], _) = bound(&mut shards);
        let to_bob = shards[0].client_sends(ann.address, &data(0x4000, b"hello"));
        let expected = Outcome::ToClient {
            client: bob.address,
            bytes: data(0x4abc, b"hello"),
        };
        assert_eq!(to_bob, expected);
        let last = &mut shards[count - 1];
        let to_ann = last.client_sends(bob.address, &data(0x4abc, b""));
        let expected = Outcome::ToClient {
            client: ann.address,
            bytes: data(0x4000, b""),
        };
        assert_eq!(to_ann, expected);
        // Counted where it enters one allocation, and where it leaves the other.
        let sum = |of: fn(&turn_relay_proto::Stats) -> u64| -> u64 {
            shards.iter().map(|shard| of(shard.stats())).sum()
        };
        assert_eq!(sum(|s| s.to_peer.packets), 2);
        assert_eq!(sum(|s| s.to_client.bytes), 5);
    }
}

#[test]
fn without_a_channel_on_the_other_side_the_kernel_has_the_packet() {
    let mut shards = Relay::shards(2, Setup::default());
    let ([mut ann, bob], relayed) = two(&mut shards);
    ann.bind(&mut shards[0], 0x4000, &relayed[1].to_string());
    let sent = shards[0].client_sends(ann.address, &data(0x4000, b"x"));
    let to_peer = Outcome::ToPeer {
        from: relayed[0],
        peer: relayed[1],
        payload: b"x".to_vec(),
    };
    assert_eq!(sent, to_peer);
    // And a channel to somewhere else on this relay is none to here.
    let mut bob = bob;
    let other = SocketAddr::new(relayed[0].ip(), relayed[0].port() ^ 1);
    bob.bind(&mut shards[1], 0x4001, &other.to_string());
    let sent = shards[0].client_sends(ann.address, &data(0x4000, b"x"));
    assert_eq!(sent, to_peer);
}

#[test]
fn the_short_cut_closes_with_the_permission_and_opens_again_with_it() {
    let mut shards = Relay::shards(2, Setup::default());
    let ([mut ann, mut bob], relayed) = bound(&mut shards);
    for shard in &mut shards {
        shard.pass(301);
    }
    ann.bind(&mut shards[0], 0x4000, &relayed[1].to_string());
    let sent = shards[0].client_sends(ann.address, &data(0x4000, b"x"));
    assert!(matches!(sent, Outcome::ToPeer { .. }), "{sent:?}");
    // The channel still stands: a permission is enough.
    assert_eq!(bob.permit(&mut shards[1], &[&relayed[0].to_string()]), 0);
    let sent = shards[0].client_sends(ann.address, &data(0x4000, b"x"));
    assert!(matches!(sent, Outcome::ToClient { .. }), "{sent:?}");
}

#[test]
fn the_short_cut_closes_when_the_other_allocation_ends() {
    for count in [1, 2] {
        let mut shards = Relay::shards(count, Setup::default());
        let ([ann, mut bob], _) = bound(&mut shards);
        let lifetime = turn_types::attribute::Lifetime::new(0);
        let refresh = turn_types::message::REFRESH;
        let answer = bob.request(&mut shards[count - 1], refresh, &[&lifetime]);
        assert_eq!(answer.code(), 0);
        let sent = shards[0].client_sends(ann.address, &data(0x4000, b"x"));
        assert!(matches!(sent, Outcome::ToPeer { .. }), "{sent:?}");
    }
}

#[test]
fn the_short_cut_can_be_switched_off() {
    let setup = Setup {
        short_cut: false,
        ..Setup::default()
    };
    let mut shards = Relay::shards(1, setup);
    let ([ann, _], _) = bound(&mut shards);
    let sent = shards[0].client_sends(ann.address, &data(0x4000, b"x"));
    assert!(matches!(sent, Outcome::ToPeer { .. }), "{sent:?}");
}

#[test]
fn behind_a_one_to_one_nat_both_spellings_of_an_address_are_known() {
    let setup = || Setup {
        advertised: vec!["10.0.0.77", "fd00:10::2"],
        ..Setup::default()
    };
    let mut shards = Relay::shards(1, setup());
    let ([ann, bob], relayed) = bound(&mut shards);
    assert!(relayed[0].ip().to_string() == "10.0.0.77");
    let sent = shards[0].client_sends(ann.address, &data(0x4000, b"x"));
    let expected = Outcome::ToClient {
        client: bob.address,
        bytes: data(0x4abc, b"x"),
    };
    assert_eq!(sent, expected);
}
