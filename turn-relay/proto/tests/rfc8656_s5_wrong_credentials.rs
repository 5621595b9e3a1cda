//! RFC 8656 section 5: a five-tuple with an allocation is its maker's. Whoever else asks for anything there hears 441,
//! whatever else is wrong with the request, and nothing changes.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use common::{Client, Relay, Setup, addr};
use stun_types::attribute::{AttributeStaticType, AttributeType, AttributeWrite, RawAttribute};
use stun_types::message::{Message, Method, TransactionId};
use turn_relay_proto::{ConnectionId, Extensions, Transport};
use turn_types::attribute::{
    ChannelNumber, ConnectionId as Number, Lifetime, RequestedTransport, XorPeerAddress,
};
use turn_types::message::{
    ALLOCATE, CHANNEL_BIND, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, REFRESH,
};

const TICKET: AttributeType = AttributeType::new(0x8030);
const PEER: &str = "10.0.0.5:7";

type Attributes = fn(TransactionId, &[u8]) -> Vec<Box<dyn AttributeWrite>>;

/// Name, method, code, and attributes made of the transaction and of the ticket of the allocation.
const CASES: [(&str, Method, u16, Attributes); 16] = [
    ("Allocate", ALLOCATE, 437, |_, _| {
        vec![Box::new(RequestedTransport::new(RequestedTransport::UDP))]
    }),
    ("Allocate of nothing", ALLOCATE, 437, |_, _| vec![]),
    ("Refresh", REFRESH, 441, |_, _| {
        vec![Box::new(Lifetime::new(600))]
    }),
    ("Refresh to the end", REFRESH, 441, |_, _| {
        vec![Box::new(Lifetime::new(0))]
    }),
    ("malformed Refresh", REFRESH, 441, |_, _| {
        vec![malformed(Lifetime::TYPE)]
    }),
    ("Refresh with the ticket", REFRESH, 441, |_, ticket| {
        vec![raw(TICKET, ticket)]
    }),
    ("Refresh with no ticket", REFRESH, 441, |_, _| {
        vec![malformed(TICKET)]
    }),
    (
        "malformed Refresh with the ticket",
        REFRESH,
        441,
        |_, ticket| vec![raw(TICKET, ticket), malformed(Lifetime::TYPE)],
    ),
    ("CreatePermission", CREATE_PERMISSION, 441, |id, _| {
        vec![peer(id, PEER)]
    }),
    (
        "CreatePermission of a denied peer",
        CREATE_PERMISSION,
        441,
        |id, _| vec![peer(id, "127.0.0.1:7")],
    ),
    (
        "CreatePermission of nothing",
        CREATE_PERMISSION,
        441,
        |_, _| vec![],
    ),
    ("ChannelBind", CHANNEL_BIND, 441, |id, _| {
        vec![Box::new(ChannelNumber::new(0x4000)), peer(id, PEER)]
    }),
    ("ChannelBind of nothing", CHANNEL_BIND, 441, |_, _| vec![]),
    ("Connect", CONNECT, 441, |id, _| vec![peer(id, PEER)]),
    ("ConnectionBind", CONNECTION_BIND, 441, |_, _| {
        vec![Box::new(Number::new(7))]
    }),
    (
        "ConnectionBind of nothing",
        CONNECTION_BIND,
        441,
        |_, _| vec![],
    ),
];

fn raw(kind: AttributeType, value: &[u8]) -> Box<dyn AttributeWrite> {
    Box::new(RawAttribute::new(kind, value).into_owned())
}

fn malformed(kind: AttributeType) -> Box<dyn AttributeWrite> {
    raw(kind, b"?")
}

fn peer(id: TransactionId, address: &str) -> Box<dyn AttributeWrite> {
    Box::new(XorPeerAddress::new(addr(address), id))
}

fn setup(mobility: bool) -> Setup {
    Setup {
        extensions: Extensions {
            mobility,
            ..Extensions::default()
        },
        ..Setup::default()
    }
}

fn ask(
    client: &mut Client,
    relay: &mut Relay,
    method: Method,
    attributes: Attributes,
    ticket: &[u8],
) -> u16 {
    let id = TransactionId::generate();
    client.transaction = Some(id);
    let attributes = attributes(id, ticket);
    let attributes: Vec<_> = attributes.iter().map(|attribute| &**attribute).collect();
    client.request(relay, method, &attributes).code()
}

/// Alice's allocation, and its ticket if it can have one.
fn allocate(alice: &mut Client, relay: &mut Relay, to_peers: u8) -> Vec<u8> {
    let (to_peers, ticket) = (
        RequestedTransport::new(to_peers),
        RawAttribute::new(TICKET, b""),
    );
    let mut attributes: Vec<&dyn AttributeWrite> = vec![&to_peers];
    if relay.config.extensions.mobility {
        attributes.push(&ticket);
    }
    let answer = alice.request(relay, ALLOCATE, &attributes);
    assert_eq!(answer.code(), 0);
    let message = Message::from_bytes(&answer.0).unwrap();
    let ticket = message.raw_attribute(TICKET);
    ticket.map_or_else(|| b"none".to_vec(), |raw| raw.value.to_vec())
}

#[test]
fn on_anothers_five_tuple_every_method_is_441_and_allocate_437() {
    let over_tcp = Transport::Tcp(ConnectionId(1));
    for mobility in [false, true] {
        for (transport, to_peers) in [(Transport::Udp, 17), (over_tcp, 17), (over_tcp, 6)] {
            if mobility && to_peers == 6 {
                continue;
            }
            for (name, method, code, attributes) in CASES {
                let mut relay = Relay::with(setup(mobility));
                let mut alice = Client::new("192.0.2.1:4000");
                let mut bob = Client::named("192.0.2.1:4000", "bob", "builder");
                (alice.transport, bob.transport) = (transport, transport);
                let ticket = allocate(&mut alice, &mut relay, to_peers);
                relay.pass(300);
                let answer = ask(&mut bob, &mut relay, method, attributes, &ticket);
                let case = format!("{name} over {transport:?}, {to_peers}, mobile: {mobility}");
                assert_eq!(answer, code, "{case}");
                let stats = relay.stats();
                let left = (stats.allocations, stats.permissions, stats.channels);
                assert_eq!(left, (1, 0, 0), "{case}");
                assert_eq!(stats.allocations_moved, 0, "{case}");
                assert!(relay.take_peer_outputs().is_empty(), "{case}");
                // It was not refreshed, either.
                relay.pass(299);
                assert_eq!(relay.stats().allocations, 1, "{case}");
                relay.pass(1);
                assert_eq!(relay.stats().allocations, 0, "{case}");
            }
        }
    }
}

#[test]
fn the_maker_is_never_told_so() {
    for (name, method, _, attributes) in CASES {
        let mut relay = Relay::with(setup(true));
        let mut alice = Client::new("192.0.2.1:4000");
        let ticket = allocate(&mut alice, &mut relay, 17);
        let code = ask(&mut alice, &mut relay, method, attributes, &ticket);
        assert_ne!(code, 441, "{name}");
    }
}

#[test]
fn a_ticket_moves_nothing_for_another_user_from_wherever() {
    let mut relay = Relay::with(setup(true));
    let mut alice = Client::new("192.0.2.1:4000");
    let of_alice = allocate(&mut alice, &mut relay, 17);
    let refresh: Attributes = |_, ticket| vec![raw(TICKET, ticket)];
    // From a five-tuple without an allocation, and from one with his own.
    let mut bob = Client::named("198.51.100.9:5000", "bob", "builder");
    assert_eq!(ask(&mut bob, &mut relay, REFRESH, refresh, &of_alice), 441);
    let of_bob = allocate(&mut bob, &mut relay, 17);
    assert_eq!(ask(&mut bob, &mut relay, REFRESH, refresh, &of_alice), 437);
    // With his own, to hers.
    let mut intruder = Client::named("192.0.2.1:4000", "bob", "builder");
    assert_eq!(
        ask(&mut intruder, &mut relay, REFRESH, refresh, &of_bob),
        441
    );
    assert_eq!(relay.stats().allocations_moved, 0);
    for (client, ticket) in [(&mut alice, &of_alice), (&mut bob, &of_bob)] {
        assert_eq!(ask(client, &mut relay, REFRESH, refresh, ticket), 0);
    }
}

#[test]
fn a_ticket_moves_nothing_for_another_user_between_shards() {
    let mut shards = Relay::shards(2, setup(true));
    let mut alice = Client::new("192.0.2.1:4000");
    let ticket = allocate(&mut alice, &mut shards[0], 17);
    // A five-tuple of hers at the other shard: no question is asked.
    let mut bob = Client::named("198.51.100.9:5000", "bob", "builder");
    let mut also_alice = Client::new("198.51.100.9:5000");
    allocate(&mut also_alice, &mut shards[1], 17);
    let refresh: Attributes = |_, ticket| vec![raw(TICKET, ticket)];
    assert_eq!(
        ask(&mut bob, &mut shards[1], REFRESH, refresh, &ticket),
        441
    );
    assert!(shards[1].letters.is_empty());
}

#[test]
fn a_connection_with_a_peer_is_joined_for_its_user_alone() {
    let mut relay = Relay::new();
    let mut alice = tcp::client("192.0.2.1:4000", 1);
    tcp::allocate(&mut alice, &mut relay);
    let number = tcp::connected(&mut alice, &mut relay, "10.0.0.5:80");
    // On her control connection, on one of his own, and on one that controls his allocation.
    let mut bob = Client::named("192.0.2.1:4000", "bob", "builder");
    bob.transport = alice.transport;
    assert_eq!(tcp::bind(&mut bob, &mut relay, number), 441);
    let mut bob = Client::named("192.0.2.1:4001", "bob", "builder");
    bob.transport = Transport::Tcp(ConnectionId(2));
    assert_eq!(tcp::bind(&mut bob, &mut relay, number), 441);
    tcp::allocate(&mut bob, &mut relay);
    assert_eq!(tcp::bind(&mut bob, &mut relay, number), 400);
    assert!(relay.take_peer_outputs().is_empty());
    let mut data = tcp::client("192.0.2.1:4002", 3);
    assert_eq!(tcp::bind(&mut data, &mut relay, number), 0);
}
