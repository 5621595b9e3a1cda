//! Clients of RFC 6062.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use super::common::{Answer, Client, Outcome, Relay, addr};
use std::net::SocketAddr;
use stun_types::attribute::AttributeWrite;
use stun_types::message::TransactionId;
use turn_relay_proto::{ConnectionId, Output, PeerConnectionId, RelayId, Transport};
use turn_types::attribute::{ConnectionId as Number, RequestedTransport, XorPeerAddress};
use turn_types::message::{ALLOCATE, CONNECT, CONNECTION_BIND};

/// A client over TCP. Each number is a connection of its own.
pub fn client(address: &str, number: u32) -> Client {
    let mut client = Client::new(address);
    client.transport = Transport::Tcp(ConnectionId(number));
    client
}

pub fn try_allocate(
    client: &mut Client,
    relay: &mut Relay,
    more: &[&dyn AttributeWrite],
) -> Answer {
    let tcp = RequestedTransport::new(6);
    let mut attributes: Vec<&dyn AttributeWrite> = vec![&tcp];
    attributes.extend(more);
    client.request(relay, ALLOCATE, &attributes)
}

pub fn allocate(client: &mut Client, relay: &mut Relay) -> SocketAddr {
    let answer = try_allocate(client, relay, &[]);
    assert_eq!(answer.code(), 0);
    answer.relayed()[0]
}

/// A Connect request that is answered at once: the code.
pub fn refused(client: &mut Client, relay: &mut Relay, peer: &str) -> u16 {
    let id = TransactionId::generate();
    client.transaction = Some(id);
    let peer = XorPeerAddress::new(addr(peer), id);
    let answer = client.request(relay, CONNECT, &[&peer]);
    client.transaction = None;
    answer.code()
}

/// A Connect request that the shell is asked to see to.
pub fn connect(client: &mut Client, relay: &mut Relay, peer: &str) -> (RelayId, PeerConnectionId) {
    let id = TransactionId::generate();
    client.transaction = Some(id);
    let address = XorPeerAddress::new(addr(peer), id);
    let request = client.signed(CONNECT, &[&address]);
    client.transaction = None;
    let outcome = relay.client_sends_over(client.transport, client.address, &request);
    assert_eq!(outcome, Outcome::Nothing);
    match relay.take_peer_outputs()[..] {
        [
            Output::Connect {
                connection,
                relay: id,
                from,
                peer: to,
            },
        ] => {
            assert_eq!(to.0, addr(peer));
            assert_eq!(relay.open[&from], id);
            (id, connection)
        }
        ref other => panic!("{other:?}"),
    }
}

/// The one answer that came by itself, and its code.
pub fn answered(client: &Client, relay: &mut Relay) -> Answer {
    let answers = relay.take_answers();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].0, client.address);
    Answer(answers.into_iter().next().unwrap().1)
}

/// A connection to a peer that is up: its number.
pub fn connected(client: &mut Client, relay: &mut Relay, peer: &str) -> u32 {
    let (id, connection) = connect(client, relay, peer);
    assert!(relay.connected(id, connection, true));
    let answer = answered(client, relay);
    assert_eq!(answer.code(), 0);
    answer
        .message()
        .validate_integrity(&client.credentials())
        .unwrap();
    let number = answer.get::<Number>().unwrap().id();
    assert_eq!(number, connection.number());
    number
}

/// The code of the answer to ConnectionBind.
pub fn bind(data: &mut Client, relay: &mut Relay, number: u32) -> u16 {
    data.request(relay, CONNECTION_BIND, &[&Number::new(number)])
        .code()
}
