//! Discovery is gone for a while.

use std::time::Duration;

use turnpike_sim::{ORDERS, World};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn open_links_keep_working_while_signaling_is_away_for_a_minute() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        assert!(world.until_served(&ORDERS, 2 * SECOND).is_some());
        world.stop_signaling();
        let mut pings = Vec::new();
        for _ in 0..60 {
            pings.push(world.ping(&ORDERS));
            world.run(SECOND);
        }
        for ping in pings {
            assert!(world.reference.is_replied(ping), "seed {seed}: ping {ping}");
        }
        world.start_signaling();
        world.run(5 * SECOND);
        assert_eq!(
            world.opened_at_sidecar(),
            1,
            "seed {seed}: the link of before: {:?}",
            world.notices
        );
    }
}

#[test]
fn new_links_come_as_soon_as_signaling_is_back() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        world.stop_signaling();
        for _ in 0..60 {
            world.ping(&ORDERS);
            world.run(SECOND);
        }
        assert_eq!(
            world.reference.counts().1,
            0,
            "seed {seed}: no link without signaling"
        );
        world.start_signaling();
        let served = world.until_served(&ORDERS, 4 * SECOND);
        assert!(served.is_some(), "seed {seed}: {:?}", world.notices.last());
    }
}

#[test]
fn a_link_finds_its_relay_again_without_signaling() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        assert!(world.until_served(&ORDERS, 2 * SECOND).is_some());
        world.stop_signaling();
        world.stop_relay();
        world.start_relay();
        let served = world.until_served(&ORDERS, 3 * SECOND);
        assert!(served.is_some(), "seed {seed}: {:?}", world.notices);
    }
}

#[test]
fn a_link_that_ends_while_signaling_is_away_comes_back_with_it() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        assert!(world.until_served(&ORDERS, 2 * SECOND).is_some());
        world.stop_signaling();
        world.stop_relay();
        for _ in 0..10 {
            world.ping(&ORDERS);
            world.run(SECOND);
        }
        world.start_relay();
        for _ in 0..60 {
            world.ping(&ORDERS);
            world.run(SECOND);
        }
        assert!(
            world.open_at_sidecar().is_empty(),
            "seed {seed}: its relay forgot it"
        );
        assert!(
            world.has_foothold(),
            "seed {seed}: the allocation needs no signaling"
        );
        world.start_signaling();
        let served = world.until_served(&ORDERS, 4 * SECOND);
        assert!(served.is_some(), "seed {seed}: {:?}", world.notices.last());
    }
}

#[test]
fn an_activator_that_starts_while_signaling_is_away_is_there_as_soon_as_it_is_back() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        assert!(world.until_served(&ORDERS, 2 * SECOND).is_some());
        world.stop_signaling();
        world.start_gate();
        world.run(30 * SECOND);
        assert!(!world.has_foothold(), "seed {seed}: it has no credential");
        world.start_signaling();
        let served = world.until_served(&ORDERS, 15 * SECOND);
        assert!(served.is_some(), "seed {seed}: {:?}", world.notices.last());
    }
}
