//! Real sockets on loopback: what is sent in one call arrives as the same datagrams.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use turnpike_net::{Meta, Poller, RecvBatch, SendBatch, UdpOptions, UdpSocket};

fn receive(socket: &UdpSocket, count: usize) -> Vec<(Vec<u8>, Meta)> {
    let mut batch = RecvBatch::new();
    let mut seen = Vec::new();
    let mut poller = Poller::new().unwrap();
    poller.watch(socket, false).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while seen.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} datagrams",
            seen.len()
        );
        poller.wait(Some(deadline)).unwrap();
        let taken = socket.try_recv_batch(&mut batch, |segment, meta| {
            seen.push((segment.to_vec(), meta));
        });
        match taken {
            Err(e) if e.kind() != std::io::ErrorKind::WouldBlock => panic!("{e}"),
            _ => {}
        }
    }
    seen
}

fn bind(address: &str) -> UdpSocket {
    UdpSocket::bind(address.parse().unwrap(), UdpOptions::default()).unwrap()
}

fn round_trip(address: &str) {
    let (a, b) = (bind(address), bind(address));
    let contents: Vec<u8> = (0..10_050u32).map(|i| (i / 1_000) as u8).collect();
    assert_eq!(
        a.try_send(b.local_addr(), &contents, Some(1_000)).unwrap(),
        contents.len()
    );
    let seen = receive(&b, 11);
    assert_eq!(seen.len(), 11);
    for (i, (datagram, meta)) in seen.iter().enumerate() {
        assert_eq!(datagram.len(), if i < 10 { 1_000 } else { 50 });
        assert!(datagram.iter().all(|&byte| usize::from(byte) == i));
        assert_eq!((meta.source, meta.local), (a.local_addr(), b.local_addr()));
    }
}

#[test]
fn segments_of_one_send_arrive_as_datagrams_over_ipv4() {
    round_trip("127.0.0.1:0");
}

#[test]
fn segments_of_one_send_arrive_as_datagrams_over_ipv6() {
    round_trip("[::1]:0");
}

#[test]
fn more_segments_than_one_call_may_carry_are_sent_in_several() {
    let (a, b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let contents = vec![9; 150 * 100];
    assert_eq!(
        a.try_send(b.local_addr(), &contents, Some(100)).unwrap(),
        contents.len()
    );
    assert_eq!(receive(&b, 150).len(), 150);
}

#[test]
fn an_empty_datagram_is_a_datagram() {
    let (a, b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    assert_eq!(a.try_send(b.local_addr(), &[], None).unwrap(), 0);
    assert_eq!(receive(&b, 1)[0].0, Vec::<u8>::new());
}

#[test]
fn a_wildcard_socket_knows_where_it_was_asked_and_answers_from_there() {
    let (server, client) = (bind("0.0.0.0:0"), bind("127.0.0.1:0"));
    let asked = SocketAddr::from(([127, 0, 0, 5], server.local_addr().port()));
    client.try_send(asked, b"question", None).unwrap();
    let meta = receive(&server, 1)[0].1;
    assert_eq!(meta.local, asked);
    server
        .try_send_from(Some(meta.local), meta.source, b"answer", None)
        .unwrap();
    let answer = receive(&client, 1).remove(0);
    assert_eq!(
        (answer.0.as_slice(), answer.1.source),
        (b"answer".as_slice(), asked)
    );
}

#[test]
fn a_batch_arrives_in_order_and_a_refusal_stops_nobody_else() {
    let (a, b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let mut batch = SendBatch::default();
    batch
        .push(None, b.local_addr(), &[b"head".as_slice(), &[1; 96]])
        .unwrap();
    batch
        .push(None, b.local_addr(), &[b"head".as_slice(), &[2; 96]])
        .unwrap();
    // Port 0 is not a destination.
    batch
        .push(None, SocketAddr::from(([127, 0, 0, 1], 0)), &[b"nobody"])
        .unwrap();
    batch
        .push(None, b.local_addr(), &[b"head".as_slice(), &[3; 50]])
        .unwrap();
    let flushed = batch.flush(&a);
    assert_eq!(
        (flushed.sent, flushed.refused, flushed.blocked),
        (3, 1, false)
    );
    assert!(batch.is_empty() && flushed.error.is_some());
    let seen = receive(&b, 3);
    let shapes: Vec<_> = seen.iter().map(|(d, _)| (d.len(), d[4])).collect();
    assert_eq!(shapes, [(100, 1), (100, 2), (54, 3)]);
    assert!(
        a.max_segments() > 1,
        "a refused datagram has switched GSO off for good"
    );
    assert!(seen.iter().all(|(d, _)| d.starts_with(b"head")));
}

/// A network of its own, for this thread: needs root.
#[test]
fn a_shorter_datagram_does_not_share_the_fate_of_one_that_is_too_long_for_the_path() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root");
    let up = ["link", "set", "lo", "mtu", "1500", "up"];
    let status = std::process::Command::new("ip").args(up).status().unwrap();
    assert!(status.success());
    let (a, b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let mut batch = SendBatch::default();
    // 28 bytes of headers: the first two are too long by 4.
    for length in [1476, 1476, 106] {
        let push = batch.push(None, b.local_addr(), &[&vec![7; length]]);
        push.unwrap();
    }
    assert_eq!(batch.shape(), (3, 1));
    let flushed = batch.flush(&a);
    assert_eq!((flushed.sent, flushed.refused), (1, 2));
    assert!(batch.is_empty());
    assert_eq!(receive(&b, 1)[0].0.len(), 106);
}

#[test]
fn a_port_in_use_is_an_error_unless_shared() {
    let first = bind("127.0.0.1:0");
    let again = UdpSocket::bind(first.local_addr(), UdpOptions::default());
    assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    let shared = UdpOptions {
        reuse_port: true,
        ..UdpOptions::default()
    };
    let one = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), shared).unwrap();
    UdpSocket::bind(one.local_addr(), shared).unwrap();
}

#[test]
fn the_receive_buffer_holds_a_burst() {
    let (a, b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    // 2.5 MB unread: with the default of 208 KiB most of it would be gone.
    for _ in 0..40 {
        a.try_send(b.local_addr(), &vec![5; 62_400], Some(1_200))
            .unwrap();
    }
    assert_eq!(receive(&b, 40 * 52).len(), 40 * 52);
}

/// Linux refuses GSO on a socket that sends without checksums, as some devices do for reasons of their own.
#[allow(unsafe_code)]
fn forbid_gso(socket: &UdpSocket) {
    use std::os::fd::{AsFd, AsRawFd};
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open, and the value is an int given with its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NO_CHECK,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0);
}

#[test]
fn when_the_kernel_refuses_gso_everything_arrives_all_the_same() {
    let (a, b) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    forbid_gso(&a);
    let contents = vec![3; 2_500];
    assert_eq!(
        a.try_send(b.local_addr(), &contents, Some(1_000)).unwrap(),
        2_500
    );
    assert_eq!(
        a.max_segments(),
        1,
        "it was refused, and that is remembered"
    );
    let mut batch = SendBatch::default();
    for _ in 0..3 {
        batch.push(None, b.local_addr(), &[&[4; 700]]).unwrap();
    }
    assert_eq!(batch.flush(&a).sent, 3);
    let lens: Vec<_> = receive(&b, 6).iter().map(|(d, _)| d.len()).collect();
    assert_eq!(lens, [1_000, 1_000, 500, 700, 700, 700]);
}

#[test]
fn no_destination_that_a_peer_can_name_switches_gso_off() {
    let named = [
        "0.0.0.0:9",
        "0.1.2.3:9",
        "127.0.0.1:0",
        "255.255.255.255:9",
        "224.0.0.1:9",
        "240.0.0.1:9",
        "[::]:9",
        "[fe80::1]:9",
        "[ff02::1]:9",
        "[::ffff:10.0.0.1]:9",
        "[::1]:0",
        "[2001:db8::1]:9",
    ];
    let sockets = [bind("0.0.0.0:0"), bind("[::]:0")];
    for destination in named {
        for socket in &sockets {
            let destination: SocketAddr = destination.parse().unwrap();
            let _ = socket.try_send(destination, b"datagram", None);
            let _ = socket.try_send(destination, &[0; 300], Some(100));
            assert!(socket.max_segments() > 1, "{destination}");
        }
    }
}
