//! RFC 8016 section 3: an allocation goes with its client.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Answer, Client, Outcome, Relay, Setup, addr};
use model::{ClientAddr, ServerAddr};
use std::net::SocketAddr;
use std::sync::Arc;
use stun_types::attribute::{AttributeType, AttributeWrite, RawAttribute};
use stun_types::message::{Message, TransactionId};
use turn_relay_proto::{ConnectionId, Extensions, FiveTuple, PeerPolicy, Transport};
use turn_types::attribute::Lifetime;
use turn_types::message::REFRESH;

const TICKET: u16 = 0x8030;
const PEER: &str = "10.0.0.5:7";

fn mobile() -> Setup {
    Setup {
        extensions: Extensions {
            mobility: true,
            ..Extensions::default()
        },
        per_user: 1,
        ..Setup::default()
    }
}

fn ticket_of(answer: &Answer) -> Option<Vec<u8>> {
    let message = Message::from_bytes(&answer.0).unwrap();
    let raw = message.raw_attribute(AttributeType::new(TICKET))?;
    Some(raw.value.to_vec())
}

fn attribute(ticket: &[u8]) -> RawAttribute<'_> {
    RawAttribute::new(AttributeType::new(TICKET), ticket)
}

/// The relayed address and the ticket.
fn allocate(client: &mut Client, relay: &mut Relay) -> (SocketAddr, Vec<u8>) {
    let answer = client.try_allocate(relay, &[&attribute(b"")]);
    assert_eq!(answer.code(), 0);
    (answer.relayed()[0], ticket_of(&answer).unwrap())
}

fn refresh(client: &mut Client, relay: &mut Relay, ticket: &[u8], seconds: u32) -> Answer {
    let (ticket, lifetime) = (attribute(ticket), Lifetime::new(seconds));
    let attributes: [&dyn AttributeWrite; 2] = [&ticket, &lifetime];
    client.request(relay, REFRESH, &attributes)
}

/// Whether what a peer sends comes to the client as ChannelData.
fn reaches(relay: &mut Relay, relayed: SocketAddr, client: &Client) -> bool {
    match relay.peer_sends(PEER, relayed, b"here?") {
        Outcome::ToClient { client: to, bytes } => {
            assert_eq!(bytes, b"\x40\x00\x00\x05here?");
            to == client.address
        }
        _ => false,
    }
}

#[test]
fn an_allocation_moves_to_the_five_tuple_that_shows_its_ticket() {
    let mut relay = Relay::with(mobile());
    let mut before = Client::new("192.0.2.1:4000");
    let (relayed, first) = allocate(&mut before, &mut relay);
    assert_eq!(before.bind(&mut relay, 0x4000, PEER), 0);
    assert!(reaches(&mut relay, relayed, &before));

    let mut after = Client::new("198.51.100.9:5000");
    let answer = refresh(&mut after, &mut relay, &first, 1_200);
    assert_eq!(answer.code(), 0);
    let lifetime: Lifetime = answer.get().unwrap();
    assert_eq!(lifetime.seconds(), 1_200);
    let second = ticket_of(&answer).unwrap();
    assert_ne!(first, second);
    // Channels and permissions have moved, too, and nothing is left where it was.
    assert!(reaches(&mut relay, relayed, &after));
    assert!(matches!(
        after.sends_channel_data(&mut relay, 0x4000, b"x"),
        Outcome::ToPeer { .. }
    ));
    let lifetime = Lifetime::new(600);
    assert_eq!(
        before.request(&mut relay, REFRESH, &[&lifetime]).code(),
        437
    );
    assert_eq!(relay.stats().allocations, 1);
    assert_eq!(relay.stats().allocations_moved, 1);
    // The quota of one is still used, and free again when it ends.
    assert_eq!(before.try_allocate(&mut relay, &[]).code(), 486);
    assert_eq!(refresh(&mut after, &mut relay, &second, 0).code(), 0);
    assert_eq!(before.try_allocate(&mut relay, &[]).code(), 0);
}

#[test]
fn an_old_ticket_moves_nothing_and_a_retransmission_is_answered_again() {
    let mut relay = Relay::with(mobile());
    let (relayed, first) = allocate(&mut Client::new("192.0.2.1:4000"), &mut relay);
    let mut after = Client::new("198.51.100.9:5000");
    // With a nonce already, for one transaction.
    refresh(&mut after, &mut relay, &attribute(b"x").value, 600);
    after.transaction = Some(TransactionId::generate());
    let answer = refresh(&mut after, &mut relay, &first, 600);
    let again = refresh(&mut after, &mut relay, &first, 600);
    assert_eq!((answer.code(), again.code()), (0, 0));
    assert_eq!(ticket_of(&answer), ticket_of(&again));
    after.transaction = None;
    // The same ticket with another transaction, and from elsewhere.
    assert_eq!(refresh(&mut after, &mut relay, &first, 600).code(), 437);
    let mut elsewhere = Client::new("198.51.100.9:5001");
    assert_eq!(refresh(&mut elsewhere, &mut relay, &first, 600).code(), 437);
    assert_eq!(relay.stats().allocations_moved, 1);
    assert!(relay.open.contains_key(&relayed));
    // The present one is as good as none where the allocation is.
    let present = ticket_of(&again).unwrap();
    let answer = refresh(&mut after, &mut relay, &present, 600);
    assert_eq!((answer.code(), ticket_of(&answer)), (0, Some(present)));
}

#[test]
fn the_wrong_user_a_forged_ticket_and_a_five_tuple_in_use_are_refused() {
    let mut relay = Relay::with(mobile());
    let mut alice = Client::new("192.0.2.1:4000");
    let (relayed, ticket) = allocate(&mut alice, &mut relay);
    let mut bob = Client::named("192.0.2.2:4000", "bob", "builder");
    assert_eq!(refresh(&mut bob, &mut relay, &ticket, 0).code(), 441);
    for forged in [&b""[..], b"x", &[b'A'; 32], &ticket[..31]] {
        let mut other = Client::new("192.0.2.3:4000");
        assert_eq!(refresh(&mut other, &mut relay, forged, 0).code(), 400);
    }
    // Bob has an allocation of his own: on that five-tuple there is no room for another, nor for his on hers.
    let (_, of_bob) = allocate(&mut bob, &mut relay);
    assert_eq!(refresh(&mut bob, &mut relay, &ticket, 0).code(), 437);
    assert_eq!(refresh(&mut alice, &mut relay, &of_bob, 0).code(), 437);
    assert_eq!(alice.bind(&mut relay, 0x4000, PEER), 0);
    assert!(reaches(&mut relay, relayed, &alice));
    assert_eq!(relay.stats().allocations, 2);
    assert_eq!(relay.stats().allocations_moved, 0);
}

#[test]
fn tickets_are_for_those_who_ask_and_where_it_is_allowed() {
    let mut relay = Relay::with(mobile());
    let mut client = Client::new("192.0.2.1:4000");
    let full = client.try_allocate(&mut relay, &[&attribute(b"ticket")]);
    assert_eq!(full.code(), 400);
    let plain = client.try_allocate(&mut relay, &[]);
    assert_eq!((plain.code(), ticket_of(&plain)), (0, None));

    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let answer = client.try_allocate(&mut relay, &[&attribute(b"")]);
    assert_eq!(answer.code(), 405);
    assert_eq!(relay.stats().allocations, 0);
    client.allocate(&mut relay);
    assert_eq!(refresh(&mut client, &mut relay, b"x", 600).code(), 405);
}

#[test]
fn a_retransmitted_allocate_has_the_same_ticket() {
    let mut relay = Relay::with(mobile());
    let mut client = Client::new("192.0.2.1:4000");
    client.transaction = Some(TransactionId::generate());
    let first = allocate(&mut client, &mut relay);
    assert_eq!(allocate(&mut client, &mut relay), first);
}

/// Sends a Refresh request that another shard has to do with; the answer, after all was said.
fn resume(shards: &mut [Relay], at: usize, client: &mut Client, ticket: &[u8]) -> Answer {
    if client.nonce.is_none() {
        // A nonce, by a ticket that is none.
        assert_eq!(refresh(client, &mut shards[at], b"x", 600).code(), 400);
    }
    let (ticket, lifetime) = (attribute(ticket), Lifetime::new(600));
    let attributes: [&dyn AttributeWrite; 2] = [&ticket, &lifetime];
    let request = client.signed(REFRESH, &attributes);
    let asked = shards[at].client_sends(client.address, &request);
    assert_eq!(asked, Outcome::Nothing);
    // One that waits is enough.
    let asked = shards[at].client_sends(client.address, &request);
    assert_eq!((asked, shards[at].letters.len()), (Outcome::Nothing, 1));
    Relay::carry_letters(shards);
    match shards[at].polled() {
        Outcome::Answer(bytes) => {
            let message = Message::from_bytes(&bytes).unwrap();
            message.validate_integrity(&client.credentials()).unwrap();
            Answer(bytes)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_allocation_moves_to_another_shard_with_all_that_it_has() {
    let mut shards = Relay::shards(3, mobile());
    let mut before = Client::new("192.0.2.1:4000");
    let (relayed, first) = allocate(&mut before, &mut shards[0]);
    assert_eq!(before.bind(&mut shards[0], 0x4000, PEER), 0);

    let mut after = Client::new("198.51.100.9:5000");
    let answer = resume(&mut shards, 1, &mut after, &first);
    assert_eq!(answer.code(), 0);
    let second = ticket_of(&answer).unwrap();
    assert!(shards[0].open.is_empty());
    assert!(reaches(&mut shards[1], relayed, &after));
    for (shard, count) in [(0, 0), (1, 1)] {
        let stats = shards[shard].stats();
        assert_eq!(stats.allocations, count);
        assert_eq!((stats.permissions, stats.channels), (count, count));
    }
    // The user's one allocation is used, wherever it is.
    assert_eq!(before.try_allocate(&mut shards[0], &[]).code(), 486);
    // On, by its new ticket, while the old one is worth nothing.
    let mut third = Client::new("198.51.100.9:5001");
    assert_eq!(resume(&mut shards, 2, &mut third, &first).code(), 437);
    assert_eq!(resume(&mut shards, 2, &mut third, &second).code(), 0);
    assert!(reaches(&mut shards[2], relayed, &third));
    // It ends where it is, in time, and its quota with it.
    for shard in &mut shards {
        shard.pass(601);
        assert!(shard.open.is_empty());
        assert_eq!(shard.stats().allocations, 0);
    }
    before.nonce = None;
    assert_eq!(before.try_allocate(&mut shards[0], &[]).code(), 0);
}

#[test]
fn another_shard_refuses_the_wrong_user_and_keeps_what_it_has() {
    let mut shards = Relay::shards(2, mobile());
    let mut alice = Client::new("192.0.2.1:4000");
    let (relayed, ticket) = allocate(&mut alice, &mut shards[0]);
    assert_eq!(alice.bind(&mut shards[0], 0x4000, PEER), 0);
    let mut bob = Client::named("192.0.2.2:4000", "bob", "builder");
    assert_eq!(resume(&mut shards, 1, &mut bob, &ticket).code(), 441);
    assert!(reaches(&mut shards[0], relayed, &alice));
}

#[test]
fn of_two_that_ask_at_once_one_gets_it() {
    let mut shards = Relay::shards(3, mobile());
    let (relayed, ticket) = allocate(&mut Client::new("192.0.2.1:4000"), &mut shards[0]);
    let mut clients = [Client::new("192.0.2.2:4000"), Client::new("192.0.2.3:4000")];
    for (at, client) in clients.iter_mut().enumerate() {
        assert_eq!(refresh(client, &mut shards[at + 1], b"x", 600).code(), 400);
        let request = client.signed(REFRESH, &[&attribute(&ticket)]);
        shards[at + 1].client_sends(client.address, &request);
    }
    Relay::carry_letters(&mut shards);
    let codes = [1, 2].map(|at| match shards[at].polled() {
        Outcome::Answer(bytes) => Answer(bytes).code(),
        other => panic!("{other:?}"),
    });
    assert_eq!(codes, [0, 437]);
    assert!(shards[1].open.contains_key(&relayed));
}

fn over_tcp(client: &Client, connection: u32) -> FiveTuple {
    FiveTuple {
        client: ClientAddr(client.address),
        server: ServerAddr(common::server_addr()),
        transport: Transport::Tcp(ConnectionId(connection)),
    }
}

#[test]
fn a_mobile_allocation_outlives_its_connection_and_moves_to_udp() {
    let mut relay = Relay::with(mobile());
    let mut before = Client::new("192.0.2.1:4000");
    before.transport = Transport::Tcp(ConnectionId(7));
    let (relayed, ticket) = allocate(&mut before, &mut relay);
    assert_eq!(before.bind(&mut relay, 0x4000, PEER), 0);
    relay
        .server
        .handle_connection_closed(relay.now, over_tcp(&before, 7));
    // Nobody gets what is sent meanwhile, above all not who gets the connection's number next.
    let verdict = relay.server.handle_peer_datagram(
        relay.now,
        relay.open[&relayed],
        model::PeerAddr(addr(PEER)),
        b"x",
    );
    if let turn_relay_proto::Verdict::ToClient { path, .. } = verdict {
        assert_eq!(path.transport, Transport::Tcp(ConnectionId::GONE));
    }
    assert!(!relay.server.has_allocation(over_tcp(&before, 7)));
    let mut after = Client::new("198.51.100.9:5000");
    assert_eq!(refresh(&mut after, &mut relay, &ticket, 600).code(), 0);
    assert!(reaches(&mut relay, relayed, &after));
}

#[test]
fn a_connection_that_ends_while_its_allocation_is_on_its_way_gets_nothing() {
    let mut shards = Relay::shards(2, mobile());
    let (relayed, ticket) = allocate(&mut Client::new("192.0.2.1:4000"), &mut shards[0]);
    let mut client = Client::new("192.0.2.2:4000");
    client.transport = Transport::Tcp(ConnectionId(3));
    assert_eq!(refresh(&mut client, &mut shards[1], b"x", 600).code(), 400);
    let request = client.signed(REFRESH, &[&attribute(&ticket)]);
    shards[1].client_sends_over(client.transport, client.address, &request);
    let now = shards[1].now;
    shards[1]
        .server
        .handle_connection_closed(now, over_tcp(&client, 3));
    Relay::carry_letters(&mut shards);
    assert_eq!(shards[1].stats().allocations, 0);
    assert!(!shards[1].open.contains_key(&relayed));
    // Port and quota came back.
    let mut again = Client::new("192.0.2.1:4001");
    allocate(&mut again, &mut shards[0]);
}

#[test]
fn without_ticket_an_allocation_ends_with_its_connection() {
    let mut relay = Relay::with(mobile());
    let mut client = Client::new("192.0.2.1:4000");
    client.transport = Transport::Tcp(ConnectionId(7));
    client.allocate(&mut relay);
    relay
        .server
        .handle_connection_closed(relay.now, over_tcp(&client, 7));
    assert_eq!(relay.polled(), Outcome::Nothing);
    assert!(relay.open.is_empty());
}

#[test]
fn an_allocation_meets_the_settings_of_the_shard_that_it_comes_to() {
    let mut shards = Relay::shards(2, mobile());
    let mut alice = Client::new("192.0.2.1:4000");
    let (relayed, ticket) = allocate(&mut alice, &mut shards[0]);
    assert_eq!(alice.bind(&mut shards[0], 0x4000, PEER), 0);
    // A reload has come to one shard, and not yet to the other.
    let mut new = shards[1].config.clone();
    let server = ServerAddr(common::server_addr());
    let allowed = vec!["10.0.0.128/25".parse().unwrap()];
    let policy = Arc::new(PeerPolicy::new(allowed, &[server]));
    common::change_realm(&mut new, |realm| realm.peer_policy = policy);
    let now = shards[1].now.instant;
    shards[1].server.replace_config(now, new);
    let mut after = Client::new("198.51.100.9:5000");
    assert_eq!(resume(&mut shards, 1, &mut after, &ticket).code(), 0);
    assert!(!reaches(&mut shards[1], relayed, &after));
    let stats = shards[1].stats();
    let left = (stats.allocations, stats.permissions, stats.channels);
    assert_eq!(left, (1, 0, 0));
}
