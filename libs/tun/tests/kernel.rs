//! A real interface in a network namespace of its own. What the host sends into it comes back with source and
//! destination exchanged, so the host talks to itself through the device. Needs root.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use turnpike_tun::{Device, TunConfig};
use wire::frame::{Frame, Gso, GsoKind, HEADER_LEN, Header, MAX_FRAME_LEN, PartialChecksum};
use wire::ip::{Rewrite, rewrite};

const HERE: [&str; 2] = ["192.0.2.1", "2001:db8:2::1"];
const THERE: [&str; 2] = ["192.0.2.2", "2001:db8:2::2"];

/// Runs a test on a thread that has a network namespace of its own, which takes root.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let in_time = async { tokio::time::timeout(Duration::from_secs(30), test()).await };
        runtime.block_on(in_time).expect("in time");
    });
    thread.join().unwrap();
}

fn device(offload: bool) -> Device {
    let config = TunConfig {
        name: "tptest%d".to_owned(),
        mtu: 1_400,
        offload,
        addresses: vec![
            "192.0.2.1/24".parse().unwrap(),
            "2001:db8:2::1/64".parse().unwrap(),
        ],
        routes: vec![
            "198.51.100.0/24".parse().unwrap(),
            "2001:db8:9::/64".parse().unwrap(),
        ],
    };
    Device::create(config).unwrap()
}

#[derive(Default)]
struct Seen {
    frames: AtomicUsize,
    longest: AtomicUsize,
    joined: AtomicBool,
    partial: AtomicBool,
}

/// Sends back what arrives, with the addresses exchanged; the ports stay.
async fn mirror(device: Arc<Device>, seen: Arc<Seen>) {
    let mut buffer = vec![0; MAX_FRAME_LEN];
    // SAFETY: the descriptor is owned by what is registered and stays the same until that is dropped.
    #[allow(unsafe_code)]
    let readable = unsafe { AsyncFd::register_with_interest(device.clone(), Interest::READABLE) };
    let readable = readable.unwrap();
    loop {
        let mut ready = readable.readable().await.unwrap();
        while let Ok(len) = device.try_recv(&mut buffer) {
            let frame = Frame::decode(&buffer[..len]).unwrap();
            let (header, layout) = (frame.header, *frame.packet.layout());
            seen.frames.fetch_add(1, Ordering::Relaxed);
            seen.longest.fetch_max(len, Ordering::Relaxed);
            seen.joined
                .fetch_or(header.gso.is_some(), Ordering::Relaxed);
            seen.partial
                .fetch_or(header.partial_checksum.is_some(), Ordering::Relaxed);
            let exchange = Rewrite {
                src: Some(layout.destination),
                dst: Some(layout.source),
            };
            rewrite(&mut buffer[HEADER_LEN..len], exchange, header.checksum()).unwrap();
            let _ = device.try_send(&buffer[..len]);
        }
        ready.clear_ready();
    }
}

fn start(device: Device) -> Arc<Seen> {
    let seen = Arc::new(Seen::default());
    tokio::spawn(mirror(Arc::new(device), seen.clone()));
    seen
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

async fn udp_echo(family: usize, len: usize) {
    let here = UdpSocket::bind(at(HERE[family], 0)).await.unwrap();
    let service = UdpSocket::bind(at(HERE[family], 0)).await.unwrap();
    // Only the addresses are exchanged, so what is sent to a port arrives at that port.
    let there = at(THERE[family], service.local_addr().unwrap().port());
    let payload: Vec<u8> = (0..len).map(|i| i as u8).collect();
    here.send_to(&payload, there).await.unwrap();
    let mut buffer = vec![0; 65_536];
    let (got, from) = service.recv_from(&mut buffer).await.unwrap();
    assert_eq!(from.ip().to_string(), THERE[family]);
    assert_eq!(buffer[..got], payload);
    service.send_to(&payload, from).await.unwrap();
    let (got, _) = here.recv_from(&mut buffer).await.unwrap();
    assert_eq!(buffer[..got], payload);
}

async fn tcp_bulk(family: usize, len: usize) {
    let listener = TcpListener::bind(at(HERE[family], 0)).await.unwrap();
    let there = at(THERE[family], listener.local_addr().unwrap().port());
    let payload: Arc<Vec<u8>> = Arc::new((0..len).map(|i| (i / 7) as u8).collect());
    let client = TcpStream::connect(there).await.unwrap();
    let (service, _) = listener.accept().await.unwrap();
    let (mut client, mut service) = (client.into_std().unwrap(), service.into_std().unwrap());
    client.set_nonblocking(false).unwrap();
    service.set_nonblocking(false).unwrap();
    let expected = payload.clone();
    let write = tokio::task::spawn_blocking(move || {
        client.write_all(&payload).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let read = tokio::task::spawn_blocking(move || {
        let mut got = Vec::new();
        service.read_to_end(&mut got).unwrap();
        got
    });
    write.await.unwrap();
    assert!(
        read.await.unwrap() == *expected,
        "what arrived is not what was sent"
    );
}

#[test]
fn tcp_arrives_joined_and_whole_over_both_families() {
    in_namespace(|| async {
        let device = device(true);
        assert!(device.offload());
        let device = Arc::new(device);
        for family in [0, 1] {
            let seen = Arc::new(Seen::default());
            let task = tokio::spawn(mirror(device.clone(), seen.clone()));
            tcp_bulk(family, 4 << 20).await;
            task.abort();
            assert!(seen.joined.load(Ordering::Relaxed) && seen.partial.load(Ordering::Relaxed));
            let longest = seen.longest.load(Ordering::Relaxed);
            assert!(longest > 30_000, "the longest frame had {longest} bytes");
        }
    });
}

#[test]
fn udp_of_every_size_passes_over_both_families() {
    in_namespace(|| async {
        let seen = start(device(true));
        for family in [0, 1] {
            for len in [0, 1, 100, 1_352, 1_373, 8_000] {
                udp_echo(family, len).await;
            }
        }
        assert!(
            seen.partial.load(Ordering::Relaxed),
            "checksums were left to us"
        );
    });
}

#[test]
fn without_offload_everything_passes_in_ordinary_packets() {
    in_namespace(|| async {
        let device = device(false);
        assert!(!device.offload());
        let seen = start(device);
        for family in [0, 1] {
            udp_echo(family, 1_000).await;
            tcp_bulk(family, 1 << 20).await;
        }
        assert!(!seen.joined.load(Ordering::Relaxed));
        assert!(seen.longest.load(Ordering::Relaxed) <= HEADER_LEN + 1_400);
    });
}

#[test]
fn an_icmp_echo_request_is_answered_through_the_device() {
    in_namespace(|| async {
        start(device(true));
        // The host is its own peer: it answers the request, and the answer comes back the same way.
        let socket = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::RAW,
            Some(socket2::Protocol::ICMPV4),
        )
        .unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut echo = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1, 1, 2, 3, 4];
        let sum: u32 = echo
            .chunks(2)
            .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
            .sum();
        echo[2..4].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        let socket: std::net::UdpSocket = socket.into();
        let socket = UdpSocket::from_std(socket).unwrap();
        socket.send_to(&echo, at(THERE[0], 0)).await.unwrap();
        let mut buffer = [0; 200];
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let icmp = &buffer[20..len];
            if icmp[0] == 0 {
                assert_eq!(from.ip(), THERE[0].parse::<IpAddr>().unwrap());
                assert_eq!(icmp[4..], echo[4..]);
                return;
            }
        }
    });
}

/// Three datagrams of 1 000 bytes and one of 500, joined, the checksum begun.
fn joined_udp(to_port: u16) -> Vec<u8> {
    let payload: Vec<u8> = (0..3_500u32).map(|i| (i / 1_000) as u8).collect();
    let len = 8 + payload.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend((20 + len).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 2, 192, 0, 2, 1]);
    let sum: u32 = packet
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
        .sum();
    let header_checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&header_checksum.to_be_bytes());
    packet.extend(5_555u16.to_be_bytes());
    packet.extend(to_port.to_be_bytes());
    packet.extend(len.to_be_bytes());
    let pseudo = 0xc000u32 + 0x0202 + 0xc000 + 0x0201 + 17 + u32::from(len);
    packet.extend((((pseudo & 0xffff) + (pseudo >> 16)) as u16).to_be_bytes());
    packet.extend(payload);
    let header = Header {
        gso: Some(Gso {
            kind: GsoKind::UdpL4,
            ecn: false,
            size: 1_000,
        }),
        partial_checksum: Some(PartialChecksum {
            start: 20,
            offset: 6,
        }),
        headers_len: 28,
    };
    [&header.encode(), packet.as_slice()].concat()
}

#[test]
fn what_the_other_side_joined_arrives_as_datagrams_with_and_without_offload() {
    in_namespace(|| async {
        for offload in [true, false] {
            let device = device(offload);
            let service = UdpSocket::bind(at(HERE[0], 0)).await.unwrap();
            device
                .try_send(&joined_udp(service.local_addr().unwrap().port()))
                .unwrap();
            let mut buffer = [0; 4_000];
            for index in 0..4u8 {
                let (len, _) = service.recv_from(&mut buffer).await.unwrap();
                assert_eq!(len, if index < 3 { 1_000 } else { 500 });
                assert!(buffer[..len].iter().all(|&b| b == index));
            }
        }
    });
}

#[test]
fn the_routes_lead_into_the_device() {
    in_namespace(|| async {
        let seen = start(device(true));
        for (family, to) in [(0, "198.51.100.7"), (1, "2001:db8:9::7")] {
            let before = seen.frames.load(Ordering::Relaxed);
            let here = UdpSocket::bind(at(HERE[family], 0)).await.unwrap();
            here.send_to(b"anyone", at(to, 9)).await.unwrap();
            while seen.frames.load(Ordering::Relaxed) == before {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn hostile_frames_are_refused_and_the_device_lives() {
    in_namespace(|| async {
        let device = device(true);
        let mut hostile = joined_udp(9);
        hostile[9] = 2;
        for frame in [&hostile[..], &hostile[..12], &[], &[0x10; 40]] {
            let refused = device.try_send(frame).unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
        }
        let short = device.try_recv(&mut [0; 2_000]).unwrap_err();
        assert_eq!(short.kind(), std::io::ErrorKind::InvalidInput);
        start(device);
        udp_echo(0, 10).await;
    });
}

#[test]
fn a_name_in_use_is_a_clear_error() {
    in_namespace(|| async {
        let config = TunConfig {
            name: "lo".to_owned(),
            mtu: 1_400,
            offload: true,
            addresses: vec![],
            routes: vec![],
        };
        let error = Device::create(config).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot create the TUN interface `lo`: "),
            "{error}"
        );
    });
}
