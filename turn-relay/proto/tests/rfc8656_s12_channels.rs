//! RFC 8656 section 12: ChannelBind requests and ChannelData.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay, addr};
use stun_types::message::TransactionId;
use turn_relay_proto::DropReason;
use turn_types::attribute::{ChannelNumber, XorPeerAddress};
use turn_types::message::CHANNEL_BIND;

const PEER: &str = "10.0.0.5:7";

fn bound() -> (Relay, Client, std::net::SocketAddr) {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    assert_eq!(client.bind(&mut relay, 0x4001, PEER), 0);
    (relay, client, relayed)
}

#[test]
fn channel_data_goes_both_ways() {
    let (mut relay, client, relayed) = bound();
    assert_eq!(
        client.sends_channel_data(&mut relay, 0x4001, b"there"),
        Outcome::ToPeer {
            from: relayed,
            peer: addr(PEER),
            payload: b"there".to_vec(),
        }
    );
    assert_eq!(
        relay.peer_sends(PEER, relayed, b"back"),
        Outcome::ToClient {
            client: client.address,
            bytes: b"\x40\x01\x00\x04back".to_vec(),
        }
    );
    // Another port of the same host has permission, but no channel.
    let other = relay.peer_sends("10.0.0.5:8", relayed, b"x");
    assert!(matches!(other, Outcome::ToClient { bytes, .. } if bytes[0] == 0));
    let stats = relay.stats();
    assert_eq!((stats.permissions, stats.channels), (1, 1));
}

#[test]
fn padding_is_not_part_of_the_data() {
    let (mut relay, client, _) = bound();
    let padded = b"\x40\x01\x00\x05there\0\0\0";
    let sent = relay.client_sends(client.address, padded);
    assert!(matches!(sent, Outcome::ToPeer { payload, .. } if payload == b"there"));
}

#[test]
fn unbound_channels_short_messages_and_strangers_are_ignored() {
    let (mut relay, client, _) = bound();
    assert_eq!(
        client.sends_channel_data(&mut relay, 0x4002, b"x"),
        Outcome::Dropped(DropReason::UnboundChannel)
    );
    assert_eq!(
        relay.client_sends(client.address, b"\x40\x01\x00\x05shor"),
        Outcome::Dropped(DropReason::MalformedChannelData)
    );
    let stranger = Client::new("192.0.2.9:4000");
    assert_eq!(
        stranger.sends_channel_data(&mut relay, 0x4001, b"x"),
        Outcome::Dropped(DropReason::NoAllocation)
    );
}

#[test]
fn a_binding_cannot_be_changed_only_refreshed() {
    let (mut relay, mut client, _) = bound();
    assert_eq!(client.bind(&mut relay, 0x4001, "10.0.0.5:8"), 400);
    assert_eq!(client.bind(&mut relay, 0x4002, PEER), 400);
    assert_eq!(client.bind(&mut relay, 0x4001, PEER), 0);
    assert_eq!(client.bind(&mut relay, 0x4002, "10.0.0.5:8"), 0);
    assert_eq!(relay.stats().channels, 2);
}

#[test]
fn a_binding_lasts_ten_minutes_and_then_the_number_is_free() {
    let (mut relay, mut client, relayed) = bound();
    relay.pass(400);
    client.request(&mut relay, turn_types::message::REFRESH, &[]);
    relay.pass(199);
    let sent = client.sends_channel_data(&mut relay, 0x4001, b"x");
    assert!(matches!(sent, Outcome::ToPeer { .. }));
    relay.pass(1);
    assert_eq!(
        client.sends_channel_data(&mut relay, 0x4001, b"x"),
        Outcome::Dropped(DropReason::UnboundChannel)
    );
    assert_eq!(client.bind(&mut relay, 0x4001, "10.0.0.6:7"), 0);
    let back = relay.peer_sends("10.0.0.6:7", relayed, b"x");
    assert!(matches!(back, Outcome::ToClient { .. }));
}

#[test]
fn a_binding_without_permission_lets_nothing_in() {
    let (mut relay, mut client, relayed) = bound();
    relay.pass(300);
    assert_eq!(
        relay.peer_sends(PEER, relayed, b"x"),
        Outcome::Dropped(DropReason::NoPermission)
    );
    // CreatePermission is enough to open it again.
    assert_eq!(client.permit(&mut relay, &["10.0.0.5:1"]), 0);
    let back = relay.peer_sends(PEER, relayed, b"x");
    assert!(matches!(back, Outcome::ToClient { bytes, .. } if bytes[0] == 0x40));
}

#[test]
fn numbers_outside_the_range_and_missing_attributes_are_bad_requests() {
    let (mut relay, mut client, _) = bound();
    for number in [0x0000, 0x3FFF, 0x8000, 0xFFFF] {
        assert_eq!(
            client.bind(&mut relay, number, "10.0.0.6:7"),
            400,
            "{number:x}"
        );
    }
    // The last of RFC 8656, and the last of RFC 5766, whose clients are served too.
    assert_eq!(client.bind(&mut relay, 0x4FFF, "10.0.0.6:7"), 0);
    assert_eq!(client.bind(&mut relay, 0x7FFF, "10.0.0.6:8"), 0);
    let sent = client.sends_channel_data(&mut relay, 0x7FFF, b"x");
    assert!(matches!(sent, Outcome::ToPeer { .. }));
    let id = TransactionId::generate();
    client.transaction = Some(id);
    let peer = XorPeerAddress::new(addr("10.0.0.7:7"), id);
    let answer = client.request(&mut relay, CHANNEL_BIND, &[&peer]);
    assert_eq!(answer.code(), 400);
    let number = ChannelNumber::new(0x4005);
    let answer = client.request(&mut relay, CHANNEL_BIND, &[&number]);
    assert_eq!(answer.code(), 400);
}

#[test]
fn other_families_and_denied_peers_get_no_channel() {
    let (mut relay, mut client, _) = bound();
    assert_eq!(client.bind(&mut relay, 0x4002, "[fd00:10::5]:7"), 443);
    assert_eq!(client.bind(&mut relay, 0x4002, "192.168.0.1:7"), 403);
    assert_eq!(client.bind(&mut relay, 0x4002, "10.0.0.9:0"), 403);
    let stats = relay.stats();
    assert_eq!((stats.permissions, stats.channels), (1, 1));
}
