//! Client and relay of this project, core against core, in memory and virtual time.
#![allow(clippy::unwrap_used)]

#[path = "support/relay_world.rs"]
mod relay_world;

use std::time::Duration;

use model::PeerAddr;
use relay_world::{EPOCH, World, addr, credential, server};
use turnpike_turn_client::{Event, LostReason, State};

#[test]
fn data_passes_both_ways_over_both_families() {
    let mut world = World::new();
    assert_eq!(world.client.state(), State::Allocated);
    for (family, peer) in [(0, "10.0.0.10:7000"), (1, "[fd00:10::10]:7000")] {
        assert!(world.permit(peer));
        assert!(world.send(peer, b"to the peer"));
        assert_eq!(
            world.to_peers.pop(),
            Some((addr(peer), b"to the peer".to_vec()))
        );
        world.peer_sends(peer, world.relayed(family), b"from the peer");
        let expected = (PeerAddr(addr(peer)), b"from the peer".to_vec());
        assert_eq!(world.from_peers.pop(), Some(expected));
    }
    // A port of the same address that has no channel: in a Data indication.
    world.peer_sends("10.0.0.10:7001", world.relayed(0), b"odd");
    assert_eq!(
        world.from_peers,
        [(PeerAddr(addr("10.0.0.10:7001")), b"odd".to_vec())]
    );
    // An address that nobody permitted does not get through.
    world.peer_sends("10.0.0.11:7000", world.relayed(0), b"stranger");
    assert_eq!(world.from_peers.len(), 1);
}

#[test]
fn it_stands_for_a_day_while_the_credential_is_renewed() {
    let mut world = World::new();
    world.permit("10.0.0.10:7000");
    world.events.clear();
    let relayed = world.client.relayed().to_vec();
    for hour in 1..=24u64 {
        world.pass(Duration::from_secs(1_800));
        let fresh = credential(EPOCH + hour * 3_600 + 1_800);
        world.client.set_credential(fresh, world.now);
        world.pass(Duration::from_secs(1_800));
        assert!(world.send("10.0.0.10:7000", b"still there"));
        assert!(world.to_peers.pop().is_some(), "hour {hour}");
    }
    assert_eq!(
        (world.client.relayed(), &world.events[..]),
        (&relayed[..], &[][..])
    );
}

#[test]
fn a_restarted_relay_is_noticed_and_used_again() {
    let mut world = World::new();
    world.permit("10.0.0.10:7000");
    world.events.clear();
    world.server = server(2, world.now);
    world.sockets.clear();
    world.pass(Duration::from_secs(3));
    assert!(
        matches!(
            &world.events[..],
            [
                Event::NotMoved,
                Event::Lost {
                    reason: LostReason::Mismatch
                },
                Event::Allocated { .. }
            ]
        ),
        "{:?}",
        world.events
    );
    assert!(world.permit("10.0.0.10:7000") && world.send("10.0.0.10:7000", b"again"));
    assert_eq!(world.to_peers.len(), 1);
}

#[test]
fn a_peer_that_the_relay_denies_is_not_reached() {
    let mut world = World::new();
    world.events.clear();
    assert!(world.permit("192.0.2.1:7000"));
    assert!(!world.send("192.0.2.1:7000", b"out"));
    assert_eq!(
        (world.to_peers.len(), world.client.stats().forbidden),
        (0, 1)
    );
    assert_eq!(world.events, []);
}

#[test]
fn an_expired_credential_is_asked_for_at_the_next_allocation() {
    let mut world = World::new();
    world.pass(Duration::from_secs(2 * 3_600));
    assert_eq!(
        world.client.state(),
        State::Allocated,
        "what stands, stands"
    );
    world.events.clear();
    world.server = server(3, world.now);
    world.sockets.clear();
    world.pass(Duration::from_secs(4));
    assert!(
        world.events.contains(&Event::NeedCredential),
        "{:?}",
        world.events
    );
    world
        .client
        .set_credential(credential(EPOCH + 3 * 3_600), world.now);
    world.settle();
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn a_closed_allocation_is_gone_from_the_relay() {
    let mut world = World::new();
    assert_eq!(world.sockets.len(), 2);
    world.client.close(world.now);
    world.settle();
    assert_eq!(world.sockets.len(), 0);
}

#[test]
fn a_relay_that_drains_says_so_and_is_empty_when_its_client_has_gone_elsewhere() {
    let mut world = World::new();
    world.events.clear();
    world.pass(Duration::from_secs(10));
    world
        .server
        .set_draining(Some(world.now + Duration::from_secs(30)));
    world.pass(Duration::from_secs(5));
    assert!(
        matches!(&world.events[..], [Event::Ending { left }] if left.as_secs() >= 25),
        "{:?}",
        world.events
    );
    world.client.give_back(world.now);
    world.settle();
    assert_eq!(world.server.stats().allocations, 0);
    world.pass(Duration::from_secs(6));
    world.server.set_draining(None);
    world.pass(Duration::from_secs(6));
    let refused = |event: &Event| {
        matches!(
            event,
            Event::Lost {
                reason: LostReason::Refused { code: 508, .. }
            }
        )
    };
    assert!(world.events.iter().any(refused), "{:?}", world.events);
    assert_eq!(world.client.state(), State::Allocated);
}
