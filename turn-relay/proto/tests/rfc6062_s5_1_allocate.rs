//! RFC 6062 section 5.1: an Allocate request for TCP to peers.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use common::{Client, Outcome, Relay, Setup};
use stun_types::attribute::AttributeWrite;
use tcp::{allocate, client, try_allocate};
use turn_relay_proto::{ConnectionId, DropReason, Transport};
use turn_types::attribute::{DontFragment, EvenPort, RequestedTransport, ReservationToken};
use turn_types::message::ALLOCATE;

#[test]
fn the_relayed_address_listens_until_the_allocation_ends() {
    let mut relay = Relay::new();
    let mut over_tls = Client::new("192.0.2.1:4000");
    over_tls.transport = Transport::Tls(ConnectionId(7));
    for mut client in [client("192.0.2.1:4001", 1), over_tls] {
        let relayed = allocate(&mut client, &mut relay);
        assert!(relay.listening.contains(&relayed));
        relay.client_disconnects(client.transport, client.address);
        assert!(relay.open.is_empty() && relay.listening.is_empty());
    }
    let mut client = client("192.0.2.1:4002", 2);
    allocate(&mut client, &mut relay);
    relay.pass(601);
    assert!(relay.listening.is_empty());
    assert_eq!(relay.stats().allocations, 0);
}

#[test]
fn over_udp_it_is_a_bad_request() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    assert_eq!(try_allocate(&mut client, &mut relay, &[]).code(), 400);
    assert_eq!((relay.opened, relay.stats().allocations), (0, 0));
}

#[test]
fn what_is_for_datagrams_is_a_bad_request() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    for reserve in [false, true] {
        let even = EvenPort::new(reserve);
        assert_eq!(try_allocate(&mut client, &mut relay, &[&even]).code(), 400);
    }
    let more: [&dyn AttributeWrite; 2] = [&ReservationToken::new(7), &DontFragment::new()];
    for more in more {
        assert_eq!(try_allocate(&mut client, &mut relay, &[more]).code(), 400);
    }
}

#[test]
fn other_transports_are_not_supported() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    let sctp = RequestedTransport::new(132);
    assert_eq!(client.request(&mut relay, ALLOCATE, &[&sctp]).code(), 442);
    // Sockets that allocations share are for datagrams.
    let mut relay = Relay::with(Setup {
        networks: vec!["10.0.64.0/24"],
        ..Setup::default()
    });
    let mut client = tcp::client("192.0.2.1:4000", 1);
    assert_eq!(try_allocate(&mut client, &mut relay, &[]).code(), 442);
    // Nor where no connection with a peer may be.
    let mut setup = Setup::default();
    setup.limits.peer_connections = 0;
    let mut relay = Relay::with(setup);
    assert_eq!(try_allocate(&mut client, &mut relay, &[]).code(), 442);
}

#[test]
fn datagrams_have_no_way_in_it() {
    let mut relay = Relay::new();
    let mut client = client("192.0.2.1:4000", 1);
    allocate(&mut client, &mut relay);
    assert_eq!(client.permit(&mut relay, &["10.0.0.5:7"]), 0);
    assert_eq!(client.bind(&mut relay, 0x4000, "10.0.0.5:7"), 403);
    assert_eq!(
        client.sends_indication(&mut relay, "10.0.0.5:7", b"x"),
        Outcome::Dropped(DropReason::TcpAllocation)
    );
    assert_eq!(relay.stats().to_peer.packets, 0);
}

#[test]
fn an_allocation_for_udp_and_one_for_tcp_share_the_quota() {
    let mut relay = Relay::with(Setup {
        per_user: 1,
        ..Setup::default()
    });
    let mut first = client("192.0.2.1:4000", 1);
    allocate(&mut first, &mut relay);
    assert_eq!(
        allocate_code(&mut client("192.0.2.1:4001", 2), &mut relay),
        486
    );
}

fn allocate_code(client: &mut Client, relay: &mut Relay) -> u16 {
    try_allocate(client, relay, &[]).code()
}
