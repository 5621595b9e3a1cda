//! RFC 8016, from the client's side: an allocation goes with all that belongs to it, against this project's relay.
#![allow(clippy::unwrap_used)]

#[path = "support/relay_world.rs"]
mod relay_world;

use std::time::Duration;

use model::{PeerAddr, RelayTransport};
use relay_world::{World, addr, server};
use turn_relay_proto as relay;
use turnpike_turn_client::{Event, LostReason, Moving, State};

const PEER: &str = "10.0.0.10:7000";
const TCP: &str = "198.51.100.7:50000";

/// A world whose client can be sent to another address, over TCP.
fn world() -> World {
    let mut world = World::new();
    assert!(world.permit(PEER));
    world.events.clear();
    world.ahead = relay::FiveTuple {
        transport: relay::Transport::Tcp(relay::ConnectionId(3)),
        ..World::udp(TCP)
    };
    world
}

fn move_to_tcp(world: &mut World, dead: bool) -> Moving {
    let (server, local) = (addr("203.0.113.12:3478"), addr("10.0.0.3:50000"));
    let moving = world
        .client
        .move_to(RelayTransport::Tcp, server, local, dead, world.now);
    world.settle();
    moving
}

fn both_ways(world: &mut World) {
    assert!(world.send(PEER, b"out"));
    assert_eq!(world.to_peers.pop().unwrap().1, b"out");
    world.peer_sends(PEER, world.relayed(0), b"in");
    assert_eq!(
        world.from_peers.pop(),
        Some((PeerAddr(addr(PEER)), b"in".to_vec()))
    );
}

#[test]
fn it_moves_to_another_transport_with_its_permissions_and_channels() {
    for dead in [false, true] {
        let mut world = world();
        let before = world.client.relayed().to_vec();
        assert_eq!(move_to_tcp(&mut world, dead), Moving::Asked);
        assert_eq!(world.events, [Event::Moved]);
        assert!(!world.client.is_moving());
        assert_eq!(world.client.relayed(), before);
        both_ways(&mut world);
        // And it stands there: refreshes, channels, permissions.
        world.pass(Duration::from_secs(3_000));
        assert_eq!(world.events, [Event::Moved]);
        both_ways(&mut world);
        assert_eq!(world.client.config().transport, RelayTransport::Tcp);
    }
}

#[test]
fn while_it_is_asked_what_is_for_peers_has_to_wait_and_the_fence_goes_the_old_way() {
    let mut world = world();
    let (server, local) = (addr("203.0.113.12:3478"), addr("10.0.0.3:50000"));
    let tcp = RelayTransport::Tcp;
    world.client.move_to(tcp, server, local, false, world.now);
    assert!(world.client.is_moving());
    assert!(world.client.poll_transmit_ahead().is_none());
    let fence = world.client.poll_transmit().unwrap();
    world.enter_relay(world.path, &fence);
    let request = world.client.poll_transmit_ahead().unwrap();
    world.enter_relay(world.ahead, &request);
    world.settle();
    assert_eq!(world.events, [Event::Moved]);
}

#[test]
fn a_nat_that_changes_the_address_costs_nothing() {
    let mut world = World::new();
    assert!(world.permit(PEER));
    world.events.clear();
    world.path = World::udp("198.51.100.7:41111");
    world.ahead = world.path;
    world.pass(Duration::from_secs(3));
    assert_eq!(
        world.events,
        [Event::Moved],
        "the next probe is refused and moves it"
    );
    both_ways(&mut world);
}

#[test]
fn a_relay_that_was_restarted_takes_no_ticket_and_is_asked_at_once_whether_it_knows_the_allocation()
{
    let mut world = world();
    world.server = server(2, world.now);
    world.sockets.clear();
    let before = world.now;
    move_to_tcp(&mut world, true);
    let lost = Event::Lost {
        reason: LostReason::Mismatch,
    };
    assert_eq!(world.events[..2], [Event::NotMoved, lost]);
    assert_eq!(world.client.state(), State::Allocated);
    assert_eq!(world.now, before, "no time has passed");
    assert_eq!(world.client.config().transport, RelayTransport::Udp);
}

#[test]
fn a_relay_that_was_restarted_and_answers_on_another_way_only_gives_another_allocation_there() {
    let mut world = world();
    world.server = server(2, world.now);
    world.sockets.clear();
    let (server, local) = (addr("203.0.113.12:3478"), addr("10.0.0.3:50000"));
    let tcp = RelayTransport::Tcp;
    world.client.move_to(tcp, server, local, true, world.now);
    while !world.events.contains(&Event::NotMoved) {
        // Nothing of what goes the old way arrives.
        while world.client.poll_transmit().is_some() {}
        while let Some(datagram) = world.client.poll_transmit_ahead() {
            world.enter_relay(world.ahead, &datagram);
        }
        world.events.extend(world.client.poll_event());
    }
    assert_eq!(
        world.events,
        [Event::NotMoved],
        "it stays where nothing is any more"
    );
    while world.client.poll_transmit().is_some() {}
    world.path = world.ahead;
    assert_eq!(move_to_tcp(&mut world, true), Moving::Begun);
    let lost = Event::Lost {
        reason: LostReason::Silent,
    };
    assert!(world.events.contains(&lost), "{:?}", world.events);
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn a_way_that_does_not_answer_leaves_it_where_it_is() {
    let mut world = world();
    let (server, local) = (addr("203.0.113.12:3478"), addr("10.0.0.3:50000"));
    let tcp = RelayTransport::Tcp;
    world.client.move_to(tcp, server, local, false, world.now);
    while !world.events.contains(&Event::NotMoved) {
        // Nothing of what goes ahead arrives.
        while let Some(datagram) = world.client.poll_transmit() {
            world.enter_relay(world.path, &datagram);
        }
        while world.client.poll_transmit_ahead().is_some() {}
        world.events.extend(world.client.poll_event());
        world.now = world.client.poll_timeout().unwrap();
        world.client.handle_timeout(world.now);
    }
    assert_eq!(world.events, [Event::NotMoved]);
    both_ways(&mut world);
}
