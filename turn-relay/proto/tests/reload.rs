//! New settings for a running server: who stays, who goes, and what is taken away.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, DATE, Outcome, Relay, Setup, addr, server_addr};
use model::ServerAddr;
use std::sync::Arc;
use turn_relay_proto::{
    Credentials, DropReason, Limits, PeerPolicy, Replaced, Revocations, ServerConfig, UsageLimits,
    rest_password,
};
use turn_types::attribute::Lifetime;
use turn_types::message::REFRESH;

const PEER: &str = "10.0.0.9:7000";
const OTHER: &str = "10.0.0.200:7000";

fn config(relay: &Relay) -> ServerConfig {
    relay.config.clone()
}

fn policy(allowed: &[&str]) -> Arc<PeerPolicy> {
    let allowed = allowed.iter().map(|net| net.parse().unwrap()).collect();
    Arc::new(PeerPolicy::new(allowed, &[ServerAddr(server_addr())]))
}

fn apply(relay: &mut Relay, config: ServerConfig) -> Replaced {
    let replaced = relay.server.replace_config(relay.now.instant, config);
    relay.drain();
    replaced
}

#[test]
fn allocations_live_on_and_peers_that_are_no_longer_allowed_are_taken_away() {
    let mut relay = Relay::new();
    let mut alice = Client::new("192.0.2.1:4000");
    let relayed = alice.allocate(&mut relay);
    assert_eq!(alice.bind(&mut relay, 0x4000, PEER), 0);
    assert_eq!(alice.bind(&mut relay, 0x4001, OTHER), 0);
    assert_eq!(
        alice.permit(&mut relay, &["10.0.0.201:1", "10.0.0.10:1"]),
        0
    );

    let mut new = config(&relay);
    common::change_realm(&mut new, |realm| {
        realm.peer_policy = policy(&["10.0.0.0/25"])
    });
    let replaced = apply(&mut relay, new);
    assert_eq!((replaced.permissions, replaced.channels), (2, 1));
    assert!(replaced.revoked.is_empty());
    assert_eq!((relay.stats().permissions, relay.stats().channels), (2, 1));

    let to_peer = alice.sends_channel_data(&mut relay, 0x4000, b"still");
    assert!(matches!(to_peer, Outcome::ToPeer { .. }), "{to_peer:?}");
    let gone = alice.sends_channel_data(&mut relay, 0x4001, b"gone");
    assert_eq!(gone, Outcome::Dropped(DropReason::UnboundChannel));
    let gone = alice.sends_indication(&mut relay, "10.0.0.201:1", b"gone");
    assert_eq!(gone, Outcome::Dropped(DropReason::NoPermission));
    let back = relay.peer_sends(OTHER, relayed, b"gone");
    assert_eq!(back, Outcome::Dropped(DropReason::NoPermission));
    assert_eq!(alice.bind(&mut relay, 0x4001, OTHER), 403);
    // The number is free for another peer.
    assert_eq!(alice.bind(&mut relay, 0x4001, "10.0.0.10:7000"), 0);
    assert_eq!(alice.request(&mut relay, REFRESH, &[]).code(), 0);
}

#[test]
fn a_short_cut_to_a_peer_that_is_no_longer_allowed_closes() {
    let mut relay = Relay::with(Setup {
        relay_addresses: vec!["10.0.0.2"],
        advertised: vec!["10.0.0.2"],
        ..Setup::default()
    });
    let mut alice = Client::new("192.0.2.1:4000");
    let mut bob = Client::named("192.0.2.2:4000", "bob", "builder");
    let (a, b) = (alice.allocate(&mut relay), bob.allocate(&mut relay));
    assert_eq!(alice.bind(&mut relay, 0x4000, &b.to_string()), 0);
    assert_eq!(bob.bind(&mut relay, 0x4000, &a.to_string()), 0);
    let sent = alice.sends_channel_data(&mut relay, 0x4000, b"short");
    assert!(matches!(sent, Outcome::ToClient { .. }), "{sent:?}");
    let mut new = config(&relay);
    common::change_realm(&mut new, |realm| {
        realm.peer_policy = policy(&["10.0.0.128/25"])
    });
    assert_eq!(apply(&mut relay, new).channels, 2);
    let sent = alice.sends_channel_data(&mut relay, 0x4000, b"short");
    assert_eq!(sent, Outcome::Dropped(DropReason::UnboundChannel));
}

#[test]
fn a_user_who_is_taken_out_keeps_the_allocation_and_cannot_refresh_it() {
    let mut relay = Relay::new();
    let mut alice = Client::new("192.0.2.1:4000");
    alice.allocate(&mut relay);
    let mut new = config(&relay);
    let mut credentials = Credentials::new(common::REALM);
    credentials.add_user("carol", "christmas");
    common::with_credentials(&mut new, credentials);
    apply(&mut relay, new);
    assert_eq!(relay.stats().allocations, 1);
    let answer = alice.exchange(&mut relay, &alice.signed(REFRESH, &[]));
    assert_eq!(answer.code(), 401);
    Client::named("192.0.2.3:4000", "carol", "christmas").allocate(&mut relay);
    relay.pass(600);
    assert_eq!(relay.stats().allocations_expired, 2);
}

#[test]
fn lower_limits_hold_for_what_is_new() {
    let mut relay = Relay::new();
    Client::new("192.0.2.1:4000").allocate(&mut relay);
    Client::new("192.0.2.1:4001").allocate(&mut relay);
    let mut new = config(&relay);
    new.shared.set_limits(UsageLimits {
        allocations_per_user: 1,
        ..UsageLimits::default()
    });
    new.limits = Limits {
        nonce_lifetime: std::time::Duration::from_secs(5),
        ..new.limits
    };
    apply(&mut relay, new);
    assert_eq!(relay.stats().allocations, 2);
    let mut third = Client::new("192.0.2.1:4002");
    assert_eq!(third.try_allocate(&mut relay, &[]).code(), 486);
    relay.pass(6);
    let late = third.exchange(&mut relay, &third.signed(REFRESH, &[]));
    assert_eq!(late.code(), 438);
}

#[test]
fn the_allocations_of_a_revoked_name_end_at_once_and_no_others() {
    let user = |name: &str| format!("{}:{name}", DATE.0 + 600);
    let minted = |address: &str, name: &str| {
        let password = rest_password(b"first secret", &user(name));
        Client::named(address, &user(name), &password)
    };
    let mut relay = Relay::new();
    let mut alice = Client::new("192.0.2.1:4000");
    let mut dave = minted("192.0.2.4:4000", "dave");
    let mut erin = minted("192.0.2.5:4000", "erin");
    let mut bob = Client::named("192.0.2.2:4000", "bob", "builder");
    let sockets = [&mut alice, &mut dave, &mut erin, &mut bob].map(|c| c.allocate(&mut relay));
    assert_eq!(alice.bind(&mut relay, 0x4000, PEER), 0);

    let mut new = config(&relay);
    // A user, who stands behind an expiring name, and one such name.
    let revocations = Arc::new(Revocations::new([
        "alice".into(),
        "dave".into(),
        user("erin"),
    ]));
    common::change_realm(&mut new, |realm| realm.revocations = revocations);
    let mut ended = apply(&mut relay, new.clone()).revoked;
    ended.sort();
    let ended: Vec<&str> = ended.iter().map(|user| &*user.name).collect();
    assert_eq!(ended, ["alice", "dave", "erin"]);
    assert_eq!(relay.stats().allocations_revoked, 3);
    assert_eq!((relay.stats().allocations, relay.stats().channels), (1, 0));
    assert_eq!(relay.open.keys().collect::<Vec<_>>(), [&sockets[3]]);

    for revoked in [&mut alice, &mut dave, &mut erin] {
        let request = revoked.signed(REFRESH, &[&Lifetime::new(600)]);
        assert_eq!(revoked.exchange(&mut relay, &request).code(), 401);
    }
    assert_eq!(relay.stats().revoked_requests, 3);
    let sent = alice.sends_channel_data(&mut relay, 0x4000, b"gone");
    assert_eq!(sent, Outcome::Dropped(DropReason::NoAllocation));
    // Another credential of the same name is not the revoked one.
    let renewed = format!("{}:erin", DATE.0 + 900);
    let password = rest_password(b"first secret", &renewed);
    Client::named("192.0.2.5:4000", &renewed, &password).allocate(&mut relay);
    // What a list revokes no more is good again.
    common::change_realm(&mut new, |realm| realm.revocations = Arc::default());
    assert!(apply(&mut relay, new).revoked.is_empty());
    alice.allocate(&mut relay);
    assert!(relay.open.contains_key(&addr(&sockets[3].to_string())));
}
