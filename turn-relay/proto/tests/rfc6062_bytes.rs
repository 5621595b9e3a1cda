//! The bytes of TCP to peers (RFC 6062): what they are limited by, and that they are recorded.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use common::{Client, Outcome, Relay, Setup};
use std::time::Duration;
use tcp::{allocate, bind, client, connected};
use turn_relay_proto::{
    Direction, EndReason, Extensions, JoinedMeter, Output, RelayLimits, UsageLimits,
};
use turn_types::attribute::Lifetime;
use turn_types::message::REFRESH;

const PEER: &str = "10.0.0.9:7000";

fn relay() -> Relay {
    Relay::with(Setup {
        extensions: Extensions {
            usage: true,
            ..Extensions::default()
        },
        short_cut: false,
        ..Setup::default()
    })
}

/// A joined connection of this client's allocation.
fn joined(relay: &mut Relay, control: &mut Client, peer: &str, data: u32) -> JoinedMeter {
    let number = connected(control, relay, peer);
    let mut second = client("192.0.2.1:4999", data);
    second.user = control.user.clone();
    second.password = control.password.clone();
    assert_eq!(bind(&mut second, relay, number), 0);
    match &relay.take_peer_outputs()[..] {
        [Output::Join { meter, .. }] => meter.clone(),
        other => panic!("{other:?}"),
    }
}

/// What a stream carries in a second that has more than it may.
fn carried(relay: &mut Relay, meter: &JoinedMeter, direction: Direction) -> usize {
    let mut sum = 0;
    for _ in 0..100 {
        relay.now.instant += Duration::from_millis(10);
        let room = meter.room(direction, relay.now.instant).min(1 << 20);
        meter.carried(direction, room, relay.now.instant);
        sum += room;
    }
    sum
}

fn near(bytes: usize, of: usize) -> bool {
    bytes * 10 >= of * 9 && bytes * 10 <= of * 11
}

#[test]
fn without_limits_there_is_room_for_anything() {
    let mut relay = relay();
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut relay);
    let meter = joined(&mut relay, &mut control, PEER, 2);
    meter.carried(Direction::ToPeer, 1 << 30, relay.now.instant);
    assert_eq!(meter.room(Direction::ToPeer, relay.now.instant), usize::MAX);
}

#[test]
fn the_users_the_realms_and_the_relays_bandwidth_hold_in_each_direction() {
    let mut relay = relay();
    let shared = relay.config.shared.clone();
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut relay);
    let meters = [
        joined(&mut relay, &mut control, PEER, 2),
        joined(&mut relay, &mut control, "10.0.0.10:7000", 3),
    ];
    let none = UsageLimits::default();
    let settings = [
        (500_000, 0, 0),
        (0, 500_000, 0),
        (0, 0, 500_000),
        (500_000, 2_000_000, 1_000_000),
    ];
    for (user_rate, total_rate, rate) in settings {
        shared.set_limits(UsageLimits {
            user_rate,
            total_rate,
            ..none
        });
        shared.set_relay_limits(RelayLimits {
            rate,
            ..RelayLimits::default()
        });
        for direction in [Direction::ToPeer, Direction::ToClient] {
            // The bucket's depth.
            carried(&mut relay, &meters[0], direction);
            let sum = carried(&mut relay, &meters[0], direction);
            assert!(near(sum, 500_000), "{user_rate} {total_rate} {rate}: {sum}");
            // Another connection of the same user has nothing of its own.
            assert!(meters[1].room(direction, relay.now.instant) < 6_000);
        }
    }
}

#[test]
fn packets_and_streams_pay_into_one_bucket() {
    let mut relay = relay();
    relay.config.shared.set_limits(UsageLimits {
        user_rate: 100_000,
        ..UsageLimits::default()
    });
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut relay);
    let meter = joined(&mut relay, &mut control, PEER, 2);
    let mut packets = Client::new("192.0.2.1:4001");
    packets.allocate(&mut relay);
    assert_eq!(packets.bind(&mut relay, 0x4001, "10.0.0.11:7"), 0);
    let sends = |relay: &mut Relay| packets.sends_channel_data(relay, 0x4001, &[0; 1_000]);
    assert!(matches!(sends(&mut relay), Outcome::ToPeer { .. }));
    meter.carried(Direction::ToPeer, 200_000, relay.now.instant);
    assert!(matches!(sends(&mut relay), Outcome::Dropped(_)));
    // Whose is the other direction, and somebody else's, is another.
    assert!(meter.room(Direction::ToClient, relay.now.instant) > 60_000);
    let mut other = Client::named("192.0.2.1:4002", "bob", "builder");
    other.allocate(&mut relay);
    assert_eq!(other.bind(&mut relay, 0x4001, "10.0.0.11:7"), 0);
    let sent = other.sends_channel_data(&mut relay, 0x4001, &[0; 1_000]);
    assert!(matches!(sent, Outcome::ToPeer { .. }));
}

#[test]
fn users_share_a_saturated_realm_evenly_whether_they_send_packets_or_streams() {
    let mut relay = relay();
    relay.config.shared.set_limits(UsageLimits {
        total_rate: 1_000_000,
        ..UsageLimits::default()
    });
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut relay);
    let meter = joined(&mut relay, &mut control, PEER, 2);
    let mut bob = Client::named("192.0.2.1:4001", "bob", "builder");
    bob.allocate(&mut relay);
    assert_eq!(bob.bind(&mut relay, 0x4001, "10.0.0.11:7"), 0);
    let (mut stream, mut packets) = (0, 0);
    for millisecond in 0..6_000 {
        relay.now.instant += Duration::from_millis(1);
        for _ in 0..3 {
            let sent = bob.sends_channel_data(&mut relay, 0x4001, &[0; 1_000]);
            let passed = matches!(sent, Outcome::ToPeer { .. });
            packets += usize::from(passed && millisecond >= 3_000) * 1_000;
        }
        let now = relay.now.instant;
        let room = meter.room(Direction::ToPeer, now).min(3_000);
        meter.carried(Direction::ToPeer, room, now);
        stream += if millisecond >= 3_000 { room } else { 0 };
    }
    let half = 1_500_000;
    assert!(near(stream + packets, 2 * half), "{stream} {packets}");
    assert!(
        stream * 10 > half * 8 && packets * 10 > half * 8,
        "{stream} {packets}"
    );
}

#[test]
fn what_was_carried_is_told_once_and_at_the_end() {
    let mut relay = relay();
    let mut control = client("192.0.2.1:4000", 1);
    allocate(&mut control, &mut relay);
    let now = relay.now.instant;
    let first = joined(&mut relay, &mut control, PEER, 2);
    let second = joined(&mut relay, &mut control, "10.0.0.10:7000", 3);
    first.carried(Direction::ToPeer, 1_000, now);
    second.carried(Direction::ToPeer, 10, now);
    second.carried(Direction::ToClient, 7, now);
    let told = relay.server.take_usage(now);
    let usage = told[0].1.usage;
    assert_eq!((usage.to_peer.bytes, usage.to_client.bytes), (1_010, 7));
    // Of a stream nobody can say how many packets it is.
    assert_eq!(usage.to_peer.packets, 0);
    first.carried(Direction::ToPeer, 5, now);
    assert_eq!(relay.server.take_usage(now)[0].1.usage.to_peer.bytes, 5);
    first.carried(Direction::ToPeer, 2, now);
    control.request(&mut relay, REFRESH, &[&Lifetime::new(0)]);
    let ended = relay.ended.pop().unwrap();
    assert_eq!(ended.reason, EndReason::Deleted);
    assert_eq!(ended.total.to_peer.bytes, 1_017);
    assert_eq!(ended.untold.usage.to_peer.bytes, 2);
    assert_eq!(relay.config.shared.realms()[0].joined.to_peer.bytes, 1_017);
}
