//! How a link comes up, and how it refuses to.

mod common;

use std::time::Duration;

use common::{ANSWERER, OFFERER, World};
use protocol::document::{Bound, Control, control::Body};
use turnpike_link::{CandidateKind, Carrier, DtlsCertificate, LinkConfig, LinkEvent, Path, Step};

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
        // In round trips: the peer's check half a one, DTLS with its cookie 3; and the lane is up.
        assert!(
            took <= 7 * one_way + Duration::from_millis(1),
            "{took:?} at {one_way:?} one way"
        );
    }
}

#[test]
fn without_a_lane_the_data_channels_open_it_two_round_trips_later() {
    let one_way = Duration::from_millis(20);
    let config = LinkConfig {
        carrier: Carrier::DataChannel,
        ..LinkConfig::default()
    };
    let certificates =
        [DtlsCertificate::generate(), DtlsCertificate::generate()].map(|made| made.expect("made"));
    let mut world = World::with(one_way, &config, certificates, CandidateKind::Relayed);
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    let took = world.now - world.start;
    // SCTP 2, the channels' opening half a one.
    assert!(took <= 12 * one_way + Duration::from_millis(1), "{took:?}");
    assert!(took > 8 * one_way, "{took:?} is too soon for SCTP");
}

#[test]
fn what_cannot_go_by_the_lane_waits_for_the_data_channels() {
    let mut world = World::new(Duration::from_millis(20));
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    let now = world.now;
    for side in [OFFERER, ANSWERER] {
        // No IP packet, so none of the lane's.
        world.links[side].send_frame(&[7; 100], now).expect("room");
        let ping = Control {
            body: Some(Body::Bound(Bound::default())),
        };
        world.links[side].send_control(&ping, now).expect("room");
    }
    world.drain();
    let all = |world: &World| {
        [OFFERER, ANSWERER].iter().all(|side| {
            let controls = world.events[*side]
                .iter()
                .filter(|(_, event)| matches!(event, LinkEvent::Control(_)));
            world.frames(*side).len() == 1 && controls.count() == 1
        })
    };
    assert!(world.run_until(SECOND, all), "{:?}", world.events);
}

#[test]
fn a_sender_that_forbids_fragments_is_told_what_the_path_takes() {
    const DONT_FRAGMENT: u8 = 0x40;
    let mut world = World::new(Duration::from_millis(1));
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    world.run_until(5 * SECOND, |_| false);
    let limit = world.links[OFFERER].frame_mtu();
    let udp = |flags: u8, length: usize| {
        let mut frame = vec![0; wire::frame::HEADER_LEN];
        frame[..].copy_from_slice(&wire::frame::Header::PLAIN.encode());
        let mut packet = vec![0; length];
        packet[..2].copy_from_slice(&[0x45, 0]);
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        packet[6] = flags;
        packet[8..10].copy_from_slice(&[64, 17]);
        packet[12..20].copy_from_slice(&[198, 18, 0, 1, 198, 18, 0, 5]);
        packet[24..26].copy_from_slice(&((length - 20) as u16).to_be_bytes());
        frame.extend(packet);
        frame
    };
    let now = world.now;
    let offerer = &mut world.links[OFFERER];
    offerer
        .send_frame(&udp(DONT_FRAGMENT, limit), now)
        .expect("it fits");
    offerer
        .send_frame(&udp(0, limit + 1), now)
        .expect("it may be fragmented: nothing to say");
    assert_eq!(offerer.stats().too_big_told, 0);
    for _ in 0..2 {
        offerer
            .send_frame(&udp(DONT_FRAGMENT, limit + 1), now)
            .expect("the data channel takes it");
    }
    world.drain();
    assert!(world.run_until(SECOND, |world| world.frames(ANSWERER).len() == 4));
    let told = world.frames(OFFERER);
    assert_eq!(told.len(), 1, "one for two that came at once");
    let icmp = &told[0][wire::frame::HEADER_LEN..];
    // From the destination to the sender; fragmentation needed; how much fits.
    assert_eq!(icmp[12..20], [198, 18, 0, 5, 198, 18, 0, 1]);
    assert_eq!(icmp[20..22], [3, 4]);
    assert_eq!(icmp[26..28], (limit as u16).to_be_bytes());
    assert_eq!(world.links[OFFERER].stats().too_big_told, 1);
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
        world.run_until(SECOND, |_| false);
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
    // The data channels, over which it is said, follow.
    world.run_until(SECOND, |_| false);
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
