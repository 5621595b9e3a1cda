//! What must not grow: memory for random datagrams, and ports and memory for allocations that come and go.
//!
//! By default smaller than what it is about; `TURNPIKE_ENDURANCE=full` is 10 million datagrams, and 16 000 allocations
//! made and released ten times.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/random.rs"]
mod random;

use common::{Service, signed, verified};
use random::Random;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;
use stun_types::attribute::Nonce;
use stun_types::message::{Message, MessageWrite, MessageWriteExt, MessageWriteVec, Method};
use turn_types::attribute::{Lifetime, RequestedTransport, XorRelayedAddress};
use turn_types::message::{ALLOCATE, REFRESH};

fn is_full() -> bool {
    std::env::var("TURNPIKE_ENDURANCE").is_ok_and(|value| value == "full")
}

/// A relay with one event loop, to which strangers may speak as much as they like.
fn start(relay: &str, ports: &str) -> Service {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let config = "threads = 1\nallocations-per-user = 100000\n\
         unauthenticated-answers-per-second = 0\nunauthenticated-answers-per-second-per-prefix = 0\n";
    file.write_all(config.as_bytes()).unwrap();
    Service::start(&[
        "--config",
        file.path().to_str().unwrap(),
        "--listen",
        "udp://127.0.0.1:0",
        "--relay-address",
        relay,
        "--allow-peer",
        "127.0.0.0/8",
        "--port-range",
        ports,
    ])
}

/// Resident bytes of the relay that are its own.
fn resident(service: &Service) -> u64 {
    let status = format!("/proc/{}/status", service.child.id());
    let status = std::fs::read_to_string(status).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

/// Sockets of the relay. Not out of `/proc/net/udp`, which is no snapshot when there are so many.
fn sockets(service: &Service) -> usize {
    let links = std::fs::read_dir(format!("/proc/{}/fd", service.child.id())).unwrap();
    links
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

/// Anything; most of it with the head of a STUN message or of ChannelData, so that it gets further.
fn datagram<'b>(random: &mut Random, buffer: &'b mut [u8; 608]) -> &'b [u8] {
    let length = (random.next() % 600) as usize;
    for chunk in buffer.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.next().to_be_bytes());
    }
    let shape = random.next() % 4;
    if shape > 0 && length >= 24 {
        let length = length / 4 * 4;
        let methods = [
            0x0001u16, 0x0003, 0x0004, 0x0006, 0x0008, 0x0009, 0x0016, 0x4000,
        ];
        let method = methods[random.next() as usize % methods.len()];
        buffer[..2].copy_from_slice(&method.to_be_bytes());
        buffer[2..4].copy_from_slice(&((length - 20) as u16).to_be_bytes());
        buffer[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        if shape == 3 {
            // One attribute, of some type that exists.
            let kind = [
                0x0006u16, 0x0008, 0x0009, 0x0014, 0x0015, 0x0019, 0x8022, 0x0020,
            ];
            let kind = kind[random.next() as usize % kind.len()];
            buffer[20..22].copy_from_slice(&kind.to_be_bytes());
            buffer[22..24].copy_from_slice(&((length - 24) as u16).to_be_bytes());
        }
        return &buffer[..length];
    }
    &buffer[..length]
}

#[test]
fn random_datagrams_leave_the_memory_as_it_was() {
    const EACH: u64 = 128;
    let count: u64 = if is_full() { 10_000_000 } else { 300_000 };
    let service = start("127.0.0.1", "49152-65535");
    let server = service.listen[0];
    let sources: Vec<UdpSocket> = (0..64)
        .map(|n| {
            let socket = UdpSocket::bind((Ipv4Addr::new(127, 1, n, 1), 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let control = UdpSocket::bind("127.0.0.1:0").unwrap();
    control.connect(server).unwrap();
    control.set_read_timeout(Some(common::DEADLINE)).unwrap();
    let binding = Message::builder_request(stun_types::message::BINDING, MessageWriteVec::new());
    let binding = binding.finish();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut buffer = [0; 608];
    let mut send = |count: u64| {
        for turn in 0..count / EACH {
            for n in 0..EACH {
                let source = &sources[((turn + n) % 64) as usize];
                source
                    .send_to(datagram(&mut random, &mut buffer), server)
                    .unwrap();
                // Its answers, so that they do not pile up in the kernel.
                while source.recv(&mut [0; 1]).is_ok() {}
            }
            // In order behind the others: what was sent before is done with.
            control.send(&binding).unwrap();
            control.recv(&mut [0; 100]).unwrap();
        }
    };
    send(100_000);
    let before = resident(&service);
    send(count);
    let grown = resident(&service).saturating_sub(before);
    println!("{count} random datagrams: {grown} bytes more");
    assert!(
        grown < 1 << 20,
        "{count} random datagrams: {grown} bytes more"
    );
    assert_eq!(service.metric("allocations"), 0);
    let text = service.metrics();
    let dropped = text
        .lines()
        .filter(|line| line.contains("dropped_packets_total{"));
    let dropped = dropped.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
    // They really came that far.
    assert!(dropped.sum::<u64>() > count / 4);
}

/// One allocation's client.
struct Held {
    socket: UdpSocket,
    nonce: Option<String>,
}

/// Sends a request for each, some at a time, until all are answered.
fn all(
    clients: &mut [Held],
    request: impl Fn(&Held) -> Vec<u8>,
    mut on_answer: impl FnMut(&mut Held, Vec<u8>),
) {
    for group in clients.chunks_mut(64) {
        let requests: Vec<_> = group.iter().map(&request).collect();
        for (client, request) in group.iter().zip(&requests) {
            client.socket.send(request).unwrap();
        }
        for (client, request) in group.iter_mut().zip(&requests) {
            let mut buffer = [0; 600];
            // What the kernel lost under load is said again.
            let length = (0..20)
                .find_map(|_| {
                    client.socket.recv(&mut buffer).ok().or_else(|| {
                        client.socket.send(request).unwrap();
                        None
                    })
                })
                .expect("an answer in time");
            on_answer(client, buffer[..length].to_vec());
        }
    }
}

fn from_owner(method: Method, client: &Held, lifetime: u32) -> Vec<u8> {
    let nonce = client.nonce.as_deref().unwrap();
    signed(method, nonce, |writer| {
        if method == ALLOCATE {
            let udp = RequestedTransport::new(RequestedTransport::UDP);
            writer.add_attribute(&udp).unwrap();
        }
        writer.add_attribute(&Lifetime::new(lifetime)).unwrap();
    })
}

#[test]
fn allocations_that_come_and_go_leave_no_port_and_no_memory_behind() {
    // A few ports more than allocations, as another program may have one.
    const SPARE: u16 = 8;
    let (count, rounds) = if is_full() { (16_000, 10) } else { (1_600, 4) };
    let soft = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, hard) = nix::sys::resource::getrlimit(soft).unwrap();
    nix::sys::resource::setrlimit(soft, hard, hard).unwrap();
    // Below the ports that the system gives away.
    let ports = format!("10000-{}", 10_000 + count - 1 + SPARE);
    let service = start("127.77.0.1", &ports);
    let server = service.listen[0];
    // At most one more than there are: a connection to the admin port may still be closing.
    let listening = (0..50).map(|_| sockets(&service)).min().unwrap();
    let mut clients: Vec<Held> = (0..count)
        .map(|n| {
            let address = Ipv4Addr::new(127, 78, (n >> 8) as u8, n as u8);
            let socket = UdpSocket::bind((address, 5_000)).unwrap();
            socket.connect(server).unwrap();
            let patience = Some(Duration::from_secs(1));
            socket.set_read_timeout(patience).unwrap();
            Held {
                socket,
                nonce: None,
            }
        })
        .collect();
    let challenge = |_: &Held| {
        let mut writer = Message::builder_request(ALLOCATE, MessageWriteVec::new());
        let udp = RequestedTransport::new(RequestedTransport::UDP);
        writer.add_attribute(&udp).unwrap();
        writer.finish()
    };
    all(&mut clients, challenge, |client, answer| {
        let answer = Message::from_bytes(&answer).unwrap();
        let nonce = answer.attribute::<Nonce>().unwrap();
        client.nonce = Some(nonce.nonce().to_owned());
    });
    let before = resident(&service);
    let mut live = Vec::new();
    for round in 1..=rounds {
        let mut relayed = std::collections::BTreeSet::new();
        let allocate = |client: &Held| from_owner(ALLOCATE, client, 3_600);
        all(&mut clients, allocate, |_, answer| {
            let answer = verified(answer).unwrap();
            let answer = Message::from_bytes(&answer).unwrap();
            let address: XorRelayedAddress = answer.attribute().unwrap();
            let address = address.addr(answer.transaction_id());
            assert_eq!(address.ip(), SocketAddr::from(([127, 77, 0, 1], 0)).ip());
            assert!(relayed.insert(address), "{address} twice in round {round}");
        });
        assert_eq!(relayed.len(), usize::from(count));
        common::until("all allocations", || {
            (service.metric("allocations") == u64::from(count)).then_some(())
        });
        common::until("a socket for each", || {
            let extra = sockets(&service).checked_sub(usize::from(count))?;
            (extra <= listening).then_some(())
        });
        live.push(resident(&service));
        let release = |client: &Held| from_owner(REFRESH, client, 0);
        all(&mut clients, release, |_, answer| {
            // A repeated one finds nothing any more.
            let code = verified(answer).err().unwrap_or(0);
            assert!(code == 0 || code == 437, "{code}");
        });
        common::until("no allocation", || {
            (service.metric("allocations") == 0).then_some(())
        });
        common::until("no socket for any", || {
            (sockets(&service) <= listening).then_some(())
        });
    }
    let each = live[0].saturating_sub(before) / u64::from(count);
    println!("{count} allocations: {each} bytes for each; resident while they live: {live:?}");
    assert!(each <= 2_048, "{each} bytes for each allocation");
    let grown = live[live.len() - 1].saturating_sub(live[1]);
    assert!(
        grown <= 1 << 20,
        "{grown} bytes more in the last round: {live:?}"
    );
}
