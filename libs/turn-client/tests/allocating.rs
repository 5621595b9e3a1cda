//! Getting an allocation and keeping it: RFC 8656 sections 7 and 8, RFC 8489 sections 6.2.1 and 9.2.
#![allow(clippy::unwrap_used)]

mod support;

use stun_types::message::Method;
use support::*;
use turn_types::message::{ALLOCATE, CREATE_PERMISSION, REFRESH};
use turnpike_turn_client::{Event, Families, LostReason, State};

#[test]
fn a_challenge_is_answered_and_both_families_are_allocated() {
    let world = World::new(Relay::default());
    let Event::Allocated { relayed, mapped } = &world.events[0].1 else {
        panic!()
    };
    let relayed: Vec<_> = relayed.iter().map(|r| r.0).collect();
    assert_eq!(
        relayed,
        [addr("10.0.0.2:50000"), addr("[fd00:10::2]:50000")]
    );
    assert_eq!(mapped.0, addr(MAPPED));
    assert_eq!(
        (world.relay.count(ALLOCATE), world.client.state()),
        (1, State::Allocated)
    );
}

#[test]
fn a_relay_with_password_algorithms_is_answered_with_sha256() {
    let world = World::new(Relay {
        modern: true,
        ..Relay::default()
    });
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn a_relay_with_ipv4_only_gives_what_it_has() {
    let relayed = vec![addr("10.0.0.2:50000")];
    let mut world = World::new(Relay {
        relayed,
        ..Relay::default()
    });
    assert_eq!(world.client.relayed().len(), 1);
    assert!(
        !world.permit("[fd00::1]:9"),
        "a peer of the other family cannot be reached"
    );
    assert_eq!(world.client.stats().not_permitted, 1);
}

#[test]
fn one_family_can_be_asked_for() {
    let relayed = vec![addr("[fd00:10::2]:50000")];
    let world = World::with(
        Relay {
            relayed,
            ..Relay::default()
        },
        Families::V6,
    );
    assert!(world.client.relayed()[0].0.is_ipv6());
}

#[test]
fn a_silent_relay_is_asked_again_and_again_and_found_soon_after_it_comes_up() {
    let mut world = World::new(Relay {
        up: false,
        ..Relay::default()
    });
    world.pass(seconds(60));
    assert_eq!(
        world.take_events(),
        [World::lost(LostReason::Silent)],
        "said once"
    );
    let asked = world.client.stats().requests + world.client.stats().retransmissions;
    assert!((35..100).contains(&asked), "{asked} in a minute");
    world.relay.up = true;
    world.pass(millis(2_500));
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn a_lost_request_is_repeated_after_half_a_second_with_the_same_transaction() {
    let mut relay = Relay::default();
    relay.swallow.insert(ALLOCATE.value(), 1);
    let mut world = World::new(relay);
    let ids = world.relay.ids.len();
    world.pass(millis(499));
    assert!(world.events.is_empty());
    world.pass(millis(1));
    assert_eq!(world.client.state(), State::Allocated);
    assert_eq!((ids, world.client.stats().retransmissions), (1, 1));
}

#[test]
fn a_stale_nonce_is_replaced_and_nothing_is_lost() {
    let mut world = World::allocated();
    world.relay.nonce = "nonce-2".to_owned();
    world.permit("10.0.0.10:7000");
    assert_eq!(
        world.take_events(),
        [Event::PeerReady(peer("10.0.0.10:7000"))]
    );
    assert_eq!(world.relay.count(CREATE_PERMISSION), 1);
}

#[test]
fn a_relay_that_is_never_content_with_a_nonce_does_not_keep_us_busy() {
    let mut world = World::allocated();
    for n in 0..50 {
        world.relay.nonce = format!("nonce-of-{n}");
        world.client.permit(peer("10.0.0.10:7000"), world.now);
        let Some(request) = world.client.poll_transmit() else {
            break;
        };
        let answer = world.relay.handle(world.now, &request).unwrap();
        world.deliver(&answer);
    }
    assert!(
        world.client.stats().requests < 20,
        "{}",
        world.client.stats().requests
    );
}

#[test]
fn an_idle_allocation_is_probed_every_two_seconds_and_lives_for_hours() {
    let mut world = World::allocated();
    world.pass(seconds(3 * 3_600));
    assert_eq!(world.take_events(), []);
    let probes = world.relay.count(REFRESH);
    assert!((5_300..5_500).contains(&probes), "{probes}");
}

#[test]
fn a_busy_allocation_asks_every_five_seconds_how_long_it_will_last() {
    let mut world = World::allocated();
    world.permit("10.0.0.10:7000");
    world.pass_busy(seconds(3_600), &channel_data(0x4000, b"traffic"));
    let refreshes = world.relay.count(REFRESH);
    assert!((715..=720).contains(&refreshes), "{refreshes}");
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn silence_is_noticed_within_about_four_seconds() {
    let mut world = World::allocated();
    world.relay.up = false;
    let begin = world.now;
    world.pass(seconds(10));
    let (at, event) = world.events.remove(0);
    assert_eq!(event, World::lost(LostReason::Silent));
    let after = at - (begin - world.start);
    assert!(
        after >= millis(3_500) && after <= millis(4_500),
        "{after:?}"
    );
    assert_eq!(world.client.relayed(), []);
}

#[test]
fn one_lost_probe_is_not_the_end() {
    let mut world = World::allocated();
    for _ in 0..20 {
        world.relay.swallow.insert(REFRESH.value(), 2);
        world.pass(seconds(5));
    }
    assert_eq!(world.take_events(), []);
}

#[test]
fn after_a_short_outage_the_same_allocation_goes_on_with_its_peers() {
    let mut world = World::allocated();
    world.permit("10.0.0.10:7000");
    let before = world.client.relayed().to_vec();
    world.take_events();
    world.relay.up = false;
    world.pass(seconds(20));
    world.relay.up = true;
    world.pass(seconds(3));
    let events = world.take_events();
    assert!(
        matches!(&events[..], [Event::Lost { .. }, Event::Allocated { relayed, .. },
        Event::PeerReady(_)] if *relayed == before),
        "{events:?}"
    );
    assert_eq!(world.relay.count(ALLOCATE), 1);
    assert!(world.send("10.0.0.10:7000", b"again"));
}

#[test]
fn a_restarted_relay_is_noticed_at_the_next_answer_and_asked_anew_at_once() {
    let mut world = World::allocated();
    world.permit("10.0.0.10:7000");
    world.take_events();
    world.relay.restart();
    let begin = world.now;
    world.pass(seconds(5));
    let lost = &world.events[0];
    assert_eq!(lost.1, World::lost(LostReason::Mismatch));
    assert!(lost.0 - (begin - world.start) <= millis(2_100));
    assert!(matches!(world.events[1].1, Event::Allocated { .. }));
    assert_eq!(world.events[1].0, lost.0, "without a pause");
    assert_eq!(
        world.client.peers(),
        0,
        "another address: the peers are forgotten"
    );
    assert!(!world.send("10.0.0.10:7000", b"to nobody"));
}

#[test]
fn a_restart_during_an_outage_ends_in_a_new_allocation() {
    let mut world = World::allocated();
    world.relay.up = false;
    world.pass(seconds(10));
    world.relay.restart();
    world.relay.up = true;
    world.pass(seconds(3));
    assert_eq!(world.client.state(), State::Allocated);
    assert_eq!(world.relay.count(ALLOCATE), 2);
}

#[test]
fn an_allocation_that_is_in_the_way_is_deleted_first() {
    let relay = Relay {
        allocated_by: Some("alice".to_owned()),
        ..Relay::default()
    };
    let world = World::new(relay);
    assert_eq!(world.client.state(), State::Allocated);
    let asked: Vec<Method> = world.relay.log.iter().map(|(_, method)| *method).collect();
    assert_eq!(asked, [ALLOCATE, REFRESH, ALLOCATE]);
}

#[test]
fn an_allocation_of_somebody_else_in_the_way_is_reported_and_waited_for() {
    let relay = Relay {
        allocated_by: Some("bob".to_owned()),
        ..Relay::default()
    };
    let mut world = World::new(relay);
    world.pass(seconds(60));
    let events = world.take_events();
    assert_eq!(events, [World::lost(LostReason::PortTaken)]);
    assert!(LostReason::PortTaken.needs_new_port());
    assert!(world.relay.log.len() < 40, "{}", world.relay.log.len());
    world.relay.allocated_by = None;
    world.pass(seconds(6));
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn a_relay_without_capacity_is_asked_again_every_five_seconds() {
    let relay = Relay {
        errors: vec![(ALLOCATE, 508); 5],
        ..Relay::default()
    };
    let mut world = World::new(relay);
    world.pass(seconds(15));
    let events = world.take_events();
    assert!(
        matches!(
            &events[..],
            [Event::Lost {
                reason: LostReason::Refused { code: 508, .. }
            }]
        ),
        "{events:?}"
    );
    world.pass(seconds(15));
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn a_refused_credential_is_asked_for_until_another_comes() {
    let mut world = World::new(Relay {
        users: ["bob".to_owned()].into(),
        ..Relay::default()
    });
    world.pass(seconds(11));
    assert_eq!(
        world.take_events(),
        [
            World::lost(LostReason::Unauthorized),
            Event::NeedCredential,
            Event::NeedCredential,
            Event::NeedCredential
        ]
    );
    assert_eq!(world.client.state(), State::NeedCredential);
    // The same again is not tried at once.
    let requests = world.client.stats().requests;
    world.client.set_credential(credential("alice"), world.now);
    world.settle();
    assert_eq!(world.client.stats().requests, requests);
    world.client.set_credential(credential("bob"), world.now);
    world.pass(seconds(6));
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn a_new_credential_waits_until_the_allocation_ends() {
    let mut world = World::allocated();
    world.client.set_credential(credential("bob"), world.now);
    world.pass(seconds(30));
    assert_eq!(world.relay.allocated_by.as_deref(), Some("alice"));
    world.relay.restart();
    world.pass(seconds(5));
    assert_eq!(world.relay.allocated_by.as_deref(), Some("bob"));
}

#[test]
fn an_expired_credential_is_replaced_without_losing_the_allocation_if_the_relay_allows() {
    let mut world = World::allocated();
    world.relay.users.remove("alice");
    world.pass(seconds(3));
    assert_eq!(world.take_events(), [Event::NeedCredential]);
    assert_eq!(
        world.client.state(),
        State::Allocated,
        "it lives until its lifetime ends"
    );
    // This relay takes both names for one user.
    world.relay.allocated_by = Some("bob".to_owned());
    world.client.set_credential(credential("bob"), world.now);
    world.pass(seconds(60));
    assert_eq!(world.take_events(), []);
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn a_relay_that_wants_the_first_name_costs_the_allocation() {
    let mut world = World::allocated();
    world.relay.users.remove("alice");
    world.client.set_credential(credential("bob"), world.now);
    world.pass(seconds(4));
    assert_eq!(
        world.take_events(),
        [World::lost(LostReason::WrongCredential)]
    );
    assert!(LostReason::WrongCredential.needs_new_port());
}

#[test]
fn an_allocation_whose_refreshes_fail_expires() {
    let mut world = World::allocated();
    world.relay.errors = vec![(REFRESH, 500); 10_000];
    world.pass(seconds(610));
    let events = world.take_events();
    assert_eq!(events[0], World::lost(LostReason::Expired));
}

#[test]
fn closing_deletes_the_allocation_and_ends_everything() {
    let mut world = World::allocated();
    world.permit("10.0.0.10:7000");
    world.take_events();
    world.client.close(world.now);
    world.settle();
    assert_eq!(world.relay.allocated_by, None);
    assert_eq!(
        (world.client.state(), world.client.poll_timeout()),
        (State::Closed, None)
    );
    world.deliver(&channel_data(0x4000, b"late"));
    assert!(world.from_peers.is_empty() && !world.permit("10.0.0.11:7000"));
    assert_eq!(world.take_events(), []);
}

#[test]
fn a_process_that_slept_asks_before_it_gives_up() {
    let mut world = World::allocated();
    world.now += seconds(120);
    world.pass(seconds(5));
    assert_eq!(
        world.take_events(),
        [],
        "the relay answers, so nothing was lost"
    );
}
