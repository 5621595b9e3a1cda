//! Whole bursts over loopback, and the poller that says when they are there.

#![allow(clippy::unwrap_used)]

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use turnpike_net::{Burst, BurstBatch, Poller, UdpOptions, UdpSocket};

fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0".parse().unwrap(), UdpOptions::default()).unwrap()
}

/// Everything that comes until there are `bytes`.
async fn receive(socket: &UdpSocket, bytes: usize) -> Vec<Burst> {
    let mut poller = Poller::new().unwrap();
    poller.watch(socket, false).unwrap();
    let (mut batch, mut seen) = (BurstBatch::new(), Vec::<Burst>::new());
    while seen.iter().map(|burst| burst.payload.len()).sum::<usize>() < bytes {
        let ready = tokio::time::timeout(Duration::from_secs(10), poller.readable()).await;
        ready.expect("in time").unwrap();
        assert!(poller.is_ready(socket));
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

#[tokio::test]
async fn a_burst_in_parts_arrives_as_equal_datagrams() {
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
    for burst in receive(&to, 40_500 + 41 * 4).await {
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

#[tokio::test]
async fn what_is_too_much_for_one_call_is_refused_whole() {
    let (from, to) = (bind(), bind());
    let byte = [7];
    let parts = [IoSlice::new(&byte); 65];
    let refused = from.try_send_parts(to.local_addr(), &parts, 1);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    from.try_send_parts(to.local_addr(), &parts[..1], 1)
        .unwrap();
    assert_eq!(receive(&to, 1).await.len(), 1, "only the second");
}

#[tokio::test]
async fn who_waits_is_woken_and_a_closed_socket_is_forgotten() {
    let (from, to) = (bind(), bind());
    let mut poller = Poller::new().unwrap();
    poller.watch(&to, true).unwrap();
    assert!(poller.poll().unwrap() && poller.is_ready(&to), "writable");
    poller.watch(&to, false).unwrap();
    assert!(!poller.poll().unwrap());
    let address = to.local_addr();
    let send = async {
        tokio::task::yield_now().await;
        from.try_send(address, b"wake up", None).unwrap();
    };
    let both = async { tokio::join!(poller.readable(), send) };
    let woken = tokio::time::timeout(Duration::from_secs(10), both).await;
    woken.expect("in time").0.unwrap();
    assert!(poller.is_ready(&to) && poller.poll().unwrap());
    drop(to);
    assert!(!poller.poll().unwrap());
}
