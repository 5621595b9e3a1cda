//! The real program, and what its port may get that is no call: it goes on, and keeps its memory.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use common::{Mesh, PATIENCE, eventually, within};
use protocol::directory::{
    EnrollRequest, PutRequest, RangeRequest, directory_client::DirectoryClient,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use tonic::{Code, transport::Channel};

const ROUNDS: usize = 12;
/// What an allocator may keep for itself, KiB.
const SLACK: u64 = 8 * 1024;
/// How long a stranger listens to what is said to garbage.
const LISTEN: Duration = Duration::from_secs(2);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

struct Program(Child);

impl Program {
    /// Resident memory, KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse().unwrap()
    }

    fn descriptors(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.0.id()));
        open.unwrap().count()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The same noise in each run.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }
}

/// A frame of HTTP/2, RFC 9113 section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A header block (RFC 7541, nothing indexed) that calls `Enroll`.
fn call() -> Vec<u8> {
    let mut block = vec![0x83, 0x87];
    let mut put = |name: &[u8], value: &str| {
        block.extend(name);
        block.push(value.len() as u8);
        block.extend(value.as_bytes());
    };
    put(&[0x04], "/turnpike.directory.v1.Directory/Enroll");
    put(&[0x01], "127.0.0.1");
    put(&[0x0f, 0x10], "application/grpc");
    put(b"\x00\x02te", "trailers");
    block
}

/// What begins like HTTP/2 and does not go on like it.
fn almost_http2(noise: &mut Noise) -> Vec<Vec<u8>> {
    let hello = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let call = frame(HEADERS, END_HEADERS, 1, &call());
    let begun = [&hello[..], &call].concat();
    let many = |count: u32, one: &dyn Fn(u32) -> Vec<u8>| (0..count).flat_map(one).collect();
    let bodies: Vec<Vec<u8>> = vec![
        noise.bytes(4_000),
        // A frame of 16 MiB, of which only the beginning comes.
        vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1],
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(DATA, 0, 2, &noise.bytes(1_000)),
        frame(HEADERS, END_HEADERS, 1, &noise.bytes(1_000)),
        // A header that never ends.
        [
            frame(HEADERS, 0, 1, &call_head()),
            many(200, &|_| frame(CONTINUATION, 0, 1, &[0x40; 16_000])),
        ]
        .concat(),
        many(20_000, &|_| frame(PING, 0, 0, &[7; 8])),
        // Calls that are taken back at once.
        many(2_000, &|n| {
            let stream = 2 * n + 1;
            let call = frame(HEADERS, END_HEADERS, stream, &self::call());
            [call, frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
        }),
        many(200, &|n| {
            frame(HEADERS, END_HEADERS, 2 * n + 1, &self::call())
        }),
    ];
    let messages: Vec<Vec<u8>> = vec![
        // 4 GiB are promised; compressed, though nobody agreed to it; no protobuf; cut off.
        vec![0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3],
        vec![1, 0, 0, 0, 3, 1, 2, 3],
        [&[0, 0, 0, 3, 0xe8][..], &noise.bytes(1_000)].concat(),
        vec![0, 0, 0],
    ];
    let calls = messages
        .iter()
        .map(|message| [&begun[..], &frame(DATA, 1, 1, message)].concat());
    let all = bodies.iter().map(|body| [&hello[..], body].concat());
    all.chain(calls).collect()
}

fn call_head() -> Vec<u8> {
    call()[..10].to_vec()
}

/// What is not even TLS.
fn no_tls(noise: &mut Noise) -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        vec![0x16],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        PREFACE.to_vec(),
        noise.bytes(3),
        noise.bytes(70_000),
        // A record of TLS with the longest length there is, and one with a ClientHello of noise.
        [&[0x16, 3, 1, 0xff, 0xff][..], &noise.bytes(65_535)].concat(),
        [
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..],
            &noise.bytes(507),
        ]
        .concat(),
    ]
}

/// Says it, and listens until the other end has enough.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, what: &[u8]) {
    let talk = async {
        // It may hang up in the middle of it.
        if stream.write_all(what).await.is_ok() {
            let _ = stream.shutdown().await;
        }
        let mut heard = [0; 4_096];
        while stream.read(&mut heard).await.is_ok_and(|length| length > 0) {}
    };
    let _ = tokio::time::timeout(LISTEN, talk).await;
}

fn connector(mesh: &Mesh) -> TlsConnector {
    let ca = mesh.authority.certificate_pem();
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca.as_bytes()).unwrap();
    roots.add(ca).unwrap();
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn too_long(client: &mut DirectoryClient<Channel>) {
    let long = EnrollRequest {
        token: "x".repeat(1 << 20),
        ..EnrollRequest::default()
    };
    let code = client.enroll(long).await.unwrap_err().code();
    assert_eq!(code, Code::OutOfRange);
    let long = PutRequest {
        key: "registration/east/gw".into(),
        value: vec![0; 8 << 20],
        ..PutRequest::default()
    };
    let code = client.put(long).await.unwrap_err().code();
    assert_eq!(code, Code::OutOfRange);
}

#[tokio::test]
async fn garbage_takes_neither_the_service_nor_its_memory() {
    let mesh = Mesh::new();
    let config = mesh.path("discovery.toml");
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = probe.local_addr().unwrap();
    drop(probe);
    std::fs::write(&config, mesh.config_text(&address.to_string())).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_discovery"));
    command.arg("--config").arg(config);
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    let program = Program(command.spawn().unwrap());

    let node = mesh.identity("east/activator/gw").tls();
    let ca = mesh.authority.certificate_pem();
    let connected = async {
        loop {
            match common::client(address, &ca, Some(&node)).await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let mut client = tokio::time::timeout(PATIENCE, connected).await.unwrap();
    let tls = connector(&mesh);
    let mut noise = Noise(0x7475_726e_7069_6b65);
    let mut settled = (u64::MAX, usize::MAX);
    for round in 0..ROUNDS {
        for what in no_tls(&mut noise) {
            say(TcpStream::connect(address).await.unwrap(), &what).await;
        }
        for what in almost_http2(&mut noise) {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::from(address.ip());
            say(within(tls.connect(name, stream)).await.unwrap(), &what).await;
        }
        too_long(&mut client).await;
        let range = RangeRequest {
            prefix: "relay/".into(),
        };
        let listed = within(client.range(range)).await.expect("it goes on");
        assert_eq!(listed.get_ref().entries.len(), 1);
        // The first rounds fill what an allocator keeps.
        if round == 1 {
            settled = (program.memory(), program.descriptors());
        }
    }
    eventually("memory and descriptors are given back", || {
        program.memory() <= settled.0 + SLACK && program.descriptors() <= settled.1 + 2
    })
    .await;
    eprintln!("{} KiB, then {} KiB", settled.0, program.memory());
    let mut another = common::client(address, &ca, Some(&node)).await.unwrap();
    let range = RangeRequest {
        prefix: "relay/".into(),
    };
    within(another.range(range))
        .await
        .expect("and takes others");
}
