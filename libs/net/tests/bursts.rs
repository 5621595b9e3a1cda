//! Whole bursts over loopback, and the poller that says when they are there.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use turnpike_net::{Burst, BurstBatch, Poller, UdpOptions, UdpSocket};

fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0".parse().unwrap(), UdpOptions::default()).unwrap()
}

fn ready_in_time(poller: &mut Poller, socket: &UdpSocket) {
    let deadline = Instant::now() + Duration::from_secs(10);
    poller.wait(Some(deadline)).unwrap();
    while !poller.is_ready(socket) {
        assert!(Instant::now() < deadline, "nothing came");
        poller.wait(Some(deadline)).unwrap();
    }
}

/// Everything that comes until there are `bytes`.
fn receive(socket: &UdpSocket, bytes: usize) -> Vec<Burst> {
    let mut poller = Poller::new().unwrap();
    poller.watch(socket, false).unwrap();
    let (mut batch, mut seen) = (BurstBatch::new(), Vec::<Burst>::new());
    while seen.iter().map(|burst| burst.payload.len()).sum::<usize>() < bytes {
        ready_in_time(&mut poller, socket);
        socket
            .try_recv_bursts(&mut batch, |burst| seen.push(burst))
            .unwrap();
    }
    assert!(!poller.poll().unwrap(), "there is nothing more");
    assert!(!poller.is_ready(socket));
    let nothing = socket.try_recv_bursts(&mut batch, |_| ());
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::WouldBlock);
    seen
}

#[test]
fn a_burst_in_parts_arrives_as_equal_datagrams() {
    let (from, to) = (bind(), bind());
    let payload: Vec<u8> = (0..40_500u32).map(|i| (i / 1_000) as u8).collect();
    let (whole, short) = ([0x40, 0, 3, 232], [0x40, 0, 1, 244]);
    let mut parts = Vec::new();
    for datagram in payload.chunks(1_000) {
        let header = if datagram.len() == 1_000 {
            &whole
        } else {
            &short
        };
        parts.extend([IoSlice::new(header), IoSlice::new(datagram)]);
    }
    from.try_send_parts(to.local_addr(), &parts, 1_004).unwrap();

    let mut datagrams = Vec::new();
    for burst in receive(&to, 40_500 + 41 * 4) {
        assert_eq!(burst.meta.source, from.local_addr());
        datagrams.extend(burst.payload.chunks(burst.segment).map(<[u8]>::to_vec));
    }
    let sent = payload.chunks(1_000).map(|datagram| {
        let header = if datagram.len() == 1_000 {
            whole
        } else {
            short
        };
        [&header[..], datagram].concat()
    });
    assert!(datagrams.iter().cloned().eq(sent), "{}", datagrams.len());
}

#[test]
fn what_is_too_much_for_one_call_is_refused_whole() {
    let (from, to) = (bind(), bind());
    let byte = [7];
    let parts = [IoSlice::new(&byte); 65];
    let refused = from.try_send_parts(to.local_addr(), &parts, 1);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    from.try_send_parts(to.local_addr(), &parts[..1], 1)
        .unwrap();
    assert_eq!(receive(&to, 1).len(), 1, "only the second");
}

#[test]
fn who_waits_is_woken_and_a_closed_socket_is_forgotten() {
    let (from, to) = (bind(), bind());
    let mut poller = Poller::new().unwrap();
    poller.watch(&to, true).unwrap();
    assert!(poller.poll().unwrap() && poller.is_ready(&to), "writable");
    poller.watch(&to, false).unwrap();
    assert!(!poller.poll().unwrap());
    let address = to.local_addr();
    let sender = std::thread::spawn(move || from.try_send(address, b"wake up", None).unwrap());
    ready_in_time(&mut poller, &to);
    assert!(poller.poll().unwrap());
    sender.join().unwrap();
    drop(to);
    assert!(!poller.poll().unwrap());
}

#[test]
fn what_another_thread_says_wakes_who_waits_and_nothing_is_missed() {
    let mut poller = Poller::new().unwrap();
    let (say, mut said) = tokio::sync::mpsc::channel(4);
    let speaker = std::thread::spawn(move || {
        for word in 0..10_000_u32 {
            say.blocking_send(word).unwrap();
        }
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut next = 0;
    loop {
        match poller.hear(|| said.recv()) {
            Some(Some(word)) => {
                assert_eq!(word, next);
                next += 1;
            }
            Some(None) => break,
            None => {
                assert!(Instant::now() < deadline, "{next} were heard");
                poller.wait(Some(deadline)).unwrap();
            }
        }
    }
    assert_eq!(next, 10_000);
    speaker.join().unwrap();
}

#[test]
fn who_was_not_told_asks_nobody_and_waits_until_the_time() {
    let mut poller = Poller::new().unwrap();
    assert!(poller.hear(std::future::pending::<()>).is_none());
    assert!(
        poller.hear(|| std::future::ready(7)).is_none(),
        "nobody rang"
    );
    let due = Instant::now() + Duration::from_micros(300);
    while Instant::now() < due {
        poller.wait(Some(due)).unwrap();
    }
}
