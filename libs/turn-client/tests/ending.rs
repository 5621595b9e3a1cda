//! A relay that drains grants less than it did (RFC 8656 section 7.2 leaves the longest lifetime to it).
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::*;
use turn_types::message::{ALLOCATE, REFRESH};
use turnpike_turn_client::{Event, LostReason, State};

fn ending(left: u64) -> Event {
    Event::Ending {
        left: Duration::from_secs(left),
    }
}

#[test]
fn who_is_granted_less_than_before_is_told_once() {
    let mut world = World::allocated();
    world.pass(seconds(60));
    assert_eq!(world.take_events(), []);
    for lifetime in [30, 27, 24] {
        world.relay.lifetime = lifetime;
        world.pass(seconds(3));
    }
    assert_eq!(world.take_events(), [ending(30)]);
    assert_eq!(world.client.state(), State::Allocated, "it still carries");
}

#[test]
fn a_busy_one_hears_of_it_within_five_seconds() {
    let mut world = World::allocated();
    world.permit("10.0.0.10:7000");
    world.pass_busy(seconds(20), &channel_data(0x4000, b"traffic"));
    world.take_events();
    let begin = world.now - world.start;
    world.relay.lifetime = 60;
    world.pass_busy(seconds(6), &channel_data(0x4000, b"traffic"));
    let (at, event) = world.events.remove(0);
    assert_eq!(event, ending(60));
    assert!(at - begin <= seconds(5), "{:?}", at - begin);
}

#[test]
fn a_relay_that_never_grants_much_is_not_ending() {
    let relay = Relay {
        lifetime: 60,
        ..Relay::default()
    };
    let mut world = World::new(relay);
    world.take_events();
    world.pass(seconds(600));
    world.relay.lifetime = 600;
    world.pass(seconds(60));
    assert_eq!(world.take_events(), []);
}

#[test]
fn what_is_given_back_is_deleted_and_asked_for_again_later() {
    let mut world = World::allocated();
    world.relay.lifetime = 30;
    world.pass(seconds(3));
    world.client.give_back(world.now);
    world.settle();
    assert_eq!(
        world.take_events(),
        [ending(30), World::lost(LostReason::GivenBack)]
    );
    assert_eq!(world.relay.allocated_by, None);
    assert_eq!(world.client.relayed(), []);
    world.relay.errors = vec![(ALLOCATE, 508)];
    world.pass(seconds(4));
    assert_eq!(world.relay.count(ALLOCATE), 1, "not at once");
    world.pass(seconds(2));
    assert!(matches!(
        &world.take_events()[..],
        [Event::Lost {
            reason: LostReason::Refused { code: 508, .. }
        }]
    ));
    world.relay.lifetime = 600;
    world.pass(seconds(6));
    assert!(matches!(
        &world.take_events()[..],
        [Event::Allocated { .. }]
    ));
    world.pass(seconds(60));
    assert_eq!(world.take_events(), [], "the new one lasts");
}

#[test]
fn one_that_was_lost_from_sight_and_found_again_is_still_ending() {
    let mut world = World::allocated();
    world.relay.lifetime = 300;
    world.pass(seconds(3));
    assert_eq!(world.take_events(), [ending(300)]);
    world.relay.up = false;
    world.pass(seconds(20));
    world.relay.up = true;
    world.relay.lifetime = 280;
    world.pass(seconds(5));
    let events = world.take_events();
    assert!(
        matches!(&events[..], [Event::Lost { .. }, Event::Allocated { .. }, last] if *last == ending(280)),
        "{events:?}"
    );
}

#[test]
fn nothing_is_given_back_that_is_not_there() {
    let mut world = World::allocated();
    world.relay.up = false;
    world.pass(seconds(8));
    world.take_events();
    let asked = world.relay.count(REFRESH);
    world.client.give_back(world.now);
    world.settle();
    assert_eq!(
        (world.take_events(), world.relay.count(REFRESH)),
        (vec![], asked)
    );
}
