//! Packets there and back, each compared byte by byte with what the reference model says (the world does that itself).

use std::time::Duration;

use turnpike_sim::{Conditions, ORDERS, STOCK, Service, Transport, World};

const SECOND: Duration = Duration::from_secs(1);

fn ping() -> Transport {
    Transport::Echo {
        reply: false,
        identifier: 77,
    }
}

fn udp(port: u16) -> Transport {
    Transport::Udp {
        source: 40_000,
        destination: port,
    }
}

/// One of each kind that `service` takes over this family.
fn kinds(service: &Service) -> Vec<Transport> {
    let mut kinds = vec![
        ping(),
        Transport::syn(50_000, service.tcp),
        Transport::data(50_000, service.tcp),
    ];
    if service.udp != 0 {
        kinds.push(udp(service.udp));
    }
    kinds
}

#[test]
fn a_packet_arrives_rewritten_as_the_model_says_and_its_reply_comes_back() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        for length in [0, 1, 512, 1_300, 8_000] {
            let payload = vec![seed as u8; length];
            let mut sent = Vec::new();
            for (service, ipv6) in [(&ORDERS, false), (&ORDERS, true), (&STOCK, false)] {
                for transport in kinds(service) {
                    sent.push(world.send(service, ipv6, transport, &payload));
                }
            }
            world.run(3 * SECOND);
            for number in sent {
                assert!(
                    world.reference.is_replied(number),
                    "seed {seed}: packet {number} of {length}"
                );
            }
        }
        assert_eq!(
            world.opened_at_sidecar(),
            1,
            "seed {seed}: one link carries all"
        );
        assert_eq!(
            world.direct_at_gate(),
            0,
            "there is no way but over the relay"
        );
    }
}

#[test]
fn the_first_packet_opens_the_link_and_is_not_lost() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        let first = world.ping(&ORDERS);
        assert!(
            world.run_until(2 * SECOND, |world| world.reference.is_replied(first)),
            "seed {seed}"
        );
        let opening = world.reference.round_trip(first).expect("a reply");
        // A round trip crosses two legs of 10 ms there and back. Six of them: the offer and its answer (25 ms each way),
        // half a one for the first check, three for DTLS, and this packet's own; the data channels are not waited for.
        let bound = 6 * Duration::from_millis(40) + Duration::from_millis(30);
        assert!(opening <= bound, "seed {seed}: it took {opening:?}");
        let second = world.ping(&ORDERS);
        world.run(SECOND);
        let trip = world.reference.round_trip(second).expect("a reply");
        assert!(
            trip <= Duration::from_millis(40),
            "seed {seed}: it took {trip:?}"
        );
    }
}

#[test]
fn a_name_that_was_asked_for_has_its_link_before_the_first_packet() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        world.ask(&ORDERS);
        world.run(2 * SECOND);
        assert_eq!(world.open_at_sidecar().len(), 1, "seed {seed}");
        assert_eq!(world.open_at_sidecar(), world.open_at_gate());
        assert_eq!(world.reference.counts(), (0, 0, 0));
    }
}

#[test]
fn a_link_stands_for_half_an_hour_and_longer_than_permissions_and_channels_last() {
    for seed in 1..=2 {
        let mut world = World::ready(seed);
        let mut sent = Vec::new();
        for _ in 0..60 {
            sent.push(world.ping(&ORDERS));
            world.run(30 * SECOND);
        }
        for number in sent {
            assert!(
                world.reference.is_replied(number),
                "seed {seed}: packet {number}"
            );
        }
        assert_eq!(
            world.opened_at_sidecar(),
            1,
            "seed {seed}: {:?}",
            world.notices
        );
    }
}

#[test]
fn on_a_rough_network_every_frame_arrives_at_most_once_and_intact() {
    let (mut all_sent, mut all_arrived) = (0, 0);
    for seed in 1..=12 {
        let mut world = World::ready(seed);
        world.conditions = Conditions::ROUGH;
        let mut sent = 0;
        for n in 0..100_usize {
            let (service, ipv6) = [(&ORDERS, false), (&ORDERS, true), (&STOCK, false)][n % 3];
            let kinds = kinds(service);
            let payload = vec![n as u8; n * 29 % 2_000];
            world.send(service, ipv6, kinds[n % kinds.len()].clone(), &payload);
            sent += 1;
            world.run(Duration::from_millis(100));
        }
        // The reference panics at anything that is not intact, or comes twice. Most should come, though: see below.
        let (_, arrived, replied) = world.reference.counts();
        assert!(replied <= arrived);
        all_sent += sent;
        all_arrived += arrived;
        world.conditions = Conditions::CALM;
        let served = world.until_served(&ORDERS, 15 * SECOND);
        assert!(
            served.is_some(),
            "seed {seed}: nothing gets through after the loss: {:?}",
            world.notices
        );
        world.run(5 * SECOND);
        let mut numbers = Vec::new();
        for transport in kinds(&ORDERS) {
            numbers.push(world.send(&ORDERS, true, transport, b"after"));
        }
        world.run(2 * SECOND);
        for number in numbers {
            assert!(
                world.reference.is_replied(number),
                "seed {seed}: packet {number} after the loss"
            );
        }
    }
    assert!(
        all_arrived > all_sent / 2,
        "{all_arrived} of {all_sent} arrived"
    );
}

#[test]
fn a_network_that_is_dead_for_a_while_is_used_again_when_it_is_back() {
    for (seed, away) in [(1, 2), (2, 5), (3, 8), (4, 20), (5, 60)] {
        let mut world = World::ready(seed);
        assert!(world.until_served(&ORDERS, 2 * SECOND).is_some());
        world.conditions = Conditions::DEAD;
        for _ in 0..away {
            world.ping(&ORDERS);
            world.run(SECOND);
        }
        world.conditions = Conditions::CALM;
        let served = world.until_served(&ORDERS, 15 * SECOND);
        assert!(served.is_some(), "dead for {away} s: {:?}", world.notices);
    }
}

#[test]
fn a_router_that_forgets_its_mappings_costs_no_more_than_a_restart_of_the_relay() {
    for seed in 1..=4 {
        let mut world = World::ready(seed);
        assert!(world.until_served(&ORDERS, 2 * SECOND).is_some());
        world.forget_nat();
        let served = world.until_served(&ORDERS, 15 * SECOND);
        assert!(served.is_some(), "seed {seed}: {:?}", world.notices);
    }
}

/// How many of 200 links needed more than one attempt to open with this share of datagrams lost on each leg.
fn failed_attempts(loss: u64) -> (u64, Vec<String>) {
    let (mut failed, mut reasons) = (0, Vec::new());
    for seed in 1..=200 {
        let mut world = World::ready(seed);
        world.conditions = Conditions {
            loss,
            ..Conditions::CALM
        };
        assert!(
            world.until_served(&ORDERS, 60 * SECOND).is_some(),
            "seed {seed}"
        );
        let closed = world.closed_at_gate();
        failed += u64::from(!closed.is_empty());
        reasons.extend(closed);
    }
    (failed, reasons)
}

#[test]
fn an_answer_to_init_that_is_lost_does_not_keep_a_link_from_opening() {
    let (_, reasons) = failed_attempts(5);
    let late = reasons
        .iter()
        .filter(|reason| reason.contains("did not open in time"))
        .count();
    assert!(late <= 2, "{late} of 200: {reasons:?}");
}

#[test]
fn a_flight_of_dtls_that_is_lost_does_not_keep_a_link_from_opening() {
    let (failed, reasons) = failed_attempts(1);
    assert_eq!(failed, 0, "of 200: {reasons:?}");
    let (failed, reasons) = failed_attempts(5);
    assert!(failed <= 2, "{failed} of 200: {reasons:?}");
}
