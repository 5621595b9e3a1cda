//! What the relay knows, and what it counts.

use std::time::Duration;

use turnpike_sim::{Conditions, ORDERS, Transport, World};

const SECOND: Duration = Duration::from_secs(1);
const MARKER: &[u8] = b"the workload's secret 4711";

#[test]
fn the_relay_sees_only_ciphertext() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        world.watch_for(MARKER);
        let payload = MARKER.repeat(20);
        for n in 0..40_u64 {
            let transport = match n % 3 {
                0 => Transport::data(50_000, ORDERS.tcp),
                1 => Transport::Udp {
                    source: 50_000,
                    destination: ORDERS.udp,
                },
                _ => Transport::Echo {
                    reply: false,
                    identifier: 3,
                },
            };
            world.send(&ORDERS, n % 2 == 0, transport, &payload);
            world.run(SECOND / 10);
        }
        world.run(2 * SECOND);
        assert_eq!(world.reference.counts(), (40, 40, 40), "seed {seed}");
        let (seen, inspected) = world.seen_at_relay();
        assert_eq!(seen, 0, "seed {seed}: of {inspected} datagrams");
        assert!(
            inspected > 160,
            "seed {seed}: there was something to see: {inspected}"
        );
        // The watch is awake.
        world.send_to_relay(&[b"in the clear: ", MARKER].concat());
        world.run(SECOND);
        assert_eq!(world.seen_at_relay().0, 1);
    }
}

#[test]
fn what_the_relay_counts_is_what_was_delivered_through_it() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        for n in 0..50 {
            let udp = Transport::Udp {
                source: 50_000,
                destination: ORDERS.udp,
            };
            world.send(&ORDERS, n % 2 == 0, udp, &vec![n as u8; n * 97]);
            world.run(SECOND / 20);
        }
        world.run(2 * SECOND);
        assert_eq!(world.reference.counts(), (50, 50, 50), "seed {seed}");
        assert!(world.run_until(2 * SECOND, World::is_quiet), "seed {seed}");
        let [to_peer, to_client] = world.relayed();
        assert_eq!(
            to_peer, world.from_relay,
            "seed {seed}: what reached the sidecar"
        );
        assert_eq!(
            to_client,
            world.data_at_gate(),
            "seed {seed}: what reached the activator"
        );
        // All payloads went both ways, in ciphertext and with headers.
        let least: u64 = (0..50).map(|n| n * 97 + 8).sum();
        assert!(
            to_peer.bytes > least && to_client.bytes > least,
            "seed {seed}"
        );
    }
}

#[test]
fn on_a_rough_network_the_relay_counts_what_left_it() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        world.conditions = Conditions::ROUGH;
        for _ in 0..50 {
            world.ping(&ORDERS);
            world.run(SECOND / 10);
        }
        assert_eq!(world.relayed()[0], world.relay_sent_inside(), "seed {seed}");
        assert!(world.relay_sent_inside().packets > 20, "seed {seed}");
    }
}
