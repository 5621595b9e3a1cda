//! RFC 8656 sections 9 and 10: permissions and CreatePermission requests.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay, Setup};
use turn_relay_proto::{DropReason, Limits};
use turn_types::message::CREATE_PERMISSION;

const NO_PERMISSION: Outcome = Outcome::Dropped(DropReason::NoPermission);

#[test]
fn nobody_sends_without_permission() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    assert_eq!(relay.peer_sends("10.0.0.5:7", relayed, b"x"), NO_PERMISSION);
    assert_eq!(
        client.sends_indication(&mut relay, "10.0.0.5:7", b"x"),
        NO_PERMISSION
    );
    assert_eq!(relay.stats().dropped(DropReason::NoPermission), 2);
}

#[test]
fn a_permission_is_for_an_address_whatever_the_port() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    assert_eq!(client.permit(&mut relay, &["10.0.0.5:7"]), 0);
    assert!(matches!(
        relay.peer_sends("10.0.0.5:99", relayed, b"x"),
        Outcome::ToClient { .. }
    ));
    assert_eq!(relay.peer_sends("10.0.0.6:7", relayed, b"x"), NO_PERMISSION);
}

#[test]
fn a_permission_lasts_five_minutes_unless_it_is_refreshed() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    client.permit(&mut relay, &["10.0.0.5:7"]);
    relay.pass(200);
    client.permit(&mut relay, &["10.0.0.5:7"]);
    relay.pass(299);
    assert!(matches!(
        relay.peer_sends("10.0.0.5:7", relayed, b"x"),
        Outcome::ToClient { .. }
    ));
    relay.pass(1);
    assert_eq!(relay.peer_sends("10.0.0.5:7", relayed, b"x"), NO_PERMISSION);
    relay.pass(60);
    assert_eq!(relay.stats().permissions, 0);
}

#[test]
fn sending_does_not_refresh_a_permission() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    client.permit(&mut relay, &["10.0.0.5:7"]);
    for _ in 0..2 {
        relay.pass(149);
        let sent = client.sends_indication(&mut relay, "10.0.0.5:7", b"x");
        assert!(matches!(sent, Outcome::ToPeer { .. }));
    }
    relay.pass(2);
    assert_eq!(
        client.sends_indication(&mut relay, "10.0.0.5:7", b"x"),
        NO_PERMISSION
    );
}

#[test]
fn several_addresses_get_permission_at_once_or_none() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    assert_eq!(
        client.permit(&mut relay, &["10.0.0.5:7", "10.0.0.6:7", "10.0.0.6:8"]),
        0
    );
    assert_eq!(relay.stats().permissions, 2);
    assert_eq!(
        client.permit(&mut relay, &["10.0.0.7:7", "192.168.1.1:7"]),
        403
    );
    assert_eq!(relay.stats().permissions, 2);
}

#[test]
fn no_peer_is_a_bad_request_and_another_family_443() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    assert_eq!(client.permit(&mut relay, &["10.0.0.5:7"]), 437);
    client.allocate(&mut relay);
    let answer = client.request(&mut relay, CREATE_PERMISSION, &[]);
    assert_eq!(answer.code(), 400);
    assert_eq!(client.permit(&mut relay, &["[fd00:10::5]:7"]), 443);
}

#[test]
fn permissions_are_bounded_and_expired_ones_make_room() {
    let mut relay = Relay::with(Setup {
        limits: Limits {
            permissions: 2,
            ..Limits::default()
        },
        ..Setup::default()
    });
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    assert_eq!(client.permit(&mut relay, &["10.0.0.5:7"]), 0);
    relay.pass(270);
    assert_eq!(client.permit(&mut relay, &["10.0.0.6:7"]), 0);
    assert_eq!(client.permit(&mut relay, &["10.0.0.7:7"]), 508);
    assert_eq!(client.bind(&mut relay, 0x4000, "10.0.0.7:7"), 508);
    assert_eq!(relay.stats().channels, 0);
    assert_eq!(client.permit(&mut relay, &["10.0.0.6:7"]), 0);
    relay.pass(31);
    assert_eq!(client.permit(&mut relay, &["10.0.0.7:7"]), 0);
    assert_eq!(relay.stats().permissions, 2);
}
