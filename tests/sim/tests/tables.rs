//! Links come and go and leave nothing.

use std::time::Duration;

use turnpike_sim::{Conditions, ORDERS, STOCK, Tables, World};

const SECOND: Duration = Duration::from_secs(1);

/// Until all that ends by time has: channels last ten minutes, and are swept away after.
const LONG: Duration = Duration::from_secs(15 * 60);

fn baseline(world: &mut World) -> Tables {
    world.run(LONG);
    let tables = world.tables();
    assert_eq!((tables.sidecar_links, tables.gate_links), (0, 0));
    tables
}

#[test]
fn two_hundred_links_leave_all_tables_as_they_were() {
    let mut world = World::with_idle_timeout(1, 2 * SECOND).settled();
    let before = baseline(&mut world);
    for n in 0..200 {
        let service = if n % 2 == 0 { &ORDERS } else { &STOCK };
        let ping = world.ping(service);
        assert!(
            world.run_until(2 * SECOND, |world| world.reference.is_replied(ping)),
            "link {n}"
        );
        assert!(
            world.run_until(3 * SECOND, |world| world.open_at_sidecar().is_empty()),
            "link {n} ends"
        );
    }
    assert_eq!(
        (world.opened_at_sidecar(), world.opened_at_gate()),
        (200, 200)
    );
    world.run(SECOND);
    let after = world.tables();
    assert_eq!(
        (after.sidecar_links, after.gate_links, after.gateway_links),
        (0, 0, 0)
    );
    assert_eq!(
        (after.nat_links, after.clients, after.held_peers),
        (0, 0, 0)
    );
    assert_eq!(baseline(&mut world), before);
}

#[test]
fn links_of_a_rough_network_leave_all_tables_as_they_were() {
    for seed in 1..=3 {
        let mut world = World::with_idle_timeout(seed, 2 * SECOND).settled();
        let before = baseline(&mut world);
        world.conditions = Conditions::ROUGH;
        for _ in 0..15 {
            world.ping(&ORDERS);
            world.run(4 * SECOND);
        }
        assert!(
            world.opened_at_sidecar() >= 5,
            "seed {seed}: {:?}",
            world.notices
        );
        world.conditions = Conditions::CALM;
        assert_eq!(baseline(&mut world), before, "seed {seed}");
    }
}

#[test]
fn links_that_a_restart_cut_off_leave_all_tables_as_they_were() {
    for seed in 1..=3 {
        let mut world = World::with_idle_timeout(seed, 5 * SECOND).settled();
        let before = baseline(&mut world);
        for n in 0..11 {
            assert!(
                world.until_served(&ORDERS, 15 * SECOND).is_some(),
                "seed {seed}, restart {n}"
            );
            match n % 3 {
                0 => world.restart_sidecar(4_000 + n),
                1 => {
                    world.stop_relay();
                    world.start_relay();
                }
                _ => world.start_gate(),
            }
            world.run(Duration::from_millis(seed * 731));
        }
        assert_eq!(baseline(&mut world), before, "seed {seed}");
    }
}
