//! What strangers and others can do with connections: little, not for long, and counted.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{DEADLINE, Service, channel_data, until};
use rustls::version::TLS13;
use socket2::{SockRef, Socket};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use stream::{Certificate, StreamClient, start, start_tls, tcp, tls};

/// Whether the other side has ended the connection.
fn is_closed(stream: &mut impl Read) -> bool {
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => return false,
                _ => return true,
            },
        }
    }
}

fn closed(service: &Service, transport: &str, reason: &str) -> u64 {
    let labels = format!("transport=\"{transport}\",reason=\"{reason}\"");
    service.metric(&format!("connections_closed_total{{{labels}}}"))
}

fn refused(service: &Service, reason: &str) -> u64 {
    let labels = format!("transport=\"tcp\",reason=\"{reason}\"");
    service.metric(&format!("connections_refused_total{{{labels}}}"))
}

/// An abrupt end: RST instead of FIN.
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(Socket::from(stream));
}

/// It still serves others.
fn serves(address: SocketAddr) {
    let mut client = StreamClient::new(tcp(address));
    let relayed = client.allocate().unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    client.bind(0x4000, peer.local_addr().unwrap()).unwrap();
    client.send(&channel_data(0x4000, b"there"));
    let mut buffer = [0; 10];
    assert_eq!(peer.recv_from(&mut buffer).unwrap(), (5, relayed));
    peer.send_to(b"back", relayed).unwrap();
    assert_eq!(client.receive(), channel_data(0x4000, b"back"));
}

#[test]
fn bytes_that_are_no_frames_end_their_connection_only() {
    let service = start("", &[]);
    let address = service.listening("tcp")[0];
    let mut kept = StreamClient::new(tcp(address));
    kept.allocate().unwrap();
    let too_long_for_a_stranger = channel_data(0x4000, &[0; 5_000]);
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n",
        &[0xFF; 64],
        // A ClientHello, a STUN length that is no multiple of four, another cookie, a long frame.
        &[22, 3, 1, 2, 0, 1, 0],
        &[0, 3, 0, 7, 0x21, 0x12, 0xA4, 0x42],
        &[0, 3, 0, 8, 1, 2, 3, 4],
        &too_long_for_a_stranger[..8],
    ];
    for bytes in garbage {
        let mut stream = tcp(address);
        stream.write_all(bytes).unwrap();
        assert!(is_closed(&mut stream));
    }
    until("the counters", || {
        (closed(&service, "tcp", "bad_frame") == 6).then_some(())
    });
    // Within an allocation, too: there is no way to find the next frame.
    kept.stream.write_all(&[0x90, 0, 0, 0]).unwrap();
    assert!(is_closed(&mut kept.stream));
    until("the end of the allocation", || {
        (service.metric("allocations") == 0).then_some(())
    });
    until("the counter", || {
        (closed(&service, "tcp", "bad_frame") == 7).then_some(())
    });
    serves(address);
}

#[test]
fn a_reset_in_the_middle_of_a_frame_ends_the_allocation() {
    let service = start("", &[]);
    let address = service.listening("tcp")[0];
    for _ in 0..20 {
        let mut client = StreamClient::new(tcp(address));
        client.allocate().unwrap();
        client
            .stream
            .write_all(&channel_data(0x4000, &[7; 1_000])[..500])
            .unwrap();
        reset(client.stream);
    }
    until("the end of the allocations", || {
        let ended = service.metric("allocations_ended_total{reason=\"disconnected\"}");
        (ended == 20 && service.metric("allocations") == 0).then_some(())
    });
    until("the counters", || {
        let broken = closed(&service, "tcp", "broken");
        (broken + closed(&service, "tcp", "client") == 20).then_some(())
    });
    serves(address);
}

#[test]
fn whoever_stays_a_stranger_is_closed_and_whoever_has_an_allocation_stays() {
    let certificate = Certificate::new();
    let config = "handshake-seconds = 1\nwithout-allocation-seconds = 2\n";
    let service = start_tls(&certificate, config);
    let (over_tcp, over_tls) = (service.listening("tcp")[0], service.listening("tls")[0]);
    let mut client = StreamClient::new(tcp(over_tcp));
    client.allocate().unwrap();
    let mut session = StreamClient::new(tls(over_tls, &certificate.der, &TLS13, &[]).unwrap());
    session.allocate().unwrap();
    // Silent; a frame byte by byte; a handshake byte by byte; a session without requests.
    let mut silent = tcp(over_tcp);
    let mut slow = tcp(over_tcp);
    let mut slow_handshake = tcp(over_tls);
    let mut idle = tls(over_tls, &certificate.der, &TLS13, &[]).unwrap();
    for stream in [&slow, &slow_handshake] {
        stream
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
    }
    let mut hello = [22, 3, 1, 1, 0, 1, 0, 0, 0xFC, 3, 3]
        .into_iter()
        .chain([0].repeat(200));
    let request = [&[0, 3, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[1; 12]].concat();
    let mut drip = request.into_iter().cycle();
    until("the slow handshake to be over", || {
        let _ = slow_handshake.write_all(&[hello.next()?]);
        is_closed(&mut slow_handshake).then_some(())
    });
    until("the slow frames to be over", || {
        let _ = slow.write_all(&[drip.next()?]);
        is_closed(&mut slow).then_some(())
    });
    assert!(is_closed(&mut silent) && is_closed(&mut idle));
    until("the counters", || {
        let strangers = [
            closed(&service, "tcp", "stranger"),
            closed(&service, "tls", "stranger"),
        ];
        (strangers == [2, 1] && closed(&service, "tls", "handshake_timeout") == 1).then_some(())
    });
    // Those with an allocation are still there.
    let peer = "127.0.0.1:9".parse().unwrap();
    client.permit(peer).unwrap();
    session.permit(peer).unwrap();
    // Without it, the time begins.
    client.delete().unwrap();
    assert!(is_closed(&mut client.stream));
}

#[test]
fn strangers_of_one_prefix_have_a_share_and_beyond_all_the_oldest_goes() {
    // With one loop it has all of each bound.
    let config = "threads = 1\nconnections-without-allocation-per-prefix = 5\n";
    let service = start(config, &[]);
    let address = service.listening("tcp")[0];
    let strangers: Vec<_> = (0..5).map(|_| tcp(address)).collect();
    until("the strangers", || {
        let now = service.metric("connections_without_allocation{transport=\"tcp\"}");
        (now == 5).then_some(())
    });
    assert!(is_closed(&mut tcp(address)));
    until("the counter", || {
        (refused(&service, "prefix") == 1).then_some(())
    });
    drop(strangers);
    until("room again", || {
        let now = service.metric("connections_without_allocation{transport=\"tcp\"}");
        (now == 0).then_some(())
    });
    serves(address);

    let service = start("threads = 1\nconnections-without-allocation = 3\n", &[]);
    let address = service.listening("tcp")[0];
    let mut client = StreamClient::new(tcp(address));
    client.allocate().unwrap();
    let mut strangers: Vec<_> = (0..4)
        .map(|number| {
            let stream = tcp(address);
            until("the stranger", || {
                let all = service.metric("connections_accepted_total{transport=\"tcp\"}");
                (all == number + 2).then_some(())
            });
            stream
        })
        .collect();
    assert!(is_closed(&mut strangers[0]));
    until("the counter", || {
        (closed(&service, "tcp", "evicted") == 1).then_some(())
    });
    // The others are served, and who has an allocation was never one of them.
    StreamClient::new(strangers.remove(3)).allocate().unwrap();
    client.permit("127.0.0.1:9".parse().unwrap()).unwrap();

    let service = start("threads = 1\nconnections = 2\n", &[]);
    let address = service.listening("tcp")[0];
    let _two = [tcp(address), tcp(address)];
    assert!(is_closed(&mut tcp(address)));
    until("the counter", || {
        (refused(&service, "connections") == 1).then_some(())
    });
}

#[test]
fn a_slow_reader_loses_whole_frames_and_holds_up_nobody() {
    let certificate = Certificate::new();
    let config = "threads = 1\nconnection-buffer-bytes = 65536\n";
    let service = start_tls(&certificate, config);
    let slow = StreamClient::new(tcp(service.listening("tcp")[0]));
    reads_again(&service, slow, "tcp");
    let session = tls(service.listening("tls")[0], &certificate.der, &TLS13, &[]).unwrap();
    reads_again(&service, StreamClient::new(session), "tls");
}

fn reads_again<S: Read + Write>(service: &Service, mut slow: StreamClient<S>, transport: &str) {
    let relayed = slow.allocate().unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    slow.bind(0x4000, peer.local_addr().unwrap()).unwrap();
    let labels = format!("connection_frames_dropped_total{{transport=\"{transport}\"}}");
    let mut number = 0u32;
    until("frames to be dropped", || {
        for _ in 0..2_000 {
            let mut payload = [number as u8; 1_001];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            number += 1;
            peer.send_to(&payload, relayed).unwrap();
        }
        (service.metric(&labels) > 0).then_some(())
    });
    // Others are served meanwhile, and its own requests are answered once it reads.
    serves(service.listening("tcp")[0]);
    let last = [0xEE; 13];
    // Again and again: it may be lost, too.
    let is_over = AtomicBool::new(false);
    let (mut received, mut next) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("the last one", || {
                peer.send_to(&last, relayed).unwrap();
                is_over.load(Ordering::Relaxed).then_some(())
            });
        });
        loop {
            let frame = slow.receive();
            if frame == channel_data(0x4000, &last) {
                break;
            }
            let at = u32::from_be_bytes(*frame[4..].first_chunk().unwrap());
            assert!(at >= next, "{at} after {next}");
            next = at + 1;
            let mut payload = [at as u8; 1_001];
            payload[..4].copy_from_slice(&at.to_be_bytes());
            assert_eq!(frame, channel_data(0x4000, &payload));
            received += 1;
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(received < number, "some were lost");
    let counted =
        format!("client_packets_total{{transport=\"{transport}\",direction=\"to_client\"}}");
    until("the counter", || {
        let all = service.metric(&counted) + service.metric(&labels);
        (all >= u64::from(received)).then_some(())
    });
    until("both counters", || {
        let each = ["tcp", "tls"].map(|transport| {
            let labels = format!("{{transport=\"{transport}\"}}");
            service.metric(&format!("connection_frames_dropped_total{labels}"))
        });
        let all = service.metric("dropped_packets_total{reason=\"connection_buffer_full\"}");
        (all == each.iter().sum()).then_some(())
    });
    // What of the last is still on its way is read before the answer.
    slow.send(&channel_data(0x4000, b"and there"));
    assert!(service.metric("allocations") >= 1);
}

#[test]
fn whoever_reads_no_answers_is_closed() {
    let service = start("", &[]);
    let mut stream = tcp(service.listening("tcp")[0]);
    SockRef::from(&stream).set_recv_buffer_size(4_096).unwrap();
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let request = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[1; 12]].concat();
    let requests = request.repeat(1_000);
    until("the end of the connection", || {
        let _ = stream.write(&requests);
        (closed(&service, "tcp", "answers_unread") == 1).then_some(())
    });
    serves(service.listening("tcp")[0]);
}

#[test]
fn tls_that_is_none_ends_its_connection_only() {
    let certificate = Certificate::new();
    let service = start_tls(&certificate, "");
    let address = service.listening("tls")[0];
    let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[1; 12]].concat();
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &stun,
        &[22, 3, 1, 0xFF, 0xFF, 1],
        &[
            23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
        ],
    ];
    for bytes in garbage {
        let mut stream = tcp(address);
        stream.write_all(bytes).unwrap();
        assert!(is_closed(&mut stream));
    }
    // Garbage after the handshake, where records were.
    let mut session = StreamClient::new(tls(address, &certificate.der, &TLS13, &[]).unwrap());
    session.allocate().unwrap();
    session.stream.sock.write_all(&[23, 3, 3, 0, 32]).unwrap();
    session.stream.sock.write_all(&[0x5A; 32]).unwrap();
    assert!(is_closed(&mut session.stream.sock));
    until("the counters", || {
        let bad = closed(&service, "tls", "bad_tls") == 5;
        (bad && service.metric("allocations") == 0).then_some(())
    });
    serves(service.listening("tcp")[0]);
    StreamClient::new(tls(address, &certificate.der, &TLS13, &[]).unwrap())
        .allocate()
        .unwrap();
}
