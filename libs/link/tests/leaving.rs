//! A relay that drains: a link goes over to its other one, and nothing is lost or comes twice.

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use common::{ANSWERER, OFFERER, World};
use turnpike_link::{CandidateKind, Carrier, DtlsCertificate, LinkConfig, LocalCandidate};

const SECOND: Duration = Duration::from_secs(1);

/// Two relays on the answerer's side; the link uses one of them.
fn with_two_relays(carrier: Carrier) -> World {
    let config = LinkConfig {
        carrier,
        ..LinkConfig::default()
    };
    let certificates =
        [DtlsCertificate::generate(), DtlsCertificate::generate()].map(|made| made.expect("made"));
    let one_way = Duration::from_millis(20);
    let mut world = World::with(one_way, &config, certificates, CandidateKind::Relayed);
    let second: SocketAddr = "10.0.0.4:7001".parse().expect("an address");
    let candidate = LocalCandidate {
        kind: CandidateKind::Relayed,
        address: second,
        base: second,
    };
    let now = world.now;
    world.links[ANSWERER]
        .add_local_candidate(candidate, now)
        .expect("a candidate");
    world.signal();
    assert!(world.run_until(5 * SECOND, World::both_open));
    assert!(!world.run_until(SECOND, |_| false));
    world
}

fn used(world: &World) -> [SocketAddr; 2] {
    let [ours, theirs] = [OFFERER, ANSWERER].map(|side| world.links[side].pair().expect("a pair"));
    [ours.1, theirs.0]
}

#[test]
fn frames_go_on_without_a_gap_and_the_peer_is_told_by_the_link_itself() {
    for carrier in [Carrier::Datagram, Carrier::DataChannel] {
        let mut world = with_two_relays(carrier);
        let [before, _] = used(&world);
        let (mut begun, mut left_after) = (None, None);
        for number in 0..500_u32 {
            for side in [OFFERER, ANSWERER] {
                let (now, frame) = (world.now, number.to_be_bytes().repeat(50));
                world.links[side].send_frame(&frame, now).expect("room");
            }
            if number >= 50 {
                let now = world.now;
                let begun = *begun.get_or_insert(now);
                if world.links[ANSWERER].leave_address(before, now) {
                    left_after.get_or_insert(now - begun);
                }
            }
            world.drain();
            let end = world.now + Duration::from_millis(10);
            world.run_until(SECOND, |world| world.now >= end);
        }
        world.run_until(SECOND, |_| false);
        let [ours, theirs] = used(&world);
        assert!(ours == theirs && ours != before, "{ours} {theirs}");
        // Not before the two seconds in which something may come late.
        let left_after = left_after.expect("left");
        assert!(
            (2 * SECOND..3 * SECOND).contains(&left_after),
            "{left_after:?}"
        );
        for side in [OFFERER, ANSWERER] {
            let frames = world.frames(side);
            let different: BTreeSet<&[u8]> = frames.iter().copied().collect();
            assert_eq!((frames.len(), different.len()), (500, 500), "{carrier}");
        }
        let now = world.now;
        world.links[ANSWERER].retire_address(before, now);
        world.run_until(SECOND, |_| false);
        assert!(world.both_open());
    }
}
