// Included once for each rung of the ladder: `IO` names it.

use crate::common::{Client, DEADLINE, Service, channel_data, until};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use turn_types::AddressFamily;

fn start(args: &[&str]) -> Service {
    let service = Service::start(&[args, &["--io", IO]].concat());
    assert!(service.log().contains(&format!("io={IO}")));
    service
}

fn peer(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram in time");
    buffer.truncate(length);
    (buffer, from)
}

fn counters(service: &Service) -> [u64; 4] {
    [
        "relayed_packets_total{direction=\"to_peer\"}",
        "relayed_bytes_total{direction=\"to_peer\"}",
        "relayed_packets_total{direction=\"to_client\"}",
        "relayed_bytes_total{direction=\"to_client\"}",
    ]
    .map(|name| service.metric(name))
}

const LOOPBACK: [&str; 6] = [
    "--listen",
    "udp://127.0.0.1:0",
    "--allow-peer",
    "127.0.0.0/8",
    "--log",
    "info,turn_relay=trace",
];

#[test]
fn a_client_and_a_peer_talk_through_a_channel_and_the_counters_say_so() {
    let service = start(&LOOPBACK);
    let client = Client::connect(service.listen[0]);
    let relayed = client.allocate(AddressFamily::IPV4).unwrap();
    let (peer, address) = peer("127.0.0.1:0");
    client.bind(0x4000, address).unwrap();
    client.socket.send(&channel_data(0x4000, b"there")).unwrap();
    assert_eq!(receive(&peer), (b"there".to_vec(), relayed));
    peer.send_to(b"and back", relayed).unwrap();
    assert_eq!(client.receive(), channel_data(0x4000, b"and back"));
    until("the counters", || {
        (counters(&service) == [1, 5, 1, 8]).then_some(())
    });
    assert_eq!(service.metric("allocations"), 1);
    assert_eq!(service.metric("channels"), 1);
    assert_eq!(service.metric("requests_total{method=\"allocate\"}"), 2);
    assert_eq!(service.metric("error_responses_total{code=\"401\"}"), 1);
}

#[test]
fn the_same_over_ipv6() {
    let service = start(&["--listen", "udp://[::1]:0", "--allow-peer", "::1/128"]);
    let client = Client::connect(service.listen[0]);
    let relayed = client.allocate(AddressFamily::IPV6).unwrap();
    let (peer, address) = peer("[::1]:0");
    client.bind(0x4000, address).unwrap();
    client.socket.send(&channel_data(0x4000, b"there")).unwrap();
    assert_eq!(receive(&peer), (b"there".to_vec(), relayed));
    peer.send_to(b"and back", relayed).unwrap();
    assert_eq!(client.receive(), channel_data(0x4000, b"and back"));
}

/// Runs of equal sizes, shorter and longer ones between, empty ones, and some beyond any MTU.
fn sizes() -> Vec<usize> {
    let mut sizes = vec![1_200; 70];
    sizes.extend([
        300, 1_200, 1_200, 0, 0, 7, 8, 9, 9, 9, 8_000, 8_000, 1, 20_000,
    ]);
    sizes.extend([64; 130]);
    sizes
}

fn payload(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (number * 31 + at) as u8).collect()
}

#[test]
fn a_burst_of_any_sizes_arrives_whole_and_in_order_both_ways() {
    let service = start(&LOOPBACK);
    let client = Client::connect(service.listen[0]);
    let relayed = client.allocate(AddressFamily::IPV4).unwrap();
    let (peer, address) = peer("127.0.0.1:0");
    client.bind(0x4000, address).unwrap();
    for (number, size) in sizes().into_iter().enumerate() {
        let bytes = channel_data(0x4000, &payload(number, size));
        client.socket.send(&bytes).unwrap();
        // The receiver's buffer is small.
        if number % 16 == 15 {
            for number in number - 15..=number {
                assert_eq!(receive(&peer).0, payload(number, sizes()[number]));
            }
        }
    }
    let rest = sizes().len() / 16 * 16;
    for (number, size) in sizes().into_iter().enumerate().skip(rest) {
        assert_eq!(receive(&peer).0, payload(number, size));
    }
    for (number, size) in sizes().into_iter().enumerate() {
        peer.send_to(&payload(number, size), relayed).unwrap();
        if number % 16 == 15 {
            for number in number - 15..=number {
                let expected = channel_data(0x4000, &payload(number, sizes()[number]));
                assert_eq!(client.receive(), expected);
            }
        }
    }
}

#[test]
fn empty_datagrams_among_others_of_a_burst_are_not_lost() {
    let service = start(&LOOPBACK);
    let client = Client::connect(service.listen[0]);
    client.allocate(AddressFamily::IPV4).unwrap();
    let (peer, address) = peer("127.0.0.1:0");
    client.bind(0x4000, address).unwrap();
    for round in 0..50 {
        for size in [900, 900, 0, 900, 0, 0] {
            let bytes = channel_data(0x4000, &payload(round, size));
            client.socket.send(&bytes).unwrap();
        }
        for size in [900, 900, 0, 900, 0, 0] {
            assert_eq!(receive(&peer).0, payload(round, size));
        }
    }
}

fn send_joined(socket: &UdpSocket, to: Option<SocketAddr>, datagrams: &[Vec<u8>]) {
    let size = datagrams[0].len() as u16;
    let all = datagrams.concat();
    let to = to.map(SockaddrStorage::from);
    let sent = sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(&all)],
        &[ControlMessage::UdpGsoSegments(&size)],
        MsgFlags::empty(),
        to.as_ref(),
    );
    assert_eq!(sent, Ok(all.len()));
}

#[test]
fn what_the_kernel_joined_is_taken_apart_and_joined_again() {
    let service = start(&LOOPBACK);
    let client = Client::connect(service.listen[0]);
    let relayed = client.allocate(AddressFamily::IPV4).unwrap();
    let (peer, address) = peer("127.0.0.1:0");
    client.bind(0x4000, address).unwrap();
    // The last is shorter.
    let payloads: Vec<_> = (0..40)
        .map(|number| payload(number, if number == 39 { 100 } else { 1_000 }))
        .collect();
    let framed: Vec<_> = payloads
        .iter()
        .map(|payload| channel_data(0x4000, payload))
        .collect();
    send_joined(&client.socket, None, &framed);
    for payload in &payloads {
        assert_eq!(&receive(&peer).0, payload);
    }
    send_joined(&peer, Some(relayed), &payloads);
    for framed in &framed {
        assert_eq!(&client.receive(), framed);
    }
    until("the counters", || {
        (counters(&service) == [40, 39_100, 40, 39_100]).then_some(())
    });
}

#[test]
fn many_clients_at_once_get_what_is_theirs() {
    let service = start(&LOOPBACK);
    let (peer, address) = peer("127.0.0.1:0");
    let clients: Vec<_> = (0..40)
        .map(|number| {
            let client = Client::connect(service.listen[0]);
            let relayed = client.allocate(AddressFamily::IPV4).unwrap();
            client.bind(0x4000 + number, address).unwrap();
            (client, relayed)
        })
        .collect();
    until("the counters", || {
        (service.metric("allocations_created_total") == 40).then_some(())
    });
    for round in 0..5 {
        for (number, (client, _)) in clients.iter().enumerate() {
            let bytes = channel_data(0x4000 + number as u16, &payload(number, 100 + round));
            client.socket.send(&bytes).unwrap();
        }
        for _ in &clients {
            let (bytes, from) = receive(&peer);
            let number = clients.iter().position(|(_, relayed)| *relayed == from);
            assert_eq!(bytes, payload(number.unwrap(), 100 + round));
            peer.send_to(&bytes, from).unwrap();
        }
        for (number, (client, _)) in clients.iter().enumerate() {
            let expected = channel_data(0x4000 + number as u16, &payload(number, 100 + round));
            assert_eq!(client.receive(), expected);
        }
    }
}

#[test]
fn a_wildcard_listener_answers_from_the_address_that_was_asked() {
    let args = [
        "--listen",
        "udp://0.0.0.0:0",
        "--relay-address",
        "127.0.0.1",
        "--allow-peer",
        "127.0.0.0/8",
    ];
    let service = start(&args);
    for ip in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        // A connected socket takes answers from this address only.
        let client = Client::connect((ip, service.listen[0].port()).into());
        let relayed = client.allocate(AddressFamily::IPV4).unwrap();
        let (peer, address) = peer("127.0.0.1:0");
        client.bind(0x4000, address).unwrap();
        peer.send_to(b"hello", relayed).unwrap();
        assert_eq!(client.receive(), channel_data(0x4000, b"hello"));
    }
}

#[test]
fn the_socket_of_an_allocation_goes_with_it() {
    let service = start(&LOOPBACK);
    let before = service.udp_sockets();
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let client = Client::connect(service.listen[0]);
            client.allocate(AddressFamily::IPV4).unwrap();
            client
        })
        .collect();
    assert_eq!(service.udp_sockets(), before + 20);
    for client in &clients {
        client.delete().unwrap();
    }
    until("the sockets to be closed", || {
        (service.udp_sockets() == before).then_some(())
    });
    until("the counters", || {
        (service.metric("allocations_ended_total{reason=\"deleted\"}") == 20).then_some(())
    });
    assert_eq!(service.metric("allocations"), 0);
}

#[test]
fn peers_that_are_not_allowed_are_refused() {
    let service = start(&["--listen", "udp://127.0.0.1:0"]);
    assert!(service.log().contains("no peer may be reached"));
    let client = Client::connect(service.listen[0]);
    client.allocate(AddressFamily::IPV4).unwrap();
    assert_eq!(client.permit("127.0.0.1:9".parse().unwrap()), Err(403));
    // Its own listening address never is a peer.
    let service = start(&LOOPBACK);
    let client = Client::connect(service.listen[0]);
    client.allocate(AddressFamily::IPV4).unwrap();
    assert_eq!(client.bind(0x4000, service.listen[0]), Err(403));
}

#[test]
fn two_clients_of_one_relay_talk_to_each_other() {
    let service = start(&LOOPBACK);
    let clients: Vec<_> = (0..8).map(|_| Client::connect(service.listen[0])).collect();
    let relayed: Vec<_> = clients
        .iter()
        .map(|client| client.allocate(AddressFamily::IPV4).unwrap())
        .collect();
    // Each with its neighbor: on two event loops, some pairs are on one and some are not.
    for (number, client) in clients.iter().enumerate() {
        client.bind(0x4000 + number as u16, relayed[number ^ 1]).unwrap();
    }
    for round in 0..20 {
        for (number, client) in clients.iter().enumerate() {
            let burst: Vec<_> = (0..10)
                .map(|n| channel_data(0x4000 + number as u16, &payload(round + n, 300)))
                .collect();
            send_joined(&client.socket, None, &burst);
        }
        for (number, client) in clients.iter().enumerate() {
            for n in 0..10 {
                let expected = channel_data(0x4000 + number as u16, &payload(round + n, 300));
                assert_eq!(client.receive(), expected);
            }
        }
    }
    let packets = 8 * 20 * 10;
    until("the counters", || {
        (counters(&service) == [packets, packets * 300, packets, packets * 300]).then_some(())
    });
}

#[test]
fn answers_come_one_by_one_even_where_the_client_takes_joined_datagrams() {
    let service = start(&LOOPBACK);
    let client = Client::connect(service.listen[0]);
    let gro = nix::sys::socket::sockopt::UdpGroSegment;
    nix::sys::socket::setsockopt(&client.socket, gro, &true).unwrap();
    let request = || {
        let writer = stun_types::message::MessageWriteVec::new();
        let method = stun_types::message::BINDING;
        let writer = stun_types::message::Message::builder_request(method, writer);
        stun_types::message::MessageWrite::finish(writer)
    };
    // In one piece, so that they are answered in one turn.
    send_joined(&client.socket, None, &[request(), request(), request()]);
    for _ in 0..3 {
        let answer = client.receive();
        let message = stun_types::message::Message::from_bytes(&answer).unwrap();
        assert!(message.is_response());
    }
}
