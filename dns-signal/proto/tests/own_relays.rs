//! A link for which there is no path gets one over a relayed address of the sidecar's own.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use dns_signal_proto::agent::{AgentOutput, LinkStatus};
use link::Path;
use model::{RelayAccess, RelayName, RelayTransport, RelayWay, RelayedAddr, ServerAddr};
use protocol::directory::Relay;
use protocol::document::document::Body;
use support::{ORDERS, SECOND, World};
use turn_client::{LostReason, Reserve};

fn relay() -> RelayName {
    "west-1".parse().expect("a name")
}

fn own() -> SocketAddr {
    "10.0.0.2:60000".parse().expect("an address")
}

/// In the networks that their names begin with.
fn relays(names: &[&str]) -> Vec<(RelayName, Relay)> {
    let relay = |name: &&str| {
        let (network, _) = name.split_once('-').expect("a network");
        let relay = Relay {
            network: network.to_owned(),
            url: "turn:203.0.113.12".to_owned(),
            ..Relay::default()
        };
        (name.parse().expect("a name"), relay)
    };
    names.iter().map(relay).collect()
}

/// A mesh with a relay in this network and one in the other; nothing gets out of the host but to relays.
fn blocked_world() -> World {
    let mut world = World::new();
    world.blocked = true;
    world
        .agent
        .handle_relays(relays(&["west-1", "east-1"]), world.now);
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    world
}

fn asked_for(world: &World) -> Vec<&RelayName> {
    let asked = world.of_relays.iter().filter_map(|output| match output {
        AgentOutput::Reserve(Reserve::FetchAccess { relay, .. }) => Some(relay),
        _ => None,
    });
    asked.collect()
}

fn allocate(world: &mut World) {
    allocate_on(world, &relay(), own());
}

fn allocate_on(world: &mut World, relay: &RelayName, own: SocketAddr) {
    let access = RelayAccess {
        ways: vec![RelayWay {
            transport: RelayTransport::Tcp,
            server: ServerAddr("203.0.113.12:3478".parse().expect("an address")),
            host: "203.0.113.12".to_owned(),
        }],
        username: "me".to_owned(),
        password: "secret".to_owned(),
        lifetime: 3600 * SECOND,
    };
    world.agent.handle_access(relay, Ok(access), world.now);
    let relayed = vec![RelayedAddr(own)];
    world
        .agent
        .handle_allocated(relay.clone(), relayed, RelayTransport::Tcp, world.now);
    world.advance(SECOND / 10);
}

fn link(world: &World) -> LinkStatus {
    world.agent.status().pop().expect("a link")
}

/// One that opened over the sidecar's own relayed address.
fn relayed_world() -> World {
    let mut world = blocked_world();
    world.advance(SECOND + SECOND / 10);
    allocate(&mut world);
    world.advance(SECOND);
    assert_eq!(world.open_links(), 1, "{:?}", world.notices);
    world
}

#[test]
fn a_link_without_a_path_asks_for_a_relay_of_its_own_network_after_a_second() {
    let mut world = blocked_world();
    world.advance(SECOND * 9 / 10);
    assert!(asked_for(&world).is_empty());
    world.advance(SECOND / 5);
    assert_eq!(asked_for(&world), [&relay()]);
}

#[test]
fn a_link_that_has_a_path_asks_for_none() {
    let mut world = blocked_world();
    world.blocked = false;
    world.advance(10 * SECOND);
    assert_eq!(world.open_links(), 1);
    assert!(asked_for(&world).is_empty());
}

#[test]
fn its_activator_is_told_of_the_relayed_address_and_the_link_opens_over_it() {
    let mut world = relayed_world();
    let told = world.documents.iter().any(|body| {
        matches!(body, Body::Candidates(told) if told.candidates.iter().any(|one| one.address.ends_with(":60000")))
    });
    assert!(told, "{:?}", world.documents);
    let permitted = world.of_relays.iter().any(
        |output| matches!(output, AgentOutput::Permit { peer, .. } if *peer == support::relayed()),
    );
    assert!(permitted);
    assert_eq!(link(&world).path, Some(Path::RelayTcp));
    world.send(ORDERS, b"hello").expect("sent");
    world.settle();
    assert!(world.received.iter().any(|frame| frame.ends_with(b"hello")));
}

#[test]
fn a_better_path_is_taken_when_there_is_one_and_the_allocation_given_back_later() {
    let mut world = relayed_world();
    world.blocked = false;
    let mut sent = 0;
    while link(&world).path != Some(Path::RelayUdp) {
        assert!(sent < 200, "it climbs");
        world.send(ORDERS, b"hello").expect("sent");
        sent += 1;
        world.advance(Duration::from_millis(500));
    }
    assert_eq!(world.received.len(), sent, "nothing was lost on the way");
    for _ in 0..300 {
        world.send(ORDERS, b"hello").expect("sent");
        world.advance(SECOND);
    }
    let released =
        |output: &AgentOutput| matches!(output, AgentOutput::Reserve(Reserve::Release { .. }));
    assert!(world.of_relays.iter().any(released));
    assert_eq!(world.open_links(), 1);
}

#[test]
fn the_next_link_after_one_that_needed_it_asks_at_once() {
    let mut world = relayed_world();
    world
        .agent
        .handle_lost(&relay(), &LostReason::Silent, world.now);
    world.advance(10 * SECOND);
    assert_eq!(world.open_links(), 0);
    // By now it was given up.
    world.advance(300 * SECOND);
    world.of_relays.clear();
    world.want("orders", ORDERS);
    world.settle();
    assert_eq!(asked_for(&world), [&relay()]);
}

#[test]
fn a_relay_that_drains_is_left_for_another_and_nothing_is_lost() {
    let mut world = relayed_world();
    let more = relays(&["west-1", "west-2", "west-3", "east-1"]);
    world.agent.handle_relays(more, world.now);
    let (second, third): (RelayName, RelayName) = (
        "west-2".parse().expect("a name"),
        "west-3".parse().expect("a name"),
    );
    let held = "10.0.0.4:60000".parse().expect("an address");
    allocate_on(&mut world, &second, held);
    world.of_relays.clear();
    world.agent.handle_ending(&relay(), world.now);
    world.advance(Duration::ZERO);
    assert_eq!(asked_for(&world), [&third], "two that last");
    let given_back = |world: &World| {
        let give_back = |output: &AgentOutput| matches!(output, AgentOutput::Reserve(Reserve::GiveBack { relay: of }) if *of == relay());
        world.of_relays.iter().any(give_back)
    };
    let mut sent = 0;
    while !given_back(&world) {
        assert!(sent < 100, "it is left");
        world.send(ORDERS, b"hello").expect("sent");
        sent += 1;
        world.advance(Duration::from_millis(50));
    }
    assert!(sent >= 40, "not while something may be under way");
    assert_eq!(world.received.len(), sent, "nothing was lost on the way");
    let pair = world.activator.as_ref().and_then(link::Link::pair);
    assert_eq!(pair.map(|(_, peer)| peer), Some(held));
    world
        .agent
        .handle_lost(&relay(), &LostReason::GivenBack, world.now);
    world.send(ORDERS, b"hello").expect("sent");
    world.advance(SECOND);
    assert_eq!(world.received.len(), sent + 1);
}
