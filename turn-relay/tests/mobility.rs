//! RFC 8016 against the real binary: an allocation goes with its client between event loops and transports, and its socket
//! with it.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{Client, DEADLINE, Service, channel_data, until};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use stream::{StreamClient, tcp};
use stun_types::attribute::{AttributeType, RawAttribute};
use stun_types::message::{Message, MessageWriteExt as _, MessageWriteVec};
use turn_types::attribute::{RequestedTransport, XorRelayedAddress};
use turn_types::message::{ALLOCATE, REFRESH};

const TICKET: AttributeType = AttributeType::new(0x8030);

fn start() -> (Service, tempfile::NamedTempFile) {
    let mut config = tempfile::NamedTempFile::new().unwrap();
    let text = "listen = [\"udp://127.0.0.1:0\", \"tcp://127.0.0.1:0\"]\n\
                allow-peers = [\"127.0.0.0/8\"]\nthreads = 4\n";
    config.write_all(text.as_bytes()).unwrap();
    let service = Service::start(&["--config", config.path().to_str().unwrap()]);
    (service, config)
}

fn put(writer: &mut MessageWriteVec, ticket: &[u8]) {
    let raw = RawAttribute::new(TICKET, ticket);
    writer.add_attribute(&raw).unwrap();
}

fn wanted(writer: &mut MessageWriteVec) {
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    writer.add_attribute(&udp).unwrap();
    put(writer, b"");
}

fn ticket_of(answer: &[u8]) -> Vec<u8> {
    let message = Message::from_bytes(answer).unwrap();
    message.raw_attribute(TICKET).unwrap().value.to_vec()
}

fn relayed_of(answer: &[u8]) -> SocketAddr {
    let message = Message::from_bytes(answer).unwrap();
    let relayed: XorRelayedAddress = message.attribute().unwrap();
    relayed.addr(message.transaction_id())
}

fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// One each way, through the channel that was bound before.
fn talk(client: &Client, peer: &UdpSocket, relayed: SocketAddr) {
    let mut buffer = [0; 16];
    client
        .socket
        .send(&channel_data(0x4000, b"there?"))
        .unwrap();
    let (length, from) = peer.recv_from(&mut buffer).expect("a datagram in time");
    assert_eq!((&buffer[..length], from), (&b"there?"[..], relayed));
    peer.send_to(b"here!", relayed).unwrap();
    assert_eq!(client.receive(), channel_data(0x4000, b"here!"));
}

#[test]
fn an_allocation_goes_from_loop_to_loop_and_carries_on() {
    let (service, _config) = start();
    let mut client = Client::connect(service.listen[0]);
    let answer = client.request(ALLOCATE, wanted).unwrap();
    let (relayed, mut ticket) = (relayed_of(&answer), ticket_of(&answer));
    let (peer, address) = peer();
    client.bind(0x4000, address).unwrap();
    talk(&client, &peer, relayed);
    let sockets = service.udp_sockets();
    for _ in 0..24 {
        let next = Client::connect(service.listen[0]);
        // Sent before the move, to be received after it.
        peer.send_to(b"meanwhile", relayed).unwrap();
        assert_eq!(client.receive(), channel_data(0x4000, b"meanwhile"));
        let answer = next
            .request(REFRESH, |writer| put(writer, &ticket))
            .unwrap();
        let old = std::mem::replace(&mut ticket, ticket_of(&answer));
        talk(&next, &peer, relayed);
        assert!(next.request(REFRESH, |writer| put(writer, &old)).is_err());
        client = next;
    }
    until("the count", || {
        (service.metric("allocations_moved_total") == 24).then_some(())
    });
    assert_eq!(service.udp_sockets(), sockets);
    client.delete().unwrap();
    until("the end", || {
        let gone = service.metric("allocations") == 0 && service.udp_sockets() == sockets - 1;
        gone.then_some(())
    });
}

#[test]
fn an_allocation_outlives_its_connection_and_goes_on_over_udp_and_back() {
    let (service, _config) = start();
    let listening = service.listening("tcp")[0];
    let mut first = StreamClient::new(tcp(listening));
    let answer = first.request(ALLOCATE, wanted).unwrap();
    let (relayed, ticket) = (relayed_of(&answer), ticket_of(&answer));
    let (peer, address) = peer();
    first.bind(0x4000, address).unwrap();
    drop(first);
    let second = Client::connect(service.listen[0]);
    let answer = second
        .request(REFRESH, |writer| put(writer, &ticket))
        .unwrap();
    talk(&second, &peer, relayed);
    let mut third = StreamClient::new(tcp(listening));
    let ticket = ticket_of(&answer);
    third
        .request(REFRESH, |writer| put(writer, &ticket))
        .unwrap();
    third.send(&channel_data(0x4000, b"there?"));
    let mut buffer = [0; 16];
    let (length, _) = peer.recv_from(&mut buffer).expect("a datagram in time");
    assert_eq!(&buffer[..length], b"there?");
    peer.send_to(b"here!", relayed).unwrap();
    assert_eq!(third.receive(), channel_data(0x4000, b"here!"));
    until("the count", || {
        (service.metric("allocations") == 1).then_some(())
    });
}
