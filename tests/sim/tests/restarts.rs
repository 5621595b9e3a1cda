//! Anybody is killed and starts again; nobody else is touched.

use std::time::Duration;

use turnpike_sim::{ORDERS, World};

const SECOND: Duration = Duration::from_secs(1);
/// From the moment it is back.
const BACK: Duration = Duration::from_secs(15);

fn with_a_link(seed: u64) -> (World, u64) {
    let mut world = World::ready(seed);
    assert!(
        world.until_served(&ORDERS, 2 * SECOND).is_some(),
        "seed {seed}"
    );
    world.run(Duration::from_millis(seed * 137));
    let open = world.open_at_sidecar();
    assert_eq!(open.len(), 1, "seed {seed}");
    (world, open[0])
}

/// Serves again, and nothing is left of the link from before.
fn recovers(world: &mut World, stale: u64, what: &str) {
    let served = world.until_served(&ORDERS, BACK);
    assert!(
        served.is_some(),
        "{what}: not within {BACK:?}: {:?}",
        world.notices
    );
    world.run(BACK.saturating_sub(served.unwrap_or_default()));
    for (side, open) in [
        ("sidecar", world.open_at_sidecar()),
        ("activator", world.open_at_gate()),
    ] {
        assert!(
            !open.contains(&stale),
            "{what}: the {side} still has the stale link"
        );
        assert_eq!(
            open.len(),
            1,
            "{what}: the {side} has one link: {:?}",
            world.notices
        );
    }
    let tables = world.tables();
    assert_eq!(
        (tables.sidecar_links, tables.gate_links),
        (1, 1),
        "{what}: {tables:?}"
    );
    assert_eq!(
        (tables.gateway_links, tables.nat_links),
        (1, 1),
        "{what}: {tables:?}"
    );
    let ping = world.ping(&ORDERS);
    world.run(SECOND);
    assert!(world.reference.is_replied(ping), "{what}: and it stays so");
}

#[test]
fn the_relay_restarts_and_the_same_link_goes_on_over_another_relayed_address() {
    for seed in 1..=6 {
        let (mut world, link) = with_a_link(seed);
        world.stop_relay();
        world.run(Duration::from_millis(300 * (seed - 1)));
        world.start_relay();
        let served = world.until_served(&ORDERS, 3 * SECOND);
        assert!(served.is_some(), "seed {seed}: {:?}", world.notices);
        world.run(BACK);
        assert_eq!(world.open_at_sidecar(), [link], "seed {seed}");
        assert_eq!(world.open_at_gate(), [link], "seed {seed}");
        assert!(world.closed_at_gate().is_empty(), "seed {seed}");
        assert_eq!(world.direct_at_gate(), 0, "seed {seed}");
    }
}

#[test]
fn the_relay_is_away_for_a_minute() {
    for seed in 1..=3 {
        let (mut world, stale) = with_a_link(seed);
        world.stop_relay();
        for _ in 0..60 {
            world.ping(&ORDERS);
            world.run(SECOND);
        }
        assert!(
            world.open_at_sidecar().is_empty(),
            "seed {seed}: nobody thinks that there is a way"
        );
        assert!(
            world.open_at_gate().is_empty(),
            "seed {seed}: nobody thinks that there is a way"
        );
        world.start_relay();
        recovers(&mut world, stale, &format!("seed {seed}"));
    }
}

#[test]
fn the_activator_restarts_and_the_next_request_is_served() {
    for seed in 1..=6 {
        let (mut world, stale) = with_a_link(seed);
        world.stop_gate();
        world.run(Duration::from_millis(700 * (seed - 1)));
        world.start_gate();
        recovers(&mut world, stale, &format!("seed {seed}"));
    }
}

#[test]
fn the_sidecar_restarts_and_the_next_request_is_served() {
    for seed in 1..=6 {
        let (mut world, stale) = with_a_link(seed);
        // On the same port as before, or on another: to the activator these are two different stories.
        world.restart_sidecar(4_000 + (seed % 2) as u16);
        recovers(&mut world, stale, &format!("seed {seed}"));
    }
}

#[test]
fn the_sidecar_restarts_while_its_link_is_being_opened() {
    for seed in 1..=6 {
        let mut world = World::ready(seed);
        world.ping(&ORDERS);
        world.run(Duration::from_millis(seed * 30));
        world.restart_sidecar(4_000);
        let served = world.until_served(&ORDERS, BACK);
        assert!(served.is_some(), "seed {seed}: {:?}", world.notices);
    }
}

#[test]
fn relay_and_activator_restart_together() {
    for seed in 1..=4 {
        let (mut world, stale) = with_a_link(seed);
        world.stop_relay();
        world.stop_gate();
        world.run(Duration::from_millis(400 * seed));
        world.start_gate();
        world.run(Duration::from_millis(300 * seed));
        world.start_relay();
        recovers(&mut world, stale, &format!("seed {seed}"));
    }
}

#[test]
fn a_relay_drains_beside_another_one_and_nothing_is_lost() {
    for seed in 1..=6 {
        let mut world = World::with_two_relays(seed);
        assert!(world.until_served(&ORDERS, 2 * SECOND).is_some());
        let link = world.open_at_sidecar();
        let used = usize::from(world.relayed_by(1) > world.relayed_by(0));
        world.drain_relay_at(used);
        for tenth in 0..250 {
            let ping = world.ping(&ORDERS);
            world.run(SECOND / 10);
            let replied = world.reference.is_replied(ping);
            assert!(replied, "seed {seed}, {tenth}/10 s: {:?}", world.notices);
            if tenth == 100 {
                assert_eq!(world.allocations_at(used), 0, "given back, seed {seed}");
            }
        }
        assert_eq!(world.open_at_sidecar(), link, "seed {seed}");
        assert!(world.closed_at_gate().is_empty(), "seed {seed}");
        world.start_relay_at(used);
        world.run(6 * SECOND);
        assert_eq!(world.allocations_at(used), 1, "and is used again");
    }
}

#[test]
fn the_only_relay_drains_and_carries_until_its_end() {
    let (mut world, _) = with_a_link(1);
    world.drain_relay_at(0);
    for tenth in 0..195 {
        let ping = world.ping(&ORDERS);
        world.run(SECOND / 10);
        let replied = world.reference.is_replied(ping);
        assert!(replied, "{tenth}/10 s: {:?}", world.notices);
    }
    world.run(2 * SECOND);
    world.start_relay();
    assert!(world.until_served(&ORDERS, BACK).is_some());
}
