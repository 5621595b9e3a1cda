//! ICMP errors from the network, as the kernel tells them, reach the client whose datagram they are about.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Service, channel_data, until};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use stun_types::message::{Message, MessageClass};
use turn_types::AddressFamily;
use turn_types::attribute::{Icmp, XorPeerAddress};

fn start(ip: &str, io: &str) -> Service {
    let listen = format!("udp://{ip}:0");
    Service::start(&[
        "--listen",
        &listen,
        "--allow-peer",
        "127.0.0.0/8",
        "--allow-peer",
        "::1/128",
        "--io",
        io,
    ])
}

/// An address at which nobody is.
fn nobody(ip: &str) -> SocketAddr {
    let socket = UdpSocket::bind(SocketAddr::new(
        ip.trim_matches(['[', ']']).parse().unwrap(),
        0,
    ));
    socket.unwrap().local_addr().unwrap()
}

fn told(client: &Client) -> (SocketAddr, u8, u8) {
    let bytes = client.receive();
    let message = Message::from_bytes(&bytes).unwrap();
    assert_eq!(message.class(), MessageClass::Indication);
    let peer: XorPeerAddress = message.attribute().unwrap();
    let icmp: Icmp = message.attribute().unwrap();
    (
        peer.addr(message.transaction_id()),
        icmp.icmp_type(),
        icmp.code(),
    )
}

fn a_closed_port_is_told(ip: &str, family: AddressFamily, expected: (u8, u8)) {
    for io in ["uring", "gso", "mmsg", "plain"] {
        let service = start(ip, io);
        let client = Client::connect(service.listen[0]);
        client.allocate(family).unwrap();
        let peer = nobody(ip);
        client.bind(0x4000, peer).unwrap();
        client
            .socket
            .send(&channel_data(0x4000, b"anyone?"))
            .unwrap();
        assert_eq!(told(&client), (peer, expected.0, expected.1), "{io}");
        until("the count", || {
            let relayed = service.metric("icmp_errors_total{result=\"relayed\"}");
            (relayed == 1).then_some(())
        });
    }
}

#[test]
fn a_closed_port_is_told_over_ipv4() {
    a_closed_port_is_told("127.0.0.1", AddressFamily::IPV4, (3, 3));
}

#[test]
fn a_closed_port_is_told_over_ipv6() {
    a_closed_port_is_told("[::1]", AddressFamily::IPV6, (1, 4));
}

#[test]
fn errors_about_one_peer_cost_another_nothing() {
    let service = start("127.0.0.1", "gso");
    let client = Client::connect(service.listen[0]);
    client.allocate(AddressFamily::IPV4).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    client.bind(0x4000, nobody("127.0.0.1")).unwrap();
    client.bind(0x4001, peer.local_addr().unwrap()).unwrap();
    for number in 0..500u16 {
        client
            .socket
            .send(&channel_data(0x4000, b"anyone?"))
            .unwrap();
        client
            .socket
            .send(&channel_data(0x4001, &number.to_be_bytes()))
            .unwrap();
        let mut buffer = [0; 16];
        let length = peer.recv(&mut buffer).expect("each of them arrives");
        assert_eq!(buffer[..length], number.to_be_bytes());
    }
    until("the count", || {
        let of = |result| service.metric(&format!("icmp_errors_total{{result=\"{result}\"}}"));
        (of("relayed") >= 8 && of("ignored") > 300).then_some(())
    });
}
