//! A path that takes less than an Ethernet's: what does not fit the lane goes over the data channel, whose packets must fit
//! as well.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{ANSWERER, OFFERER, World};
use protocol::document::{Bound, Control, control::Body};
use turnpike_link::LinkEvent;

const SECOND: Duration = Duration::from_secs(1);
/// UDP payload over IPv4 where the path takes 1330 bytes.
const NARROW: usize = 1330 - 28;

/// A UDP datagram to nobody in particular that may be fragmented: an IP packet of `length` bytes.
fn packet(length: usize) -> Vec<u8> {
    let mut packet = vec![0; length];
    packet[..4].copy_from_slice(&[0x45, 0, (length >> 8) as u8, length as u8]);
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..16].copy_from_slice(&[198, 18, 0, 1]);
    packet[16..20].copy_from_slice(&[198, 18, 1, 1]);
    packet[24..26].copy_from_slice(&((length - 20) as u16).to_be_bytes());
    [&wire::frame::Header::PLAIN.encode()[..], &packet].concat()
}

/// A world whose wire drops what is longer than the path takes, which can be changed.
fn world(most: usize) -> (World, Arc<AtomicUsize>) {
    let mut world = World::new(Duration::from_millis(5));
    let path = Arc::new(AtomicUsize::new(most));
    let on_wire = path.clone();
    world.on_wire = Box::new(move |_, payload| payload.len() <= on_wire.load(Ordering::Relaxed));
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    (world, path)
}

/// Sends long packets each way and says how many arrive.
fn exchange(world: &mut World) -> [usize; 2] {
    let before = [OFFERER, ANSWERER].map(|side| world.frames(side).len());
    for length in [1_280, 1_310, 1_372, 1_400, 1_500, 9_000, 60_000] {
        for side in [OFFERER, ANSWERER] {
            let now = world.now;
            world.links[side]
                .send_frame(&packet(length), now)
                .expect("room");
        }
        world.drain();
        world.run_until(SECOND / 10, |_| false);
    }
    [OFFERER, ANSWERER].map(|side| world.frames(side).len() - before[side])
}

#[test]
fn what_is_longer_than_the_lane_takes_arrives_over_the_data_channel() {
    let (mut world, _) = world(NARROW);
    world.run_until(5 * SECOND, |_| false);
    assert_eq!(exchange(&mut world), [7, 7]);
}

#[test]
fn the_data_channel_follows_a_path_that_becomes_narrower() {
    let (mut world, path) = world(1_472);
    world.run_until(5 * SECOND, |_| false);
    assert_eq!(exchange(&mut world), [7, 7]);
    path.store(NARROW, Ordering::Relaxed);
    // Traffic, so that it is noticed.
    for _ in 0..100 {
        for side in [OFFERER, ANSWERER] {
            let now = world.now;
            let _ = world.links[side].send_frame(&packet(200), now);
        }
        world.drain();
        world.run_until(SECOND / 10, |_| false);
    }
    assert_eq!(exchange(&mut world), [7, 7]);
}

#[test]
fn a_long_control_message_arrives_wherever_a_lane_does() {
    let (mut world, _) = world(1_200);
    // Nobody knows the path yet.
    let bound = |number: usize| protocol::document::BindingResult {
        service: format!("service-{number}"),
        reason: "r".repeat(200),
        ..Default::default()
    };
    let message = Control {
        body: Some(Body::Bound(Bound {
            results: (0..40).map(bound).collect(),
        })),
    };
    let now = world.now;
    world.links[OFFERER]
        .send_control(&message, now)
        .expect("room");
    world.drain();
    let arrived = |world: &World| {
        let mut events = world.events[ANSWERER].iter();
        events.any(|(_, event)| matches!(event, LinkEvent::Control(seen) if *seen == message))
    };
    assert!(world.run_until(5 * SECOND, arrived), "it does not arrive");
}
