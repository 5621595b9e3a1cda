//! RFC 8656 section 8.2: Refresh requests, and section 5: the end of an allocation.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay};
use std::time::Duration;
use turn_relay_proto::DropReason;
use turn_types::AddressFamily;
use turn_types::attribute::{AdditionalAddressFamily, Lifetime, RequestedAddressFamily};
use turn_types::message::REFRESH;

fn refresh(client: &mut Client, relay: &mut Relay, seconds: u32) -> (u16, u32) {
    let answer = client.request(relay, REFRESH, &[&Lifetime::new(seconds)]);
    let lifetime = answer.get::<Lifetime>().map_or(0, |l| l.seconds());
    (answer.code(), lifetime)
}

#[test]
fn an_allocation_ends_when_its_lifetime_does_and_not_before() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    relay.pass(599);
    assert_eq!(relay.stats().allocations, 1);
    relay.pass(1);
    assert_eq!(relay.stats().allocations, 0);
    assert_eq!(relay.stats().allocations_expired, 1);
    assert!(relay.open.is_empty());
    assert_eq!(refresh(&mut client, &mut relay, 600), (437, 0));
}

#[test]
fn a_refreshed_allocation_lives_on() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    for _ in 0..5 {
        relay.pass(500);
        client.nonce = None;
        assert_eq!(refresh(&mut client, &mut relay, 100), (0, 600));
    }
    relay.pass(600);
    assert_eq!(relay.stats().allocations, 0);
}

#[test]
fn a_lifetime_can_be_cut_short() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.try_allocate(&mut relay, &[&Lifetime::new(3_600)]);
    assert_eq!(refresh(&mut client, &mut relay, 700), (0, 700));
    relay.pass(699);
    assert_eq!(relay.stats().allocations, 1);
    relay.pass(1);
    assert_eq!(relay.stats().allocations, 0);
    // The first timer still runs out one day, and finds nothing.
    relay.pass(3_600);
    assert_eq!(relay.stats().allocations_expired, 1);
}

#[test]
fn a_drain_leaves_an_allocation_what_is_left_of_it() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    let ends = relay.now.instant + Duration::from_secs(30);
    relay.server.set_draining(Some(ends));
    assert_eq!(refresh(&mut client, &mut relay, 600), (0, 30));
    relay.pass(20);
    assert_eq!(refresh(&mut client, &mut relay, 3_600), (0, 10));
    // Never 0, which would say that it was deleted.
    relay.pass(9);
    assert_eq!(refresh(&mut client, &mut relay, 600), (0, 1));
    relay.server.set_draining(None);
    assert_eq!(refresh(&mut client, &mut relay, 600), (0, 600));
    relay.server.set_draining(Some(relay.now.instant));
    assert_eq!(refresh(&mut client, &mut relay, 600), (0, 1));
    assert_eq!(refresh(&mut client, &mut relay, 0), (0, 0));
    assert_eq!(relay.stats().allocations, 0);
}

#[test]
fn a_drain_longer_than_a_lifetime_shortens_none_at_first() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    let ends = relay.now.instant + Duration::from_secs(1_000);
    relay.server.set_draining(Some(ends));
    assert_eq!(refresh(&mut client, &mut relay, 600), (0, 600));
    relay.pass(401);
    assert_eq!(refresh(&mut client, &mut relay, 600), (0, 599));
}

#[test]
fn many_changes_of_lifetime_leave_few_timers() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.allocate(&mut relay);
    for _ in 0..1_000 {
        refresh(&mut client, &mut relay, 3_600);
        refresh(&mut client, &mut relay, 600);
    }
    let mut turns = 0;
    while let Some(next) = relay.server.poll_timeout() {
        turns += 1;
        relay.server.handle_timeout(next);
        assert!(turns < 100);
    }
    assert_eq!(relay.stats().allocations, 0);
}

#[test]
fn a_lifetime_of_zero_ends_it_at_once() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let relayed = client.allocate(&mut relay);
    assert_eq!(client.bind(&mut relay, 0x4000, "10.0.0.5:7"), 0);
    assert_eq!(refresh(&mut client, &mut relay, 0), (0, 0));
    assert!(relay.open.is_empty());
    let stats = relay.stats();
    assert_eq!(
        (stats.allocations, stats.permissions, stats.channels),
        (0, 0, 0)
    );
    assert_eq!(stats.allocations_deleted, 1);
    // A retransmission finds nothing: the client knows that it is done (section 8.3).
    assert_eq!(refresh(&mut client, &mut relay, 0), (437, 0));
    assert_eq!(
        client.sends_channel_data(&mut relay, 0x4000, b"x"),
        Outcome::Dropped(DropReason::NoAllocation)
    );
    // The five-tuple and the port are free again.
    assert_ne!(client.allocate(&mut relay), relayed);
}

#[test]
fn without_allocation_437_and_with_someone_elses_441() {
    let mut relay = Relay::new();
    let mut bob = Client::named("192.0.2.1:4000", "bob", "builder");
    assert_eq!(refresh(&mut bob, &mut relay, 600).0, 437);
    Client::new("192.0.2.1:4000").allocate(&mut relay);
    assert_eq!(refresh(&mut bob, &mut relay, 0).0, 441);
    assert_eq!(bob.permit(&mut relay, &["10.0.0.5:7"]), 441);
    assert_eq!(bob.bind(&mut relay, 0x4000, "10.0.0.5:7"), 441);
    assert_eq!(relay.stats().allocations, 1);
}

#[test]
fn one_family_can_be_refreshed_or_ended_alone() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let both = AdditionalAddressFamily::new(AddressFamily::IPV6);
    client.try_allocate(&mut relay, &[&both]);
    relay.pass(300);
    let v6 = RequestedAddressFamily::new(AddressFamily::IPV6);
    let lifetime = Lifetime::new(900);
    let answer = client.request(&mut relay, REFRESH, &[&v6, &lifetime]);
    assert_eq!(answer.code(), 0);
    relay.pass(300);
    assert_eq!(relay.stats().allocations, 1);
    assert_eq!(relay.open.len(), 1);
    let v4 = RequestedAddressFamily::new(AddressFamily::IPV4);
    let answer = client.request(&mut relay, REFRESH, &[&v4, &lifetime]);
    assert_eq!(answer.code(), 443);
    let answer = client.request(&mut relay, REFRESH, &[&v6, &Lifetime::new(0)]);
    assert_eq!(answer.code(), 0);
    assert_eq!(relay.stats().allocations, 0);
    assert!(relay.open.is_empty());
}

#[test]
fn a_slot_that_is_used_again_is_not_the_old_allocation() {
    let mut relay = Relay::new();
    let mut first = Client::new("192.0.2.1:4000");
    let relayed = first.allocate(&mut relay);
    let old = relay.open[&relayed];
    refresh(&mut first, &mut relay, 0);
    let mut second = Client::new("192.0.2.1:4001");
    let relayed = second.allocate(&mut relay);
    assert_eq!(second.permit(&mut relay, &["10.0.0.5:7"]), 0);
    let new = relay.open[&relayed];
    assert_eq!(old.slot(), new.slot());
    relay.open.insert(common::addr("10.0.0.2:1"), old);
    assert_eq!(
        relay.peer_sends("10.0.0.5:7", common::addr("10.0.0.2:1"), b"late"),
        Outcome::Dropped(DropReason::RelayClosed)
    );
}
