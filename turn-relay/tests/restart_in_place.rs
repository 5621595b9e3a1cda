//! A successor goes on with the sockets and the state of the running process.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{Client, DEADLINE, Service, channel_data, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::Write;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use stream::{Certificate, StreamClient, padded, tcp, tls};
use turn_types::AddressFamily;

const FAMILY: AddressFamily = AddressFamily::IPV4;
const CHANNEL: u16 = 0x4001;

fn running(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

fn succeed(service: &Service, pid: Pid) -> Pid {
    const SAID: &str = "a successor goes on successor=";
    let count = |log: &str| log.matches(SAID).count();
    const FAILED: &str = "no successor: this process goes on";
    let (before, failed) = (count(&service.log()), service.log().matches(FAILED).count());
    kill(pid, Signal::SIGUSR2).unwrap();
    let found = until("a successor", || {
        let log = service.log();
        assert_eq!(log.matches(FAILED).count(), failed, "{log}");
        let line = (count(&log) > before).then(|| log.rsplit(SAID).next().unwrap().to_owned())?;
        line.split_whitespace().next()?.parse().ok()
    });
    Pid::from_raw(found)
}

/// Succeeds the process that was started first.
fn succeed_first(service: &mut Service) -> Pid {
    let successor = succeed(service, Pid::from_raw(service.child.id() as i32));
    assert_eq!(service.child.wait().unwrap().code(), Some(0));
    successor
}

/// The numbers of the event loops are some milliseconds old.
fn is(service: &Service, metric: &str, value: u64) {
    until(metric, || (service.metric(metric) == value).then_some(()));
}

fn start(more: &[&str]) -> Service {
    let base = [
        "--listen",
        "udp://127.0.0.1:0",
        "--listen",
        "tcp://127.0.0.1:0",
        "--allow-peer",
        "127.0.0.0/8",
    ];
    Service::start(&[&base[..], more].concat())
}

/// What one direction of the traffic lost, and the longest silence in it.
#[derive(Debug, Default)]
struct Seen {
    numbers: BTreeSet<u32>,
    last: Option<Instant>,
    longest: Duration,
}

impl Seen {
    fn add(&mut self, number: u32) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now - last);
        }
        self.numbers.insert(number);
    }
}

/// All that arrives in `socket`, by the number in its first four bytes after `skip` others.
fn listen(socket: &UdpSocket, skip: usize, seen: &Mutex<Seen>, over: &AtomicBool, back: bool) {
    let mut buffer = [0; 2_048];
    while !over.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let number = u32::from_be_bytes(buffer[skip..skip + 4].try_into().unwrap());
        seen.lock().unwrap().add(number);
        if back {
            socket.send_to(&buffer[..length], from).unwrap();
        }
    }
}

#[test]
fn under_load_no_allocation_and_hardly_a_packet_is_lost() {
    const CLIENTS: usize = 200;
    const INTERVAL: Duration = Duration::from_micros(500);
    let mut service = start(&[]);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer_address = peer.local_addr().unwrap();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let client = Client::connect(service.listen[0]);
            client.allocate(FAMILY).unwrap();
            client.bind(CHANNEL, peer_address).unwrap();
            client
        })
        .collect();
    // One of them hears the answers to what it sends; the others are there.
    let over = Arc::new(AtomicBool::new(false));
    let (there, back) = (Mutex::new(Seen::default()), Mutex::new(Seen::default()));
    let short = Some(Duration::from_millis(50));
    peer.set_read_timeout(short).unwrap();
    let talker = clients[0].socket.try_clone().unwrap();
    talker.set_read_timeout(short).unwrap();
    let mut sent = 0u32;
    std::thread::scope(|scope| {
        scope.spawn(|| listen(&peer, 0, &there, &over, true));
        scope.spawn(|| listen(&talker, 4, &back, &over, false));
        let sending = scope.spawn(|| {
            let mut sent = 0u32;
            while !over.load(Ordering::Relaxed) {
                talker
                    .send(&channel_data(CHANNEL, &sent.to_be_bytes()))
                    .unwrap();
                sent += 1;
                std::thread::sleep(INTERVAL);
            }
            sent
        });
        until("traffic", || {
            (back.lock().unwrap().numbers.len() > 200).then_some(())
        });
        succeed_first(&mut service);
        let so_far = back.lock().unwrap().numbers.len();
        until("traffic after it", || {
            (back.lock().unwrap().numbers.len() > so_far + 200).then_some(())
        });
        over.store(true, Ordering::Relaxed);
        sent = sending.join().unwrap();
    });
    let (there, back) = (there.into_inner().unwrap(), back.into_inner().unwrap());
    let lost_there = sent as usize - there.numbers.len();
    let lost_back = there.numbers.len() - back.numbers.len();
    let log = service.log();
    let said = log
        .lines()
        .find(|line| line.contains("handed over"))
        .unwrap();
    println!(
        "{said}\nof {sent} packets lost there {lost_there}, back {lost_back}; longest silence there {:?}, back {:?}",
        there.longest, back.longest
    );
    // 100 ms of it, both what was on its way at the end and what was lost.
    let most = (Duration::from_millis(100).as_micros() / INTERVAL.as_micros()) as usize;
    assert!(lost_there < most && lost_back < most);

    // Nobody has to ask for another nonce, and everybody still reaches the peer.
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut buffer = [0; 100];
    for (index, client) in clients.iter().enumerate() {
        if index > 0 {
            let mark = (1_000_000 + index as u32).to_be_bytes();
            client.socket.send(&channel_data(CHANNEL, &mark)).unwrap();
            while peer.recv(&mut buffer).unwrap() != 4 || buffer[..4] != mark {}
            client.permit(peer_address).unwrap();
        }
    }
    assert_eq!(service.metric("allocations"), CLIENTS as u64);
    assert_eq!(service.metric("error_responses_total{code=\"438\"}"), 0);
    // New ones come with ports that nobody has.
    let fresh = Client::connect(service.listen[0]);
    fresh.allocate(FAMILY).unwrap();
}

#[test]
fn connections_of_tcp_go_on_within_a_frame_and_what_waits_is_sent() {
    let mut service = start(&[]);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    let peer_address = peer.local_addr().unwrap();
    let mut client = StreamClient::new(tcp(service.listening("tcp")[0]));
    let relayed = client.allocate().unwrap();
    client.bind(CHANNEL, peer_address).unwrap();
    let mut stranger = StreamClient::new(tcp(service.listening("tcp")[0]));
    // More than the kernel takes: the relay holds the rest, perhaps from the middle of a frame on.
    let payload = [7u8; 1_200];
    let unsent = "connection_frames_dropped_total{transport=\"tcp\"}";
    for number in 0u32.. {
        let packet = [&number.to_be_bytes()[..], &payload].concat();
        peer.send_to(&packet, relayed).unwrap();
        if number.is_multiple_of(500) && service.metric(unsent) > 0 {
            break;
        }
    }
    let frame = padded(&channel_data(CHANNEL, b"first half, second half"));
    let (first, second) = frame.split_at(11);
    client.stream.write_all(first).unwrap();
    // Whether the relay has read it or not: it is part of what the successor gets.
    succeed_first(&mut service);
    client.stream.write_all(second).unwrap();
    let mut buffer = [0; 100];
    let length = peer.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"first half, second half");
    // All that was not dropped arrives, each frame whole and in order.
    let mut last = None;
    peer.send_to(b"the last", relayed).unwrap();
    let mut arrived = 0;
    loop {
        // Until there is room for it, it is dropped like others.
        let frame = client.receive();
        if frame[4..] == *b"the last" {
            break;
        }
        assert_eq!(frame.len(), 4 + 4 + payload.len());
        let number = u32::from_be_bytes(frame[4..8].try_into().unwrap());
        assert!(last.is_none_or(|last| last < number));
        last = Some(number);
        arrived += 1;
        if arrived % 100 == 0 {
            peer.send_to(b"the last", relayed).unwrap();
        }
    }
    println!("{arrived} frames had waited");
    client.send(&channel_data(CHANNEL, b"and on"));
    let length = peer.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"and on");
    // Who had no allocation can make one, on its old connection.
    stranger.allocate().unwrap();
    until("the counts", || {
        let allocations = service.metric("allocations");
        let connections = service.metric("connections{transport=\"tcp\"}");
        ((allocations, connections) == (2, 2)).then_some(())
    });
}

#[test]
fn a_successor_has_a_successor_and_ends_as_the_first_would() {
    let mut service = start(&[]);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(service.listen[0]);
    client.allocate(FAMILY).unwrap();
    let first = succeed_first(&mut service);
    client.permit(peer.local_addr().unwrap()).unwrap();
    let second = succeed(&service, first);
    client.permit(peer.local_addr().unwrap()).unwrap();
    assert_eq!(service.metric("allocations"), 1);
    kill(second, Signal::SIGTERM).unwrap();
    until("the end", || {
        (service.log().matches("run: stopped").count() == 3).then_some(())
    });
}

#[test]
fn when_the_successor_does_not_start_the_process_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("turn-relay.toml");
    let good = "allow-peers = [\"127.0.0.0/8\"]\n";
    std::fs::write(&path, good).unwrap();
    let path_text = path.to_str().unwrap();
    let mut service = Service::start(&["--listen", "udp://127.0.0.1:0", "--config", path_text]);
    let client = Client::connect(service.listen[0]);
    client.allocate(FAMILY).unwrap();
    let pid = Pid::from_raw(service.child.id() as i32);
    std::fs::write(&path, "realm = 5\n").unwrap();
    kill(pid, Signal::SIGUSR2).unwrap();
    until("the failure", || {
        service.log().contains("no successor").then_some(())
    });
    assert!(
        service.log().contains("turn-relay.toml:1"),
        "{}",
        service.log()
    );
    client.permit("127.0.0.1:9".parse().unwrap()).unwrap();
    assert!(running(pid));
    std::fs::write(&path, good).unwrap();
    succeed_first(&mut service);
    client.permit("127.0.0.1:9".parse().unwrap()).unwrap();
}

#[test]
fn a_successor_that_fails_after_it_took_everything_leaves_it_with_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("turn-relay.toml");
    let listen = |address: &str| {
        let text = format!(
            "allow-peers = [\"127.0.0.0/8\"]\nlisten = [\"udp://127.0.0.1:0\", \"tcp://{address}\"]\n"
        );
        std::fs::write(&path, text).unwrap();
    };
    listen("127.0.0.1:0");
    let mut service = Service::start(&["--config", path.to_str().unwrap()]);
    let mut client = StreamClient::new(tcp(service.listening("tcp")[0]));
    client.allocate().unwrap();
    let udp = Client::connect(service.listen[0]);
    udp.allocate(FAMILY).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&taken.local_addr().unwrap().to_string());
    kill(Pid::from_raw(service.child.id() as i32), Signal::SIGUSR2).unwrap();
    until("the failure", || {
        service.log().contains("no successor").then_some(())
    });
    assert!(service.log().contains("in use"), "{}", service.log());
    client.permit("127.0.0.1:9".parse().unwrap()).unwrap();
    udp.permit("127.0.0.1:9".parse().unwrap()).unwrap();
    is(&service, "allocations", 2);
    // Another address: what was at the old one cannot be reached there any more.
    drop(taken);
    listen("127.0.0.2:0");
    succeed_first(&mut service);
    udp.permit("127.0.0.1:9".parse().unwrap()).unwrap();
    client.permit("127.0.0.1:9".parse().unwrap()).unwrap();
    is(&service, "allocations", 2);
}

#[test]
fn sessions_of_tls_end_and_new_ones_are_welcome() {
    let certificate = Certificate::new();
    let flags = certificate.flags();
    let mut args = vec!["--listen", "tls://127.0.0.1:0"];
    args.extend(flags.iter().map(String::as_str));
    let mut service = start(&args);
    let connect = |service: &Service| {
        let address = service.listening("tls")[0];
        let version = &rustls::version::TLS13;
        StreamClient::new(tls(address, &certificate.der, version, &["stun.turn"]).unwrap())
    };
    let mut old = connect(&service);
    old.allocate().unwrap();
    succeed_first(&mut service);
    let mut rest = Vec::new();
    // With or without a good-bye of TLS.
    let _ = std::io::Read::read_to_end(&mut old.stream, &mut rest);
    assert!(rest.is_empty());
    assert_eq!(service.metric("allocations"), 0);
    connect(&service).allocate().unwrap();
}
