//! How a link comes up, and how it refuses to.

mod common;

use std::time::Duration;

use common::{ANSWERER, OFFERER, World};
use turnpike_link::{CandidateKind, DtlsCertificate, LinkConfig, Path, Step};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_link_opens_and_carries_frames_both_ways() {
    let mut world = World::new(Duration::from_millis(1));
    world.signal();
    assert!(
        world.run_until(5 * SECOND, World::both_open),
        "not open: {:?}",
        world.events
    );
    for side in [OFFERER, ANSWERER] {
        assert_eq!(world.links[side].path(), Some(Path::RelayUdp));
        assert!(world.step_time(side, Step::Open).is_some());
    }
    let frames: Vec<Vec<u8>> = [1, 100, 1_400, 9_000, 65_000]
        .iter()
        .map(|length| vec![*length as u8; *length])
        .collect();
    for frame in &frames {
        for side in [OFFERER, ANSWERER] {
            let now = world.now;
            world.links[side].send_frame(frame, now).expect("room");
        }
    }
    world.drain();
    let all = |world: &World| {
        [OFFERER, ANSWERER]
            .iter()
            .all(|side| world.frames(*side).len() == 5)
    };
    assert!(world.run_until(5 * SECOND, all), "frames are missing");
    for side in [OFFERER, ANSWERER] {
        let mut received = world.frames(side);
        received.sort_by_key(|frame| frame.len());
        assert_eq!(received, frames);
    }
}

#[test]
fn no_fixed_timer_is_on_the_way() {
    for one_way in [0, 10, 40] {
        let one_way = Duration::from_millis(one_way);
        let mut world = World::new(one_way);
        world.signal();
        assert!(world.run_until(5 * SECOND, World::both_open));
        let took = world.now - world.start;
        // In round trips: the peer's check half a one, DTLS with its cookie 3, SCTP 2, the channels' opening half a one.
        assert!(
            took <= 12 * one_way + Duration::from_millis(1),
            "{took:?} at {one_way:?} one way"
        );
    }
}

#[test]
fn a_host_path_is_called_direct() {
    let certificates =
        [DtlsCertificate::generate(), DtlsCertificate::generate()].map(|made| made.expect("made"));
    let config = LinkConfig::default();
    let mut world = World::with(
        Duration::from_millis(1),
        &config,
        certificates,
        CandidateKind::Host,
    );
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    assert_eq!(world.links[OFFERER].path(), Some(Path::Direct));
}

#[test]
fn another_certificate_than_the_signed_one_ends_the_link() {
    for liar in [OFFERER, ANSWERER] {
        let mut world = World::new(Duration::from_millis(1));
        let mut descriptions = [
            world.links[OFFERER].local_description(),
            world.links[ANSWERER].local_description(),
        ];
        // What the other side was told is not what DTLS will show.
        descriptions[liar].dtls_fingerprint[5] ^= 1;
        let now = world.now;
        let [offer, answer] = descriptions;
        world.links[ANSWERER]
            .set_remote_description(&offer, now)
            .expect("usable");
        world.links[OFFERER]
            .set_remote_description(&answer, now)
            .expect("usable");
        world.drain();
        let victim = 1 - liar;
        let ended = world.run_until(20 * SECOND, |world| world.close_reason(victim).is_some());
        assert!(ended, "the victim kept the link");
        let reason = world.close_reason(victim).expect("a reason");
        assert!(reason.contains("fingerprint"), "{reason}");
        assert!(world.links.iter().all(|link| !link.is_open()));
    }
}

#[test]
fn silence_ends_a_link_in_use_soon_and_an_idle_one_in_bounded_time() {
    let config = LinkConfig::default();
    let idle = 3 * config.keepalive + 2 * config.silence_timeout;
    for (in_use, limit) in [(true, config.silence_timeout + SECOND), (false, idle)] {
        let mut world = World::new(Duration::from_millis(1));
        world.signal();
        assert!(world.run_until(5 * SECOND, World::both_open));
        world.on_wire = Box::new(|_, _| false);
        let cut = world.now;
        if in_use {
            for side in [OFFERER, ANSWERER] {
                world.links[side].send_frame(&[7; 100], cut).expect("room");
            }
            world.drain();
        }
        let ended = world.run_until(2 * idle, |world| {
            [OFFERER, ANSWERER]
                .iter()
                .all(|side| world.close_reason(*side).is_some())
        });
        assert!(ended);
        assert!(world.now - cut <= limit, "{:?}", world.now - cut);
    }
}

#[test]
fn an_idle_link_costs_at_most_a_packet_in_fifteen_seconds() {
    let mut world = World::new(Duration::from_millis(1));
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    world.run_until(60 * SECOND, |_| false);
    let before = world.datagrams;
    world.run_until(3_600 * SECOND, |_| false);
    let sent = world.datagrams - before;
    assert!(sent <= 3_600 / 15, "{sent} datagrams in an hour");
    assert!(world.both_open());
}

#[test]
fn a_peer_that_never_answers_is_given_up() {
    let mut world = World::new(Duration::from_millis(1));
    world.on_wire = Box::new(|side, _| side == ANSWERER);
    world.signal();
    assert!(world.run_until(20 * SECOND, |world| world.close_reason(OFFERER).is_some()));
    assert!(
        world
            .close_reason(OFFERER)
            .expect("a reason")
            .contains("no path")
    );
}

#[test]
fn closing_tells_the_peer_why() {
    let mut world = World::new(Duration::from_millis(1));
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    let now = world.now;
    world.links[OFFERER].close("idle", now);
    world.drain();
    assert!(world.run_until(SECOND, |world| world.close_reason(ANSWERER).is_some()));
    assert_eq!(
        world.close_reason(ANSWERER).expect("a reason"),
        "the peer closed the link: idle"
    );
}

#[test]
fn garbage_from_the_path_is_dropped_and_counted() {
    let mut world = World::new(Duration::from_millis(1));
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    let [local, remote] = common::addresses();
    let before = world.links[OFFERER].stats().datagrams_dropped;
    for first in 0..=255_u8 {
        let mut payload = bytes::BytesMut::zeroed(64);
        payload[0] = first;
        let now = world.now;
        world.links[OFFERER].handle_datagram(local, remote, payload, now);
    }
    world.drain();
    assert!(
        world.links[OFFERER].is_open(),
        "{:?}",
        world.close_reason(OFFERER)
    );
    assert!(world.links[OFFERER].stats().datagrams_dropped >= before + 200);
}

#[test]
fn what_waits_to_be_sent_is_bounded() {
    let mut world = World::new(Duration::from_millis(50));
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    let now = world.now;
    let frame = vec![0; 60_000];
    let accepted = (0..1_000)
        .take_while(|_| world.links[OFFERER].send_frame(&frame, now).is_ok())
        .count();
    let limit = LinkConfig::default().send_limit;
    assert!(
        accepted > 0 && accepted * frame.len() <= limit,
        "{accepted}"
    );
}

#[test]
fn a_nomination_that_comes_before_the_own_check_succeeded_is_not_lost() {
    const USE_CANDIDATE: [u8; 4] = [0x00, 0x25, 0x00, 0x00];
    let one_way = Duration::from_millis(10);
    let mut world = World::new(one_way);
    // The offerer's answers to the answerer's checks are held back until a nomination has gone by.
    let mut nominated = false;
    let mut held = Vec::new();
    world.reorder = Some(Box::new(move |side, payload| {
        if side != OFFERER {
            return vec![payload];
        }
        nominated |= payload.starts_with(&[0, 1])
            && payload.windows(4).any(|window| window == USE_CANDIDATE);
        let answer = payload.starts_with(&[1, 1]);
        if answer && !nominated {
            held.push(payload);
            return Vec::new();
        }
        let mut out = vec![payload];
        if nominated {
            out.append(&mut held);
        }
        out
    }));
    world.signal();
    assert!(
        world.run_until(5 * SECOND, World::both_open),
        "not open: {:?}",
        world.events
    );
    let connected = world
        .step_time(ANSWERER, Step::IceConnected)
        .expect("connected");
    assert!(
        connected <= 4 * one_way,
        "it waited for the next check: {connected:?}"
    );
}

#[test]
fn bits_that_flip_on_the_wire_end_in_a_drop() {
    for seed in 1..=60_u64 {
        let mut world = World::new(Duration::from_millis(1));
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        world.on_wire = Box::new(move |_, payload| {
            if random().is_multiple_of(8) {
                for _ in 0..=random() % 3 {
                    let at = random() % payload.len();
                    payload[at] ^= 1 << (random() % 8);
                }
                if random().is_multiple_of(4) {
                    payload.truncate(1 + random() % payload.len());
                }
            }
            true
        });
        world.signal();
        world.run_until(4 * SECOND, World::both_open);
        // Whatever was made of it, the ends agree that it is open, or it is still opening, or it is over.
        for side in [OFFERER, ANSWERER] {
            let link = &world.links[side];
            assert!(!(link.is_open() && link.is_closed()));
        }
    }
}
