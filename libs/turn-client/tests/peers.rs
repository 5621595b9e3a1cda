//! Permissions, channels, and data both ways: RFC 8656 sections 9 to 12.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::BytesMut;
use proptest::prelude::*;
use support::*;
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};
use turnpike_turn_client::{DropReason, Event, LostReason, MAX_PEERS, Received};

const PEER: &str = "10.0.0.10:7000";

#[test]
fn data_goes_in_an_indication_until_the_channel_is_bound_and_then_in_channel_data() {
    let mut world = World::allocated();
    world.relay.swallow.insert(CHANNEL_BIND.value(), 1);
    assert!(world.permit(PEER));
    assert_eq!(world.take_events(), [Event::PeerReady(peer(PEER))]);
    assert_eq!(world.client.channel_header(peer(PEER), 5), None);
    assert!(world.send(PEER, b"early"));
    world.pass(millis(600));
    assert!(world.send(PEER, b"later"));
    assert_eq!(
        world.client.channel_header(peer(PEER), 5),
        Some([0x40, 0, 0, 5])
    );
    assert_eq!(
        world.relay.relayed_data,
        [
            (addr(PEER), b"early".to_vec(), "indication"),
            (addr(PEER), b"later".to_vec(), "channel"),
        ]
    );
}

#[test]
fn what_is_sent_before_the_permission_is_granted_follows_the_request() {
    let mut world = World::allocated();
    world.hold = true;
    world.permit(PEER);
    let requests = std::mem::take(&mut world.held);
    let answers: Vec<_> = requests
        .iter()
        .filter_map(|request| world.relay.handle(world.now, request))
        .collect();
    // The answers are still on their way.
    for n in 0..20u8 {
        assert!(world.send(PEER, &[n]));
    }
    world.hold = false;
    for answer in answers {
        world.deliver(&answer);
    }
    world.settle();
    let arrived: Vec<_> = world
        .relay
        .relayed_data
        .iter()
        .map(|(_, data, _)| data[0])
        .collect();
    assert_eq!(arrived, (0..20).collect::<Vec<u8>>());
}

#[test]
fn data_of_a_peer_is_lent_with_its_sender() {
    let mut world = World::allocated();
    world.permit("[fd00::10]:7000");
    world.permit(PEER);
    world.deliver(&channel_data(0x4001, b"by channel"));
    world.deliver(&data_indication("10.0.0.10:7777", b"from another port"));
    assert_eq!(
        world.from_peers,
        [
            (peer(PEER), b"by channel".to_vec()),
            (peer("10.0.0.10:7777"), b"from another port".to_vec()),
        ]
    );
    let datagram = channel_data(0x4000, b"payload");
    let received = world.client.handle_datagram(world.now, &datagram);
    let Received::FromPeer { payload, .. } = received else {
        panic!()
    };
    assert!(std::ptr::eq(payload, &datagram[4..]), "not copied");
}

#[test]
fn another_port_of_a_permitted_address_can_be_answered() {
    let mut world = World::allocated();
    world.permit(PEER);
    assert!(world.send("10.0.0.10:7777", b"answer"));
    assert!(!world.send("10.0.0.11:7777", b"stranger"));
    assert_eq!(world.relay.relayed_data.len(), 1);
}

#[test]
fn permissions_and_channels_are_refreshed_well_before_they_end() {
    let mut world = World::allocated();
    world.permit(PEER);
    world.permit("[fd00::10]:7000");
    world.relay.log.clear();
    world.pass(seconds(3_600));
    // Every 200 to 220 s and every 400 to 420 s, for two peers.
    let permissions = world.relay.count(CREATE_PERMISSION);
    let channels = world.relay.count(CHANNEL_BIND);
    assert!((32..=36).contains(&permissions), "{permissions}");
    assert!((16..=18).contains(&channels), "{channels}");
    assert!(world.send(PEER, b"still"));
}

#[test]
fn a_released_peer_is_refreshed_no_more() {
    let mut world = World::allocated();
    world.permit(PEER);
    world.permit("10.0.0.10:8000");
    world.client.release_peer(peer(PEER));
    assert!(world.send("10.0.0.10:8000", b"the other one stays"));
    world.deliver(&channel_data(0x4000, b"late"));
    assert!(world.from_peers.is_empty());
    world.client.release_peer(peer("10.0.0.10:8000"));
    world.client.release_peer(peer("10.0.0.10:8000"));
    assert_eq!(world.client.peers(), 0);
    world.relay.log.clear();
    world.pass(seconds(3_600));
    assert_eq!(
        world.relay.count(CREATE_PERMISSION) + world.relay.count(CHANNEL_BIND),
        0
    );
    assert!(!world.send(PEER, b"gone"));
}

#[test]
fn a_peer_that_comes_back_has_its_number_again_and_no_other_peer_gets_it_meanwhile() {
    let mut world = World::allocated();
    world.permit(PEER);
    world.client.release_peer(peer(PEER));
    world.permit("10.0.0.11:7000");
    world.permit(PEER);
    assert_eq!(
        world.client.channel_header(peer(PEER), 0),
        Some([0x40, 0, 0, 0])
    );
    assert_eq!(
        world.client.channel_header(peer("10.0.0.11:7000"), 0),
        Some([0x40, 1, 0, 0])
    );
    // The scripted relay would have answered 400 to a number that is another peer's.
    assert_eq!(world.relay.channels.len(), 2);
}

#[test]
fn there_are_4096_peers_and_numbers_are_used_again_only_when_the_relay_forgot_them() {
    let mut world = World::allocated();
    let name = |n: usize| format!("10.1.{}.{}:7000", n / 256, n % 256);
    for n in 0..MAX_PEERS {
        assert!(world.permit(&name(n)));
    }
    assert!(!world.permit(&name(MAX_PEERS)));
    world.client.release_peer(peer(&name(5)));
    assert!(
        !world.permit(&name(MAX_PEERS)),
        "the relay may hold the binding for 600 s"
    );
    world.pass(seconds(901));
    world.relay.channels.remove(&0x4005);
    assert!(world.permit(&name(MAX_PEERS)));
    assert_eq!(
        world.client.channel_header(peer(&name(MAX_PEERS)), 1),
        Some([0x40, 5, 0, 1])
    );
    assert_eq!(world.client.stats().not_permitted, 2);
}

#[test]
fn a_forbidden_peer_is_counted_and_tried_again_later() {
    let mut world = World::allocated();
    world.relay.errors = vec![(CREATE_PERMISSION, 403), (CHANNEL_BIND, 403)];
    world.permit(PEER);
    assert_eq!(world.take_events(), []);
    assert_eq!(world.client.stats().forbidden, 1);
    world.pass(seconds(61));
    assert_eq!(world.take_events(), [Event::PeerReady(peer(PEER))]);
}

#[test]
fn a_channel_that_cannot_be_bound_leaves_the_indications() {
    let mut world = World::allocated();
    world.relay.errors = vec![(CHANNEL_BIND, 508)];
    world.permit(PEER);
    assert!(world.send(PEER, b"anyway"));
    assert_eq!(world.relay.relayed_data[0].2, "indication");
    world.pass(seconds(61));
    assert!(world.send(PEER, b"bound"));
    assert_eq!(world.relay.relayed_data[1].2, "channel");
}

#[test]
fn a_peer_that_survived_an_outage_and_is_not_used_is_released() {
    let mut world = World::allocated();
    world.permit(PEER);
    world.permit("10.0.0.11:7000");
    world.relay.up = false;
    world.pass(seconds(8));
    world.relay.up = true;
    world.pass(seconds(3));
    assert_eq!(world.client.peers(), 2);
    for _ in 0..30 {
        assert!(world.send(PEER, b"used"));
        world.pass(seconds(30));
    }
    assert_eq!(world.client.peers(), 1);
    assert!(world.send(PEER, b"used"));
}

#[test]
fn a_mismatch_of_any_request_means_that_the_relay_forgot_us() {
    for method in [CREATE_PERMISSION, CHANNEL_BIND, REFRESH] {
        let mut world = World::allocated();
        world.relay.errors = vec![(method, 437)];
        world.permit(PEER);
        world.pass(seconds(3));
        let mut events = world.take_events();
        events.retain(|event| !matches!(event, Event::PeerReady(_)));
        let expected = World::lost(LostReason::Mismatch);
        assert!(
            matches!(&events[..], [lost, Event::Allocated { .. }] if *lost == expected),
            "{method} {events:?}"
        );
        // The same relayed address came back, so the peer is still let through.
        assert!(world.send(PEER, b"still"));
    }
}

#[test]
fn forged_answers_are_dropped() {
    let mut world = World::allocated();
    world.hold = true;
    world.permit(PEER);
    let request = world.held[0].clone();
    // A success that is not signed, and one that is signed with another password.
    world.relay.unsigned_answers = true;
    let unsigned = world.relay.handle(world.now, &request).unwrap();
    let dropped = world.client.handle_datagram(world.now, &unsigned);
    assert_eq!(dropped, Received::Dropped(DropReason::NotAuthentic));
    world.relay.unsigned_answers = false;
    let mut answer = world.relay.handle(world.now, &request).unwrap();
    let last = answer.len() - 1;
    answer[last] ^= 1;
    let dropped = world.client.handle_datagram(world.now, &answer);
    assert_eq!(dropped, Received::Dropped(DropReason::NotAuthentic));
    answer[last] ^= 1;
    assert_eq!(
        world.client.handle_datagram(world.now, &answer),
        Received::Handled
    );
    let again = world.client.handle_datagram(world.now, &answer);
    assert_eq!(again, Received::Dropped(DropReason::UnknownTransaction));
}

#[test]
fn a_challenge_without_the_algorithms_that_its_nonce_announces_is_a_forgery() {
    let mut world = World::new(Relay {
        up: false,
        ..Relay::default()
    });
    let relay = Relay {
        modern: true,
        ..Relay::default()
    };
    let mut scratch = World::new(Relay {
        up: false,
        ..Relay::default()
    });
    // The request of a client with the same seed, so the same transaction.
    world.pass(millis(500));
    scratch.hold = true;
    scratch.pass(millis(500));
    let request = scratch.held[0].clone();
    let mut weakened = Relay {
        nonce: "obMatJos2gAAAx".to_owned(),
        ..Relay::default()
    };
    let forged = weakened.handle(world.now, &request).unwrap();
    let dropped = world.client.handle_datagram(world.now, &forged);
    assert_eq!(dropped, Received::Dropped(DropReason::NotAuthentic));
    world.relay = relay;
    world.pass(seconds(4));
    assert_eq!(world.relay.count(ALLOCATE), 1);
}

#[test]
fn what_is_not_for_us_is_dropped_and_counted() {
    let mut world = World::allocated();
    let mut drop = |bytes: &[u8]| match world.client.handle_datagram(world.now, bytes) {
        Received::Dropped(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(drop(&[]), DropReason::Malformed);
    assert_eq!(drop(&[22, 254, 253]), DropReason::Malformed);
    assert_eq!(drop(&[0x40, 0, 0, 9, 1]), DropReason::Malformed);
    assert_eq!(
        drop(&channel_data(0x4000, b"nobody's")),
        DropReason::UnboundChannel
    );
    assert_eq!(
        drop(&channel_data(0x4fff, b"nobody's")),
        DropReason::UnboundChannel
    );
    assert_eq!(drop(&[0, 1, 0, 0]), DropReason::Malformed);
    assert_eq!(world.client.stats().dropped, 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn hostile_datagrams_never_panic(
        datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..60),
        flips in prop::collection::vec((0usize..200, any::<u8>()), 0..20),
    ) {
        let mut world = World::allocated();
        world.hold = true;
        world.permit(PEER);
        for datagram in &datagrams {
            let _ = world.client.handle_datagram(world.now, datagram);
        }
        for (at, value) in flips {
            // Real answers with a byte changed.
            let request = world.held[0].clone();
            let mut answer = world.relay.handle(world.now, &request).unwrap();
            let at = at % answer.len();
            answer[at] = value;
            let _ = world.client.handle_datagram(world.now, &answer);
        }
        world.hold = false;
        world.pass(seconds(30));
    }
}

#[test]
fn what_arrives_together_leaves_together_without_its_headers() {
    const OTHER: &str = "10.0.0.11:7000";
    let mut world = World::allocated();
    assert!(world.permit(PEER) && world.permit(OTHER));
    world.settle();
    // Three whole ones and a shorter, another peer's of the same length, nobody's, and the first peer's again.
    let mut burst = Vec::new();
    for (channel, byte, len) in [
        (0x4000, 1, 96),
        (0x4000, 2, 96),
        (0x4000, 3, 96),
        (0x4001, 4, 96),
        (0x4777, 5, 96),
        (0x4000, 6, 96),
        (0x4000, 7, 40),
    ] {
        burst.extend(channel_data(channel, &vec![byte; len]));
    }
    let mut seen = Vec::new();
    let dropped = world.client.stats().dropped;
    let whole = BytesMut::from(&burst[..]);
    world
        .client
        .handle_datagrams(world.now, whole, 100, |from, payload, segment| {
            let firsts: Vec<_> = payload
                .chunks(segment)
                .map(|datagram| datagram[0])
                .collect();
            seen.push((from, payload.len(), segment, firsts));
        });
    assert_eq!(
        seen,
        [
            (peer(PEER), 3 * 96, 96, vec![1, 2, 3]),
            (peer(OTHER), 96, 96, vec![4]),
            (peer(PEER), 96 + 40, 96, vec![6, 7]),
        ]
    );
    assert_eq!(world.client.stats().dropped, dropped + 1);
    assert_eq!(world.client.channel(peer(PEER), 3), Some(0x4000));
}
