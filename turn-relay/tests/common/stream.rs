//! A client over TCP or TLS, of few lines, on blocking sockets.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use crate::common::{DEADLINE, Service, signed, verified};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use stun_types::attribute::Nonce;
use stun_types::message::{Message, MessageWrite, MessageWriteExt, MessageWriteVec, Method};
use turn_types::AddressFamily;
use turn_types::attribute::{
    ChannelNumber, Lifetime, RequestedAddressFamily, RequestedTransport, XorPeerAddress,
    XorRelayedAddress,
};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};

/// Over TCP, to peers on loopback.
pub const LISTEN: [&str; 4] = [
    "--listen",
    "tcp://127.0.0.1:0",
    "--allow-peer",
    "127.0.0.0/8",
];

/// A relay that listens as [`LISTEN`] says, with a config file and more flags.
pub fn start(config: &str, more: &[&str]) -> Service {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    Service::start(&[&LISTEN[..], &["--config", &path], more].concat())
}

/// The same, over TLS, too.
pub fn start_tls(certificate: &Certificate, config: &str) -> Service {
    let flags = certificate.flags();
    let mut more: Vec<_> = flags.iter().map(String::as_str).collect();
    more.extend(["--listen", "tls://127.0.0.1:0"]);
    start(config, &more)
}

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

pub fn tcp(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A session that trusts this certificate, offers these protocols, and is complete.
pub fn tls(
    server: SocketAddr,
    certificate: &CertificateDer<'static>,
    version: &'static SupportedProtocolVersion,
    alpn: &[&str],
) -> std::io::Result<TlsStream> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("relay.example").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, tcp(server));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// A client with a nonce.
pub struct StreamClient<S> {
    pub stream: S,
    received: Vec<u8>,
    nonce: String,
}

impl<S: Read + Write> StreamClient<S> {
    pub fn new(stream: S) -> Self {
        let mut client = Self {
            stream,
            received: Vec::new(),
            nonce: String::new(),
        };
        let request = Message::builder_request(ALLOCATE, MessageWriteVec::new()).finish();
        client.send(&request);
        let answer = client.receive();
        let answer = Message::from_bytes(&answer).unwrap();
        client.nonce = answer.attribute::<Nonce>().unwrap().nonce().to_owned();
        client
    }

    /// One frame, padded.
    pub fn send(&mut self, frame: &[u8]) {
        self.stream.write_all(&padded(frame)).unwrap();
        self.stream.flush().unwrap();
    }

    /// One frame, without padding.
    pub fn receive(&mut self) -> Vec<u8> {
        loop {
            let mut frames = wire::stream::Frames::new(&self.received, wire::stream::MAX_FRAME);
            if let Some(frame) = frames.next() {
                let frame = frame.to_vec();
                self.received = frames.rest().to_vec();
                return frame;
            }
            assert_eq!(frames.error(), None);
            let mut buffer = [0; 16_384];
            let length = self.stream.read(&mut buffer).expect("an answer in time");
            assert!(length > 0, "closed");
            self.received.extend_from_slice(&buffer[..length]);
        }
    }

    /// A request as it goes out.
    pub fn signed(&self, method: Method, attributes: impl FnOnce(&mut MessageWriteVec)) -> Vec<u8> {
        signed(method, &self.nonce, attributes)
    }

    pub fn request(
        &mut self,
        method: Method,
        attributes: impl FnOnce(&mut MessageWriteVec),
    ) -> Result<Vec<u8>, u16> {
        self.send(&signed(method, &self.nonce.clone(), attributes));
        verified(self.receive())
    }

    pub fn allocate(&mut self) -> Result<SocketAddr, u16> {
        let answer = self.request(ALLOCATE, |writer| {
            let udp = RequestedTransport::new(RequestedTransport::UDP);
            writer.add_attribute(&udp).unwrap();
            let family = RequestedAddressFamily::new(AddressFamily::IPV4);
            writer.add_attribute(&family).unwrap();
        })?;
        let answer = Message::from_bytes(&answer).unwrap();
        let relayed: XorRelayedAddress = answer.attribute().unwrap();
        Ok(relayed.addr(answer.transaction_id()))
    }

    pub fn permit(&mut self, peer: SocketAddr) -> Result<(), u16> {
        let answer = self.request(CREATE_PERMISSION, |writer| {
            let id = writer.transaction_id();
            let peer = XorPeerAddress::new(peer, id);
            writer.add_attribute(&peer).unwrap();
        });
        answer.map(drop)
    }

    pub fn bind(&mut self, channel: u16, peer: SocketAddr) -> Result<(), u16> {
        let answer = self.request(CHANNEL_BIND, |writer| {
            let id = writer.transaction_id();
            writer.add_attribute(&ChannelNumber::new(channel)).unwrap();
            let peer = XorPeerAddress::new(peer, id);
            writer.add_attribute(&peer).unwrap();
        });
        answer.map(drop)
    }

    pub fn delete(&mut self) -> Result<(), u16> {
        let answer = self.request(REFRESH, |writer| {
            writer.add_attribute(&Lifetime::new(0)).unwrap();
        });
        answer.map(drop)
    }
}

pub fn padded(frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A certificate for relay.example in two files.
pub struct Certificate {
    pub directory: tempfile::TempDir,
    pub der: CertificateDer<'static>,
}

impl Certificate {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let der = write_certificate(directory.path());
        Self { directory, der }
    }

    /// Another one in the same files.
    pub fn renew(&mut self) {
        self.der = write_certificate(self.directory.path());
    }

    pub fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub fn flags(&self) -> [String; 4] {
        [
            "--certificate-file".into(),
            self.path("certificate.pem"),
            "--key-file".into(),
            self.path("key.pem"),
        ]
    }
}

fn write_certificate(directory: &std::path::Path) -> CertificateDer<'static> {
    use std::os::unix::fs::PermissionsExt;
    let made = rcgen::generate_simple_self_signed(vec!["relay.example".into()]).unwrap();
    std::fs::write(directory.join("certificate.pem"), made.cert.pem()).unwrap();
    let key = directory.join("key.pem");
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    made.cert.der().clone()
}
