//! Clients over TCP and TLS, against the real binary on loopback.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{Client, DEADLINE, Service, channel_data, until};
use rustls::version::{TLS12, TLS13};
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use stream::{Certificate, LISTEN, StreamClient, TlsStream, padded, start, start_tls, tcp, tls};
use turn_types::AddressFamily;

fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A client over TLS, its relayed address, and the peer of its channel 0x4000.
fn with_channel(
    service: &Service,
    certificate: &Certificate,
) -> (StreamClient<TlsStream>, SocketAddr, UdpSocket) {
    let session = tls(service.listening("tls")[0], &certificate.der, &TLS13, &[]).unwrap();
    let mut client = StreamClient::new(session);
    let relayed = client.allocate().unwrap();
    let (peer, address) = peer();
    client.bind(0x4000, address).unwrap();
    (client, relayed, peer)
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram in time");
    buffer.truncate(length);
    (buffer, from)
}

fn payload(number: usize, size: usize) -> Vec<u8> {
    (0..size).map(|at| (number * 31 + at) as u8).collect()
}

/// Runs of equal sizes, shorter and longer ones between, empty ones, some that need padding, some beyond any record.
fn sizes() -> Vec<usize> {
    let mut sizes = vec![1_200; 40];
    sizes.extend([
        300, 1_201, 1_202, 0, 0, 7, 8, 9, 9, 9, 8_000, 20_000, 1, 60_000,
    ]);
    sizes.extend([64; 90]);
    sizes.extend([65; 90]);
    sizes
}

fn everything_arrives<S: Read + Write>(mut client: StreamClient<S>) -> StreamClient<S> {
    let relayed = client.allocate().unwrap();
    let (peer, address) = peer();
    client.bind(0x4000, address).unwrap();
    let all: Vec<_> = sizes().into_iter().enumerate().collect();
    // The peer's buffer is small: a part at a time, in pieces that frames do not care about.
    for (round, some) in all.chunks(16).enumerate() {
        let frames = some
            .iter()
            .map(|(number, size)| padded(&channel_data(0x4000, &payload(*number, *size))));
        let bytes = frames.collect::<Vec<_>>().concat();
        for piece in bytes.chunks(1 + round * 997 % 5_000) {
            client.stream.write_all(piece).unwrap();
        }
        client.stream.flush().unwrap();
        for (number, size) in some {
            assert_eq!(receive(&peer), (payload(*number, *size), relayed));
        }
    }
    for some in all.chunks(16) {
        for (number, size) in some {
            peer.send_to(&payload(*number, *size), relayed).unwrap();
        }
        for (number, size) in some {
            let expected = channel_data(0x4000, &payload(*number, *size));
            assert_eq!(client.receive(), expected);
        }
    }
    client
}

fn counted(service: &Service, transport: &str) -> [u64; 4] {
    ["packets", "bytes"]
        .map(|what| {
            ["to_peer", "to_client"].map(|direction| {
                let labels = format!("transport=\"{transport}\",direction=\"{direction}\"");
                service.metric(&format!("client_{what}_total{{{labels}}}"))
            })
        })
        .concat()
        .try_into()
        .unwrap()
}

fn closed(service: &Service, transport: &str, reason: &str) -> u64 {
    let labels = format!("transport=\"{transport}\",reason=\"{reason}\"");
    service.metric(&format!("connections_closed_total{{{labels}}}"))
}

#[test]
fn frames_of_any_sizes_arrive_whole_and_in_order_over_tcp() {
    let service = Service::start(&LISTEN);
    let client = everything_arrives(StreamClient::new(tcp(service.listening("tcp")[0])));
    let (packets, bytes) = (sizes().len() as u64, sizes().iter().sum::<usize>() as u64);
    until("the counters", || {
        (counted(&service, "tcp") == [packets, packets, bytes, bytes]).then_some(())
    });
    assert_eq!(counted(&service, "udp"), [0; 4]);
    assert_eq!(service.metric("connections{transport=\"tcp\"}"), 1);
    let strangers = "connections_without_allocation{transport=\"tcp\"}";
    assert_eq!(service.metric(strangers), 0);
    // Its allocation ends with the connection.
    let sockets = service.udp_sockets();
    drop(client);
    until("the end of the allocation", || {
        let ended = service.metric("allocations_ended_total{reason=\"disconnected\"}");
        (ended == 1 && service.metric("allocations") == 0).then_some(())
    });
    assert_eq!(service.udp_sockets(), sockets - 1);
    assert_eq!(service.metric("connections{transport=\"tcp\"}"), 0);
    assert_eq!(closed(&service, "tcp", "client"), 1);
}

#[test]
fn frames_of_any_sizes_arrive_whole_and_in_order_over_tls() {
    let certificate = Certificate::new();
    let service = start_tls(&certificate, "");
    let address = service.listening("tls")[0];
    for (round, version) in [&TLS13, &TLS12].into_iter().enumerate() {
        let session = tls(address, &certificate.der, version, &["stun.turn"]).unwrap();
        assert_eq!(session.conn.alpn_protocol(), Some(&b"stun.turn"[..]));
        everything_arrives(StreamClient::new(session));
        let packets = (round as u64 + 1) * sizes().len() as u64;
        until("the counters", || {
            (counted(&service, "tls")[..2] == [packets; 2]).then_some(())
        });
    }
    assert_eq!(service.metric("tls_handshakes_total{transport=\"tls\"}"), 2);
}

/// The lengths of so many records that arrive on a connection, without decrypting them.
fn records(stream: &mut impl Read, count: usize) -> Vec<usize> {
    let lengths = (0..count).map(|_| {
        let mut header = [0; 5];
        stream.read_exact(&mut header).expect("a record in time");
        assert_eq!(header[..3], [23, 3, 3]);
        let length = u16::from_be_bytes([header[3], header[4]]).into();
        stream.read_exact(&mut vec![0; length]).unwrap();
        length
    });
    lengths.collect()
}

#[test]
fn few_frames_have_a_record_each_however_they_came() {
    let certificate = Certificate::new();
    let service = start_tls(&certificate, "");
    let (mut client, relayed, peer) = with_channel(&service, &certificate);
    // Of one length, which the kernel may join, then of many.
    let sizes = [vec![1_000; 16], (100..116).collect()].concat();
    for sizes in sizes.chunks(16) {
        for (number, size) in sizes.iter().enumerate() {
            peer.send_to(&payload(number, *size), relayed).unwrap();
        }
        // Content type and tag (RFC 8446 section 5.2), ChannelData padded.
        let expected: Vec<_> = sizes
            .iter()
            .map(|size| (4 + size).next_multiple_of(4) + 17)
            .collect();
        assert_eq!(records(&mut client.stream.sock, 16), expected);
    }
}

#[test]
fn application_protocols_are_those_of_rfc_7443() {
    let certificate = Certificate::new();
    let service = start_tls(&certificate, "");
    let address = service.listening("tls")[0];
    let session = |alpn: &[&str]| tls(address, &certificate.der, &TLS13, alpn);
    let discovery = session(&["http/1.1", "stun.nat-discovery"]).unwrap();
    assert_eq!(
        discovery.conn.alpn_protocol(),
        Some(&b"stun.nat-discovery"[..])
    );
    assert_eq!(session(&[]).unwrap().conn.alpn_protocol(), None);
    let refused = session(&["http/1.1"]).unwrap_err();
    assert!(
        refused.to_string().contains("NoApplicationProtocol"),
        "{refused}"
    );
    until("the counter", || {
        (closed(&service, "tls", "bad_tls") == 1).then_some(())
    });
}

#[test]
fn keys_that_the_client_renews_are_renewed() {
    let certificate = Certificate::new();
    let service = start_tls(&certificate, "");
    let (mut client, relayed, peer) = with_channel(&service, &certificate);
    for round in 0..5 {
        // It asks for the server's new keys, too.
        client.stream.conn.refresh_traffic_keys().unwrap();
        client.send(&channel_data(0x4000, &payload(round, 900)));
        assert_eq!(receive(&peer).0, payload(round, 900));
        for number in 0..20 {
            peer.send_to(&payload(number, 1_100), relayed).unwrap();
            let expected = channel_data(0x4000, &payload(number, 1_100));
            assert_eq!(client.receive(), expected);
        }
    }
}

#[test]
fn indications_and_a_deleted_allocation_over_tcp() {
    let service = Service::start(&LISTEN);
    let mut client = StreamClient::new(tcp(service.listening("tcp")[0]));
    let relayed = client.allocate().unwrap();
    assert_eq!(client.allocate(), Err(437));
    let (peer, address) = peer();
    client.permit(address).unwrap();
    for size in 0..6 {
        peer.send_to(&payload(1, size), relayed).unwrap();
        let indication = client.receive();
        assert_eq!(indication[..2], [0, 0x17]);
        assert_eq!(indication.len(), 20 + 12 + 4 + size.next_multiple_of(4));
    }
    client.delete().unwrap();
    // The connection serves for another one.
    client.allocate().unwrap();
    until("the counters", || {
        let ended = service.metric("allocations_ended_total{reason=\"deleted\"}");
        (ended == 1 && service.metric("allocations") == 1).then_some(())
    });
}

#[test]
fn clients_are_spread_over_the_loops_and_get_what_is_theirs() {
    let service = Service::start(&[&LISTEN[..], &["--listen", "udp://127.0.0.1:0"]].concat());
    let (peer, address) = peer();
    let mut clients: Vec<_> = (0..40)
        .map(|number| {
            let mut client = StreamClient::new(tcp(service.listening("tcp")[0]));
            let relayed = client.allocate().unwrap();
            client.bind(0x4000 + number, address).unwrap();
            (client, relayed)
        })
        .collect();
    // One over UDP beside them.
    let datagrams = Client::connect(service.listen[0]);
    let over_udp = datagrams.allocate(AddressFamily::IPV4).unwrap();
    datagrams.bind(0x4000, address).unwrap();
    for round in 0..5 {
        for (number, (client, _)) in clients.iter_mut().enumerate() {
            client.send(&channel_data(
                0x4000 + number as u16,
                &payload(number, 101 + round),
            ));
        }
        for _ in 0..clients.len() {
            let (bytes, from) = receive(&peer);
            let number = clients.iter().position(|(_, relayed)| *relayed == from);
            assert_eq!(bytes, payload(number.unwrap(), 101 + round));
            peer.send_to(&bytes, from).unwrap();
        }
        for (number, (client, _)) in clients.iter_mut().enumerate() {
            let expected = channel_data(0x4000 + number as u16, &payload(number, 101 + round));
            assert_eq!(client.receive(), expected);
        }
        peer.send_to(b"datagram", over_udp).unwrap();
        assert_eq!(datagrams.receive(), channel_data(0x4000, b"datagram"));
    }
    until("the counters", || {
        let udp = counted(&service, "udp") == [0, 5, 0, 40];
        (udp && counted(&service, "tcp")[..2] == [200, 200]).then_some(())
    });
}

#[test]
fn both_ends_on_one_relay_over_tcp() {
    let service = Service::start(&LISTEN);
    let [mut a, mut b] = [(); 2].map(|()| StreamClient::new(tcp(service.listening("tcp")[0])));
    let (at_a, at_b) = (a.allocate().unwrap(), b.allocate().unwrap());
    a.bind(0x4000, at_b).unwrap();
    b.bind(0x4001, at_a).unwrap();
    for round in 0..50 {
        a.send(&channel_data(0x4000, &payload(round, 997)));
        assert_eq!(b.receive(), channel_data(0x4001, &payload(round, 997)));
        b.send(&channel_data(0x4001, &payload(round, 13)));
        assert_eq!(a.receive(), channel_data(0x4000, &payload(round, 13)));
    }
}

#[test]
fn quotas_count_connections_like_datagrams() {
    let both = ["--listen", "udp://127.0.0.1:0"];
    let service = start("allocations-per-user = 2", &both);
    let datagrams = Client::connect(service.listen[0]);
    datagrams.allocate(AddressFamily::IPV4).unwrap();
    let address = service.listening("tcp")[0];
    let mut second = StreamClient::new(tcp(address));
    second.allocate().unwrap();
    let mut third = StreamClient::new(tcp(address));
    assert_eq!(third.allocate(), Err(486));
    drop(second);
    until("the end of the second", || third.allocate().ok());
}

#[test]
fn a_wildcard_listener_is_the_address_that_was_connected_to() {
    let args = [
        "--listen",
        "tcp://0.0.0.0:0",
        "--relay-address",
        "127.0.0.1",
    ];
    let service = Service::start(&[&args[..], &LISTEN[2..]].concat());
    let port = service.listening("tcp")[0].port();
    for ip in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        everything_arrives(StreamClient::new(tcp((ip, port).into())));
    }
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_nobody_is_dropped() {
    let mut certificate = Certificate::new();
    let service = start_tls(&certificate, "");
    let address = service.listening("tls")[0];
    let old = certificate.der.clone();
    let session = tls(address, &old, &TLS13, &[]).unwrap();
    let mut client = StreamClient::new(session);
    client.allocate().unwrap();
    certificate.renew();
    until("the new certificate", || {
        tls(address, &certificate.der, &TLS13, &[]).ok()
    });
    assert!(tls(address, &old, &TLS13, &[]).is_err());
    assert_eq!(
        service.metric("certificate_reloads_total{result=\"taken\"}"),
        1
    );
    let (_, address_of_peer) = peer();
    client.permit(address_of_peer).unwrap();
    // Nonsense is not taken.
    std::fs::write(certificate.path("certificate.pem"), "nonsense").unwrap();
    until("the warning", || {
        let failed = service.metric("certificate_reloads_total{result=\"failed\"}");
        (failed == 1).then_some(())
    });
    assert!(service.log().contains("the certificate stays as it was"));
    tls(address, &certificate.der, &TLS13, &[]).unwrap();
    client.permit(address_of_peer).unwrap();
}
