//! Relayed addresses that share sockets: each allocation has an address of its own, all have one port per event loop.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, DEADLINE, Service, channel_data, until};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use std::collections::BTreeSet;
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use turn_types::AddressFamily;

/// All of 127.0.0.0/8 leads to this machine.
fn start(io: &str, ports: &str) -> Service {
    Service::start(&[
        "--listen",
        "udp://127.0.0.1:0",
        "--allow-peer",
        "127.0.0.0/8",
        "--relay-sockets",
        "shared",
        "--relay-address",
        "127.0.64.0/24",
        "--port-range",
        ports,
        "--io",
        io,
    ])
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram in time");
    buffer.truncate(length);
    (buffer, from)
}

#[test]
fn clients_share_sockets_and_ports_and_may_talk_to_the_same_peer() {
    for (io, ports) in [
        ("gso", "47000-47999"),
        ("mmsg", "46000-46999"),
        ("plain", "45000-45999"),
    ] {
        let service = start(io, ports);
        let before = service.udp_sockets();
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let client = Client::connect(service.listen[0]);
                let relayed = client.allocate(AddressFamily::IPV4).unwrap();
                (client, relayed)
            })
            .collect();
        assert_eq!(service.udp_sockets(), before, "no socket per allocation");
        let addresses: BTreeSet<_> = clients.iter().map(|(_, relayed)| relayed.ip()).collect();
        assert_eq!(addresses.len(), 20, "an address per allocation");
        let used: BTreeSet<_> = clients.iter().map(|(_, relayed)| relayed.port()).collect();
        assert!(
            used.len() <= 64 && used.iter().all(|port| port % 2 == 0),
            "{used:?}"
        );

        // The same peer, at the same address and port, for all of them.
        let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
        peer.set_read_timeout(Some(DEADLINE)).unwrap();
        for (client, _) in &clients {
            client.bind(0x4000, peer.local_addr().unwrap()).unwrap();
        }
        for (number, (client, relayed)) in clients.iter().enumerate() {
            let payload = vec![number as u8; 700];
            let framed = channel_data(0x4000, &payload);
            for _ in 0..3 {
                client.socket.send(&framed).unwrap();
            }
            for _ in 0..3 {
                assert_eq!(receive(&peer), (payload.clone(), *relayed));
            }
            // A burst back.
            let to = SockaddrStorage::from(*relayed);
            sendmsg(
                peer.as_raw_fd(),
                &[IoSlice::new(&payload.repeat(5))],
                &[ControlMessage::UdpGsoSegments(&700)],
                MsgFlags::empty(),
                Some(&to),
            )
            .unwrap();
            for _ in 0..5 {
                assert_eq!(client.receive(), framed);
            }
        }
    }
}

#[test]
fn an_address_without_allocation_leads_nowhere() {
    let service = start("auto", "44000-44999");
    let client = Client::connect(service.listen[0]);
    let relayed = client.allocate(AddressFamily::IPV4).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.bind(0x4000, peer.local_addr().unwrap()).unwrap();
    client.delete().unwrap();
    peer.send_to(b"anybody?", relayed).unwrap();
    until("the drop", || {
        let dropped = service.metric("dropped_packets_total{reason=\"relay_closed\"}");
        (dropped == 1).then_some(())
    });
}
