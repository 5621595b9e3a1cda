//! Clients behind a load balancer that speaks the PROXY protocol, version 2.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/stream.rs"]
mod stream;

use common::{DEADLINE, Service, until};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use socket2::{Domain, Socket, Type};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use stream::{Certificate, StreamClient, tcp};
use stun_types::attribute::XorMappedAddress;
use stun_types::message::{BINDING, Message, MessageWrite, MessageWriteVec};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const CLIENT: &str = "192.0.2.7:4660";

fn start(config: &str, more: &[&str]) -> Service {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = format!("proxy-protocol-from = [\"127.0.0.2/32\"]\nthreads = 1\n{config}");
    std::fs::write(file.path(), config).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    let listen = ["--listen", "tcp://127.0.0.1:0", "--config", &path];
    Service::start(&[&listen[..], more].concat())
}

/// A connection of the load balancer.
fn balanced(server: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source: SocketAddr = "127.0.0.2:0".parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&server.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn header(command: u8, client: &str, more: usize) -> Vec<u8> {
    let SocketAddr::V4(client) = client.parse().unwrap() else {
        panic!("IPv4 only");
    };
    let mut bytes = [SIGNATURE, &[command, 0x11, 0, 12 + more as u8]].concat();
    bytes.extend(client.ip().octets());
    bytes.extend([10, 0, 0, 1]);
    bytes.extend(client.port().to_be_bytes());
    bytes.extend([0x0D, 0x96]);
    bytes.extend(vec![4; more]);
    bytes
}

/// Where the relay sees the client.
fn mapped<S: Read + Write>(stream: S) -> SocketAddr {
    let mut client = StreamClient::new(stream);
    let request = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
    client.send(&request);
    let answer = client.receive();
    let answer = Message::from_bytes(&answer).unwrap();
    let mapped: XorMappedAddress = answer.attribute().unwrap();
    mapped.addr(answer.transaction_id())
}

fn is_closed(mut stream: &TcpStream) -> bool {
    // With a reset, if it had sent more than was read.
    !matches!(stream.read(&mut [0; 100]), Ok(1..))
}

fn closed(service: &Service, reason: &str) -> u64 {
    let labels = format!("transport=\"tcp\",reason=\"{reason}\"");
    service.metric(&format!("connections_closed_total{{{labels}}}"))
}

#[test]
fn the_client_is_the_one_that_is_announced() {
    let service = start("", &[]);
    let server = service.listening("tcp")[0];
    for more in [0, 200] {
        let mut stream = balanced(server);
        stream.write_all(&header(0x21, CLIENT, more)).unwrap();
        assert_eq!(mapped(stream), CLIENT.parse().unwrap());
    }
    // Byte by byte, with the first request behind it.
    let mut slow = balanced(server);
    for byte in header(0x21, CLIENT, 3) {
        slow.write_all(&[byte]).unwrap();
    }
    let mut client = StreamClient::new(slow);
    client.allocate().unwrap();
    // Its health check is of its own.
    let mut stream = balanced(server);
    let own = stream.local_addr().unwrap();
    stream.write_all(&header(0x20, CLIENT, 0)).unwrap();
    assert_eq!(mapped(stream), own);
    // Whoever comes directly says nothing, and is who it is.
    let direct = tcp(server);
    let own = direct.local_addr().unwrap();
    assert_eq!(mapped(direct), own);
}

fn session(stream: TcpStream, certificate: &CertificateDer<'static>) -> impl Read + Write + use<> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("relay.example").unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        stream,
    )
}

#[test]
fn before_tls_it_is_the_same() {
    let certificate = Certificate::new();
    let flags = certificate.flags();
    let mut more: Vec<_> = flags.iter().map(String::as_str).collect();
    more.extend(["--listen", "tls://127.0.0.1:0"]);
    let service = start("", &more);
    let mut stream = balanced(service.listening("tls")[0]);
    stream.write_all(&header(0x21, CLIENT, 5)).unwrap();
    let session = session(stream, &certificate.der);
    assert_eq!(mapped(session), CLIENT.parse().unwrap());
    until("the counter", || {
        let handshakes = service.metric("tls_handshakes_total{transport=\"tls\"}");
        (handshakes == 1).then_some(())
    });
}

#[test]
fn nobody_else_announces_and_a_load_balancer_has_to() {
    let service = start("handshake-seconds = 1\n", &[]);
    let server = service.listening("tcp")[0];
    let mut liar = tcp(server);
    liar.write_all(&header(0x21, CLIENT, 0)).unwrap();
    assert!(is_closed(&liar));
    let long = [SIGNATURE, &[0x21, 0x11, 0xFF, 0xFF]].concat();
    let nobody = header(0x21, "0.0.0.0:7", 0);
    let stun = [&[0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42][..], &[1; 12]].concat();
    let bad: [&[u8]; 5] = [
        &stun,
        &long,
        &nobody,
        b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
        &header(0x31, CLIENT, 0),
    ];
    for bytes in bad {
        let mut stream = balanced(server);
        stream.write_all(bytes).unwrap();
        assert!(is_closed(&stream));
    }
    // One that never ends, and one that never begins.
    let mut half = balanced(server);
    half.write_all(&SIGNATURE[..7]).unwrap();
    let silent = balanced(server);
    assert!(is_closed(&half) && is_closed(&silent));
    until("the counters", || {
        let reasons = ["bad_frame", "bad_proxy_header", "handshake_timeout"];
        (reasons.map(|reason| closed(&service, reason)) == [1, 5, 2]).then_some(())
    });
}

#[test]
fn bounds_are_for_the_announced_prefix() {
    let service = start("connections-without-allocation-per-prefix = 2\n", &[]);
    let server = service.listening("tcp")[0];
    let announced = |client: &str| {
        let mut stream = balanced(server);
        stream.write_all(&header(0x21, client, 0)).unwrap();
        stream
    };
    let of_prefix = [announced("192.0.2.1:1"), announced("192.0.2.2:1")];
    // They are known once they are answered.
    let kept = of_prefix.map(StreamClient::new);
    assert!(is_closed(&announced("192.0.2.3:1")));
    assert_eq!(
        mapped(announced("192.0.3.1:1")),
        "192.0.3.1:1".parse().unwrap()
    );
    until("the counter", || {
        (closed(&service, "prefix") == 1).then_some(())
    });
    drop(kept);
    until("room again", || {
        let now = service.metric("connections_without_allocation{transport=\"tcp\"}");
        (now == 0).then_some(())
    });
    mapped(announced("192.0.2.3:1"));
}
