//! Clients over DTLS 1.2, against the real binary on loopback.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/dtls.rs"]
mod dtls;
#[path = "common/stream.rs"]
mod stream;

use common::{DEADLINE, Service, channel_data, command, until};
use dtls::DtlsClient;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
use stream::{Certificate, StreamClient};

const HELLO_RANDOM: std::ops::Range<usize> = 27..59;

fn start(certificate: &Certificate, more: &[&str]) -> Service {
    let flags = certificate.flags();
    let mut args = vec![
        "--listen",
        "dtls://127.0.0.1:0",
        "--allow-peer",
        "127.0.0.0/8",
    ];
    args.extend(flags.iter().map(String::as_str));
    args.extend(more);
    Service::start(&args)
}

fn of_dtls(service: &Service, name: &str) -> u64 {
    service.metric(&format!("{name}{{transport=\"dtls\"}}"))
}

fn dropped(service: &Service, reason: &str) -> u64 {
    service.metric(&format!(
        "dtls_datagrams_dropped_total{{reason=\"{reason}\"}}"
    ))
}

fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// An allocation, and messages of many sizes through a channel in both directions.
fn talks(client: DtlsClient) -> StreamClient<DtlsClient> {
    let mut client = StreamClient::new(client);
    let relayed = client.allocate().unwrap();
    let (peer, address) = peer();
    client.bind(0x4000, address).unwrap();
    let mut buffer = vec![0; 65_536];
    for size in [1, 7, 300, 1_199, 1_200, 4_001, 16_000] {
        let payload: Vec<u8> = (0..size).map(|at| (at * 7 + size) as u8).collect();
        let message = channel_data(0x4000, &payload);
        client.stream.write_all(&message).unwrap();
        let (length, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..length], from), (&payload[..], relayed));
        peer.send_to(&payload, relayed).unwrap();
        assert!(client.stream.message() == message, "{size} bytes");
    }
    client
}

#[test]
fn a_client_and_a_peer_talk_through_a_channel_and_the_end_of_the_session_is_that_of_the_allocation()
{
    let certificate = Certificate::new();
    let service = start(&certificate, &[]);
    let client = DtlsClient::connect(service.listening("dtls")[0]);
    assert_eq!(client.certificate, certificate.der.to_vec());
    let mut client = talks(client);
    until("the counters", || {
        let counted = ["to_peer", "to_client"].map(|direction| {
            let labels = format!("transport=\"dtls\",direction=\"{direction}\"");
            service.metric(&format!("client_packets_total{{{labels}}}"))
        });
        (counted == [7, 7]).then_some(())
    });
    assert_eq!(of_dtls(&service, "connections"), 1);
    assert_eq!(of_dtls(&service, "connections_without_allocation"), 0);
    assert_eq!(of_dtls(&service, "tls_handshakes_total"), 1);
    assert_eq!(service.metric("allocations"), 1);
    client.stream.close();
    until("the end", || {
        (of_dtls(&service, "connections") == 0 && service.metric("allocations") == 0).then_some(())
    });
    let labels = "transport=\"dtls\",reason=\"client\"";
    let closed = service.metric(&format!("connections_closed_total{{{labels}}}"));
    assert_eq!(closed, 1);
}

#[test]
fn a_handshake_survives_the_loss_of_any_datagram() {
    let certificate = Certificate::new();
    let service = start(&certificate, &[]);
    let server = service.listening("dtls")[0];
    for lost in 0..3 {
        let mut client = DtlsClient::new(UdpSocket::bind("127.0.0.1:0").unwrap(), server);
        client.lose = vec![lost];
        client.shake_hands();
        talks(client);
    }
}

#[test]
fn who_begins_anew_from_the_same_port_is_served_and_what_was_there_ends() {
    let certificate = Certificate::new();
    let service = start(&certificate, &[]);
    let server = service.listening("dtls")[0];
    let first = talks(DtlsClient::connect(server));
    let socket = first.stream.socket.try_clone().unwrap();
    let mut second = DtlsClient::new(socket, server);
    second.shake_hands();
    let second = talks(second);
    until("one session", || {
        (of_dtls(&service, "connections") == 1 && service.metric("allocations") == 1).then_some(())
    });
    drop((first, second));
}

#[test]
fn a_certificate_that_is_new_in_its_files_is_shown_to_who_comes_then() {
    let mut certificate = Certificate::new();
    let service = start(&certificate, &[]);
    let server = service.listening("dtls")[0];
    let before = talks(DtlsClient::connect(server));
    certificate.renew();
    until("the new one", || {
        let client = DtlsClient::connect(server);
        (client.certificate == certificate.der.to_vec()).then_some(())
    });
    assert_eq!(service.metric("allocations"), 1);
    drop(before);
}

#[test]
fn openssl_shakes_hands_and_learns_its_address() {
    let certificate = Certificate::new();
    let service = start(&certificate, &[]);
    let server = service.listening("dtls")[0].to_string();
    let trusted = certificate.path("certificate.pem");
    let spawned = Command::new("openssl")
        .args(["s_client", "-dtls1_2", "-quiet", "-verify_return_error"])
        .args(["-CAfile", &trusted, "-connect", &server])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut openssl) = spawned else {
        return;
    };
    // A Binding request.
    let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
    request.extend([7; 12]);
    openssl.stdin.as_mut().unwrap().write_all(&request).unwrap();
    let mut answer = [0; 20];
    let read = openssl.stdout.as_mut().unwrap().read_exact(&mut answer);
    let _ = openssl.kill();
    openssl.wait().unwrap();
    read.unwrap();
    assert_eq!((&answer[..2], &answer[8..]), (&[1, 1][..], &[7; 12][..]));
    until("the counter", || {
        (of_dtls(&service, "tls_handshakes_total") == 1).then_some(())
    });
}

/// The first hello of a client, as it is sent.
fn hello(server: SocketAddr) -> Vec<u8> {
    let mut client = DtlsClient::new(UdpSocket::bind("127.0.0.1:0").unwrap(), server);
    client.lose = vec![0];
    client.step();
    client.sent.swap_remove(0)
}

fn resident(service: &Service) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn a_flood_of_hellos_of_whom_nobody_answers_leaves_nothing_behind() {
    let certificate = Certificate::new();
    let service = start(&certificate, &[]);
    let server = service.listening("dtls")[0];
    let mut hello = hello(server);
    let mut flood = |round: u32| {
        let mut answers = 0;
        for source in 0..200u32 {
            let ip = Ipv4Addr::from(0x7F00_0000 | (round << 8 | source) & 0xFF_FFFF);
            let Ok(socket) = UdpSocket::bind((ip, 0)) else {
                continue;
            };
            socket.set_nonblocking(true).unwrap();
            for number in 0..50u32 {
                hello[HELLO_RANDOM][..4].copy_from_slice(&number.to_be_bytes());
                let _ = socket.send_to(&hello, server);
            }
            // What is answered is shorter than what was asked.
            let mut buffer = [0; 2_048];
            while let Ok(length) = socket.recv(&mut buffer) {
                assert!(length < hello.len());
                answers += 1;
            }
        }
        answers
    };
    let first = flood(1);
    until("the first round", || {
        (service.metric("dtls_cookies_total") > first.max(1)).then_some(())
    });
    let before = resident(&service);
    for round in 2..6 {
        flood(round);
    }
    let cookies = service.metric("dtls_cookies_total");
    assert!(cookies > 1_000, "{cookies} cookies");
    let after = resident(&service);
    assert!(
        after < before + 1_024,
        "{before} kB before, {after} kB after"
    );
    for name in ["connections", "connections_accepted_total"] {
        assert_eq!(of_dtls(&service, name), 0, "{name}");
    }
    talks(DtlsClient::connect(server));
}

#[test]
fn hostile_datagrams_are_dropped_and_counted_and_a_session_lives_on() {
    let certificate = Certificate::new();
    let service = start(&certificate, &[]);
    let server = service.listening("dtls")[0];
    let hello = hello(server);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut hostile = vec![
        Vec::new(),
        vec![22],
        vec![0xFF; 1_500],
        vec![23, 254, 253, 0, 1],
    ];
    // A hello in pieces, of every length, and one that says that it is longer than it is.
    hostile.extend((1..hello.len()).step_by(7).map(|end| hello[..end].to_vec()));
    for at in [11, 12, 14, 15, 16, 19, 20, 21, 22, 23, 24, 59] {
        let mut damaged = hello.clone();
        damaged[at] ^= 0x41;
        hostile.push(damaged);
    }
    for datagram in &hostile {
        stranger.send_to(datagram, server).unwrap();
    }
    until("the drops of strangers", || {
        (dropped(&service, "no_session") + service.metric("dtls_cookies_total")
            > hostile.len() as u64)
            .then_some(())
    });
    assert_eq!(of_dtls(&service, "connections_accepted_total"), 0);

    let client = talks(DtlsClient::connect(server));
    let socket = &client.stream.socket;
    let records: Vec<_> = client.stream.sent.iter().rev().take(4).cloned().collect();
    let mut sent = 0;
    for record in &records {
        // Said again, damaged, cut, and an alert of nobody's.
        let mut damaged = record.clone();
        *damaged.last_mut().unwrap() ^= 1;
        let cut = &record[..record.len() - 1];
        let alert = &[21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40];
        for datagram in [&record[..], &damaged, cut, alert] {
            socket.send(datagram).unwrap();
            sent += 1;
        }
    }
    until("the drops", || {
        (dropped(&service, "bad_record") >= sent).then_some(())
    });
    // A hello without cookie, from its address: it is answered, and changes nothing.
    socket.send(&hello).unwrap();
    let mut client = client;
    client.permit("127.0.0.1:9".parse().unwrap()).unwrap();
    assert_eq!(of_dtls(&service, "connections"), 1);
    assert_eq!(service.metric("allocations"), 1);
}

#[test]
fn a_key_that_dtls_cannot_be_served_with_is_refused_at_the_start() {
    let certificate = Certificate::new();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let made = rcgen::CertificateParams::new(vec!["relay.example".into()]).unwrap();
    let made = made.self_signed(&key).unwrap();
    std::fs::write(certificate.path("certificate.pem"), made.pem()).unwrap();
    std::fs::write(certificate.path("key.pem"), key.serialize_pem()).unwrap();
    let flags = certificate.flags();
    let mut args = vec![
        "--listen",
        "dtls://127.0.0.1:0",
        "--user",
        "alice:wonderland",
    ];
    args.extend(flags.iter().map(String::as_str));
    let ended = command(&args).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    assert!(
        said.contains("key-file") && said.contains("ECDSA"),
        "{said}"
    );
}

#[test]
fn who_does_not_finish_its_handshake_is_closed_and_a_prefix_has_its_share() {
    let certificate = Certificate::new();
    let config = tempfile::NamedTempFile::new().unwrap();
    // Time for all five to come, on a machine that is busy.
    let bounds = "handshake-seconds = 4\nconnections-without-allocation-per-prefix = 3\n";
    std::fs::write(config.path(), bounds).unwrap();
    let service = start(&certificate, &["--config", config.path().to_str().unwrap()]);
    let server = service.listening("dtls")[0];
    for _ in 0..5 {
        let mut client = DtlsClient::new(UdpSocket::bind("127.0.0.1:0").unwrap(), server);
        // Hello, cookie, hello, and never what follows.
        client.lose = (1..1_000).collect();
        until("the second hello", || {
            client.step();
            (client.sent.len() >= 2).then_some(())
        });
    }
    let reason = |name: &str, reason: &str| {
        let labels = format!("transport=\"dtls\",reason=\"{reason}\"");
        service.metric(&format!("connections_{name}_total{{{labels}}}"))
    };
    until("all are refused or closed", || {
        let (refused, closed) = (
            reason("refused", "prefix"),
            reason("closed", "handshake_timeout"),
        );
        (refused >= 1 && closed >= 3 && refused + closed >= 5).then_some(())
    });
    assert_eq!(of_dtls(&service, "connections"), 0);
    talks(DtlsClient::connect(server));
}
