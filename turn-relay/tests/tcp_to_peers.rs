//! TCP to peers (RFC 6062), against the real binary on loopback.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{DEADLINE, Service, until, verified};
use rustls::version::{TLS12, TLS13};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use stream::{Certificate, LISTEN, StreamClient, start, start_tls, tcp, tls};
use stun_types::message::{Message, MessageWriteExt};
use turn_types::attribute::{ConnectionId, RequestedTransport, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND};

fn allocate<S: Read + Write>(client: &mut StreamClient<S>) -> SocketAddr {
    let answer = client.request(ALLOCATE, |writer| {
        writer.add_attribute(&RequestedTransport::new(6)).unwrap();
    });
    let answer = answer.unwrap();
    let answer = Message::from_bytes(&answer).unwrap();
    let relayed: XorRelayedAddress = answer.attribute().unwrap();
    relayed.addr(answer.transaction_id())
}

fn number(message: &[u8]) -> u32 {
    let message = Message::from_bytes(message).unwrap();
    message.attribute::<ConnectionId>().unwrap().id()
}

fn connect<S: Read + Write>(client: &mut StreamClient<S>, peer: SocketAddr) -> Result<u32, u16> {
    let answer = client.request(CONNECT, |writer| {
        let id = writer.transaction_id();
        let peer = XorPeerAddress::new(peer, id);
        writer.add_attribute(&peer).unwrap();
    });
    answer.map(|answer| number(&answer))
}

/// A connection that carries what the peer's does: not a byte behind the answer is read.
fn bind<S: Read + Write>(stream: S, number: u32) -> Result<S, u16> {
    let mut client = StreamClient::new(stream);
    let request = client.signed(CONNECTION_BIND, |writer| {
        writer.add_attribute(&ConnectionId::new(number)).unwrap();
    });
    client.send(&request);
    let mut answer = vec![0; 20];
    client.stream.read_exact(&mut answer).unwrap();
    answer.resize(
        20 + usize::from(answer[2]) * 256 + usize::from(answer[3]),
        0,
    );
    client.stream.read_exact(&mut answer[20..]).unwrap();
    verified(answer).map(|_| client.stream)
}

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, from) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    (stream, from)
}

/// Bytes that are nowhere the same.
fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn read_all(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

fn joined(service: &Service, transport: &str) -> [u64; 3] {
    let of = |direction| {
        let labels = format!("transport=\"{transport}\",direction=\"{direction}\"");
        service.metric(&format!("joined_bytes_total{{{labels}}}"))
    };
    let now = service.metric(&format!("joined_connections{{transport=\"{transport}\"}}"));
    [now, of("to_peer"), of("to_client")]
}

#[test]
fn a_hundred_megabytes_cross_both_ways_at_once_and_each_direction_ends_by_itself() {
    const SIZE: usize = 100 << 20;
    let service = start("", &[]);
    let server = service.listening("tcp")[0];
    let mut control = StreamClient::new(tcp(server));
    let relayed = allocate(&mut control);
    let (listener, address) = listen();
    let number = connect(&mut control, address).unwrap();
    let (mut peer, from) = accept(&listener);
    // From the relayed address itself (RFC 6062 section 5.2).
    assert_eq!(from, relayed);
    peer.write_all(b"early").unwrap();
    let mut data = bind(tcp(server), number).unwrap();
    let mut early = [0; 5];
    data.read_exact(&mut early).unwrap();
    assert_eq!(&early, b"early");
    let (there, back) = (content(1, SIZE), content(2, SIZE));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (&data).write_all(&there).unwrap();
            data.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| assert!(read_all(&mut &peer) == there));
        scope.spawn(|| {
            // It goes on after the other direction is over.
            let (first, second) = back.split_at(SIZE - 1_000);
            (&peer).write_all(first).unwrap();
            until("the end of the other direction", || {
                (joined(&service, "tcp")[1] == SIZE as u64).then_some(())
            });
            (&peer).write_all(second).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
        });
        scope.spawn(|| assert!(read_all(&mut &data) == back));
    });
    until("the end of both", || {
        (joined(&service, "tcp") == [0, SIZE as u64, SIZE as u64 + 5]).then_some(())
    });
    assert_eq!(service.metric("connections{transport=\"tcp\"}"), 1);
    // The peer can be connected to again.
    connect(&mut control, address).unwrap();
}

#[test]
fn over_tls_it_is_the_same() {
    const SIZE: usize = 5 << 20;
    let certificate = Certificate::new();
    let service = start_tls(&certificate, "");
    let server = service.listening("tls")[0];
    for version in [&TLS13, &TLS12] {
        let session = || tls(server, &certificate.der, version, &[]).unwrap();
        let mut control = StreamClient::new(session());
        allocate(&mut control);
        let (listener, address) = listen();
        let number = connect(&mut control, address).unwrap();
        let (mut peer, _) = accept(&listener);
        let mut data = bind(session(), number).unwrap();
        let (there, back) = (content(3, SIZE), content(4, SIZE));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                peer.write_all(&back).unwrap();
                let mut arrived = vec![0; SIZE];
                peer.read_exact(&mut arrived).unwrap();
                assert!(arrived == there);
                peer.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_all(&mut peer), b"the end");
            });
            let mut arrived = vec![0; SIZE];
            data.read_exact(&mut arrived).unwrap();
            assert!(arrived == back);
            data.write_all(&there).unwrap();
            // The peer's end comes as close_notify, not as a cut.
            assert_eq!(data.read(&mut arrived).unwrap(), 0);
            data.write_all(b"the end").unwrap();
            data.conn.send_close_notify();
            data.flush().unwrap();
        });
        until("the end", || {
            (joined(&service, "tls")[0] == 0).then_some(())
        });
    }
}

#[test]
fn peers_with_permission_may_connect_and_others_are_closed() {
    let service = start("", &[]);
    let server = service.listening("tcp")[0];
    let mut control = StreamClient::new(tcp(server));
    let relayed = allocate(&mut control);
    let mut stranger = tcp(relayed);
    assert_eq!(read_all(&mut stranger), b"");
    control.permit("127.0.0.1:9".parse().unwrap()).unwrap();
    for round in 0..3 {
        let mut peer = tcp(relayed);
        peer.write_all(b"hello").unwrap();
        let attempt = control.receive();
        let message = Message::from_bytes(&attempt).unwrap();
        assert_eq!(message.method(), CONNECTION_ATTEMPT);
        let named: XorPeerAddress = message.attribute().unwrap();
        let named = named.addr(message.transaction_id());
        assert_eq!(named, peer.local_addr().unwrap());
        let mut data = bind(tcp(server), number(&attempt)).unwrap();
        let mut hello = [0; 5];
        data.read_exact(&mut hello).unwrap();
        assert_eq!(&hello, b"hello");
        data.write_all(b"and back").unwrap();
        if round == 0 {
            // The client's end is the peer's end.
            drop(data);
            assert_eq!(read_all(&mut peer), b"and back");
        } else {
            let mut back = [0; 8];
            peer.read_exact(&mut back).unwrap();
            drop(peer);
            assert_eq!(read_all(&mut data), b"");
        }
    }
    until("the counters", || {
        let of = |result| service.metric(&format!("peer_connections_total{{result=\"{result}\"}}"));
        (["made", "refused", "bound"].map(of) == [3, 1, 3]).then_some(())
    });
}

#[test]
fn data_behind_the_request_reaches_the_peer_unchanged() {
    let service = start("", &[]);
    let server = service.listening("tcp")[0];
    let mut control = StreamClient::new(tcp(server));
    allocate(&mut control);
    let (listener, address) = listen();
    let number = connect(&mut control, address).unwrap();
    let (mut peer, _) = accept(&listener);
    let mut data = StreamClient::new(tcp(server));
    // In one piece with the request, and nothing that could be a frame.
    let mut bytes = data.signed(CONNECTION_BIND, |writer| {
        writer.add_attribute(&ConnectionId::new(number)).unwrap();
    });
    bytes.extend(b"\xFF\xFFnot a frame");
    data.stream.write_all(&bytes).unwrap();
    let mut arrived = [0; 13];
    peer.read_exact(&mut arrived).unwrap();
    assert_eq!(&arrived, b"\xFF\xFFnot a frame");
}

#[test]
fn everything_ends_with_the_control_connection_on_whichever_loop_it_is() {
    let service = start("threads = 4\n", &[]);
    let server = service.listening("tcp")[0];
    let mut control = StreamClient::new(tcp(server));
    let relayed = allocate(&mut control);
    let mut all: Vec<_> = (0..16)
        .map(|_| {
            let (listener, address) = listen();
            let number = connect(&mut control, address).unwrap();
            let (peer, _) = accept(&listener);
            (bind(tcp(server), number).unwrap(), peer)
        })
        .collect();
    for (data, peer) in &mut all {
        data.write_all(b"x").unwrap();
        peer.read_exact(&mut [0]).unwrap();
    }
    drop(control);
    for (data, peer) in &mut all {
        assert_eq!(read_all(data), b"");
        assert_eq!(read_all(peer), b"");
    }
    until("the end of all", || {
        let now = service.metric("connections{transport=\"tcp\"}");
        (now == 0 && joined(&service, "tcp")[0] == 0).then_some(())
    });
    assert!(TcpStream::connect(relayed).is_err());
}

#[test]
fn whoever_reads_nothing_stops_the_sender_and_nobody_else() {
    let service = start("threads = 1\n", &[]);
    let server = service.listening("tcp")[0];
    let mut control = StreamClient::new(tcp(server));
    allocate(&mut control);
    let open = |control: &mut StreamClient<TcpStream>| {
        let (listener, address) = listen();
        let number = connect(control, address).unwrap();
        let (peer, _) = accept(&listener);
        (bind(tcp(server), number).unwrap(), peer)
    };
    let (slow, mut flood) = open(&mut control);
    flood
        .set_write_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    // Until no buffer has any room: those of the kernel are some megabytes.
    let block = vec![7; 1 << 20];
    let sent = (0..200).find(|_| flood.write_all(&block).is_err());
    assert!(sent.is_some(), "200 MB are nowhere to be");
    let memory = std::fs::read_to_string(format!("/proc/{}/status", service.child.id())).unwrap();
    let resident = memory
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let resident: u64 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(resident < 200_000, "{resident} kB");
    let (mut data, mut peer) = open(&mut control);
    data.write_all(b"there").unwrap();
    peer.read_exact(&mut [0; 5]).unwrap();
    drop(slow);
    until("the end of the slow one", || {
        (joined(&service, "tcp")[0] == 1).then_some(())
    });
}

#[test]
fn what_cannot_be_connected_to_is_told() {
    let service = start("peer-connections-per-allocation = 2\n", &[]);
    let server = service.listening("tcp")[0];
    let mut control = StreamClient::new(tcp(server));
    assert_eq!(connect(&mut control, server), Err(437));
    allocate(&mut control);
    let (listener, closed) = listen();
    drop(listener);
    assert_eq!(connect(&mut control, closed), Err(447));
    assert_eq!(connect(&mut control, server), Err(403));
    let (listener, address) = listen();
    connect(&mut control, address).unwrap();
    assert_eq!(connect(&mut control, address), Err(446));
    let (_peer, _) = accept(&listener);
    let (_other, second) = listen();
    connect(&mut control, second).unwrap();
    let (_third, third) = listen();
    assert_eq!(connect(&mut control, third), Err(508));
    assert!(matches!(bind(tcp(server), 12_345), Err(400)));
    // A request that failed leaves a connection as it was: frames go on.
    let mut client = StreamClient::new(tcp(server));
    let refused = client.request(CONNECTION_BIND, |writer| {
        writer.add_attribute(&ConnectionId::new(1)).unwrap();
    });
    assert_eq!(refused, Err(400));
    allocate(&mut client);
}

#[test]
fn a_reload_that_denies_a_peer_ends_its_connections_and_no_others() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    // Two event loops: the joined connection may be the other one's.
    std::fs::write(path, "threads = 2\n").unwrap();
    let service = Service::start(&[&LISTEN[..], &["--config", path]].concat());
    let server = service.listening("tcp")[0];
    let mut control = StreamClient::new(tcp(server));
    allocate(&mut control);
    let mut pairs: Vec<(TcpStream, TcpStream)> = ["127.0.0.1:0", "127.0.0.2:0"]
        .into_iter()
        .map(|host| {
            let listener = TcpListener::bind(host).unwrap();
            let number = connect(&mut control, listener.local_addr().unwrap()).unwrap();
            let (peer, _) = accept(&listener);
            (bind(tcp(server), number).unwrap(), peer)
        })
        .collect();
    let mut carries = |index: usize| {
        let (data, peer) = &mut pairs[index];
        data.write_all(b"there?").unwrap();
        let mut bytes = [0; 6];
        peer.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"there?");
    };
    carries(0);
    carries(1);
    std::fs::write(path, "threads = 2\ndeny-peers = [\"127.0.0.2/32\"]\n").unwrap();
    let pid = nix::unistd::Pid::from_raw(service.child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    until("the reload", || {
        let log = service.log();
        log.contains("peer_connections_ended=1").then_some(())
    });
    carries(0);
    let (mut data, mut peer) = pairs.pop().unwrap();
    // Both ends see it, the client's perhaps as a reset.
    assert!(read_all(&mut peer).is_empty());
    assert!(matches!(data.read(&mut [0; 1]), Ok(0) | Err(_)));
    until("the end", || {
        (joined(&service, "tcp")[0] == 1).then_some(())
    });
}

/// What the usage file says of finished allocations.
fn ended(path: &std::path::Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let records = whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    records
        .filter(|record: &serde_json::Value| record["record"] == "allocation")
        .collect()
}

#[test]
fn what_joined_connections_carry_is_recorded_and_keeps_to_the_users_bandwidth() {
    const RATE: usize = 400_000;
    // What a bucket holds passes at once.
    const SIZE: usize = 2 * RATE;
    let directory = tempfile::tempdir().unwrap();
    let usage = directory.path().join("usage.jsonl");
    let certificate = Certificate::new();
    let flags = certificate.flags();
    let mut more: Vec<_> = flags.iter().map(String::as_str).collect();
    more.extend(["--listen", "tls://127.0.0.1:0"]);
    let config = format!("usage-file = {usage:?}\nuser-bytes-per-second = {RATE}");
    let service = start(&config, &more);
    let server = service.listening("tcp")[0];
    let mut control = StreamClient::new(tcp(server));
    allocate(&mut control);
    let (listener, address) = listen();
    let number = connect(&mut control, address).unwrap();
    let (peer, _) = accept(&listener);
    let address = service.listening("tls")[0];
    let data = tls(address, &certificate.der, &TLS13, &[]).unwrap();
    let mut data = bind(data, number).unwrap();
    let (there, back) = (content(5, SIZE), content(6, SIZE));
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| (&peer).write_all(&back).unwrap());
        scope.spawn(|| {
            let mut arrived = vec![0; SIZE];
            (&peer).read_exact(&mut arrived).unwrap();
            assert!(arrived == there);
        });
        data.write_all(&there).unwrap();
        data.flush().unwrap();
        let mut arrived = vec![0; SIZE];
        data.read_exact(&mut arrived).unwrap();
        assert!(arrived == back);
    });
    // Each direction has its own: two seconds' worth, less the bucket and the last read.
    let least = Duration::from_millis(1_500);
    assert!(began.elapsed() > least, "{:?}", began.elapsed());
    control.delete().unwrap();
    until("the record", || {
        let all = ended(&usage);
        let found = all
            .iter()
            .any(|record| record["bytes_to_peer"] == SIZE && record["bytes_to_client"] == SIZE);
        found.then_some(())
    });
}
