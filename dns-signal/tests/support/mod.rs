//! A DNS side on loopback with upstreams that record what they get.

#![allow(clippy::unwrap_used, dead_code)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns_signal::config::DnsConfig;
use dns_signal::dns_listener::DnsListener;
use dns_signal::dns_resolver::{Resolver, Wanted};
use dns_signal::upstream::{Locator, Upstreams};
use dns_signal_proto::services::{Families, Services};
use dns_signal_proto::virtual_ip::{Pools, VirtualIps};
use hickory_proto::op::{Message, MessageType, OpCode, Query as Question};
use hickory_proto::rr::{Name, RecordType};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Long enough for a machine that is busy, short enough for a test that hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) fn pools() -> Pools {
    Pools::new(
        "198.18.0.0/15".parse().unwrap(),
        "fd74:7572:6e70::/64".parse().unwrap(),
    )
    .unwrap()
}

pub(crate) fn services() -> Services {
    let mut services = Services::new(41);
    services.insert(
        "orders.east".parse().unwrap(),
        Families {
            ipv4: true,
            ipv6: true,
        },
    );
    services.insert(
        "legacy.east".parse().unwrap(),
        Families {
            ipv4: true,
            ipv6: false,
        },
    );
    services
}

/// What an upstream does with a query.
pub(crate) type Behavior = Arc<dyn Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync>;

/// An upstream on UDP and TCP that keeps every query's bytes and answers as it is told: with no, one or several
/// messages.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    queries: Arc<Mutex<Vec<Vec<u8>>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Upstream {
    pub(crate) async fn start(
        behavior: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let behavior: Behavior = Arc::new(behavior);
        let tcp = TcpListener::bind(any_port()).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let queries = Arc::new(Mutex::new(Vec::new()));
        let tasks = vec![
            tokio::spawn(serve_udp(udp, Arc::clone(&queries), Arc::clone(&behavior))),
            tokio::spawn(serve_tcp(tcp, Arc::clone(&queries), behavior)),
        ];
        Self {
            address,
            queries,
            tasks,
        }
    }

    pub(crate) fn queries(&self) -> Vec<Vec<u8>> {
        self.queries.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve_udp(socket: UdpSocket, queries: Arc<Mutex<Vec<Vec<u8>>>>, behavior: Behavior) {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        let query = &buffer[..length];
        queries.lock().unwrap().push(query.to_vec());
        for answer in behavior(query) {
            socket.send_to(&answer, from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener, queries: Arc<Mutex<Vec<Vec<u8>>>>, behavior: Behavior) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let query = read_framed(&mut stream).await.unwrap();
        queries.lock().unwrap().push(query.clone());
        for answer in behavior(&query) {
            write_framed(&mut stream, &answer).await;
        }
    }
}

/// The whole DNS side, listening on loopback.
pub(crate) struct Dns {
    pub(crate) address: SocketAddr,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) wanted: mpsc::Receiver<Wanted>,
    task: JoinHandle<()>,
}

impl Dns {
    pub(crate) fn start(upstreams: &[SocketAddr]) -> Self {
        Self::start_with(
            upstreams,
            VirtualIps::new(pools()),
            "127.0.0.1:0".parse().unwrap(),
        )
    }

    pub(crate) fn start_with(
        upstreams: &[SocketAddr],
        assigned: VirtualIps,
        listen: SocketAddr,
    ) -> Self {
        let upstreams = upstreams.iter().copied().map(Locator::from).collect();
        Self::start_configured(upstreams, None, assigned, listen)
    }

    /// With upstreams as the configuration names them, whose certificates are from authorities in the file.
    pub(crate) fn start_encrypted(upstreams: &[&str], trust: &Path) -> Self {
        let upstreams = upstreams.iter().map(|it| it.parse().unwrap()).collect();
        let assigned = VirtualIps::new(pools());
        Self::start_configured(upstreams, Some(trust.to_owned()), assigned, any_port())
    }

    fn start_configured(
        upstreams: Vec<Locator>,
        upstream_trust_file: Option<PathBuf>,
        assigned: VirtualIps,
        listen: SocketAddr,
    ) -> Self {
        let (resolver, wanted) = Resolver::new("mesh.internal".parse().unwrap(), assigned);
        let config = DnsConfig {
            listen: vec![listen],
            upstreams,
            upstream_trust_file,
            cache_answers: 64,
            suffix: "mesh.internal".parse().unwrap(),
            ttl: Duration::from_secs(5),
            interception: dns_signal::interception::Wish::None,
            dnsmasq: Default::default(),
            aliases: dns_signal_proto::alias::Aliases::new("west".parse().unwrap()),
        };
        let listener = DnsListener::bind(&config, Arc::clone(&resolver)).unwrap();
        let address = listener.local_addrs()[0];
        let upstreams = listener.upstreams();
        let task = tokio::spawn(async move { listener.run().await.unwrap() });
        Self {
            address,
            resolver,
            upstreams,
            wanted,
            task,
        }
    }

    pub(crate) async fn ask_udp(&self, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind(any_port()).await.unwrap();
        socket.connect(self.address).await.unwrap();
        socket.send(query).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = timeout(PATIENCE, socket.recv(&mut buffer))
            .await
            .expect("an answer")
            .unwrap();
        buffer.truncate(length);
        buffer
    }

    pub(crate) async fn ask_tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        write_framed(&mut stream, query).await;
        read_framed(&mut stream).await.expect("an answer")
    }

    pub(crate) async fn ask(&self, name: &str, record_type: RecordType) -> Message {
        let udp = self.ask_udp(&query(name, record_type)).await;
        let tcp = self.ask_tcp(&query(name, record_type)).await;
        assert_eq!(udp, tcp, "the same over UDP and TCP");
        Message::from_vec(&udp).unwrap()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn write_framed(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) {
    let mut framed = u16::try_from(message.len()).unwrap().to_be_bytes().to_vec();
    framed.extend_from_slice(message);
    stream.write_all(&framed).await.unwrap();
    stream.flush().await.unwrap();
}

pub(crate) async fn read_framed(stream: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = timeout(PATIENCE, stream.read_u16())
        .await
        .expect("an end")
        .ok()?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}

pub(crate) fn query(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(
        Name::from_ascii(name).unwrap(),
        record_type,
    ));
    message.to_vec().unwrap()
}

/// An answer no library of ours would write: odd flags, a name compressed oddly, and bytes after the end.
pub(crate) fn peculiar_answer(query: &[u8]) -> Vec<u8> {
    let question_end = query.len();
    let mut answer = query[..question_end].to_vec();
    answer[2] |= 0x84;
    answer[3] = 0xf0;
    answer[7] = 1;
    answer[8..12].fill(0);
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4, 192, 0, 2, 1]);
    answer.extend_from_slice(b"\0\xffnot part of the message");
    answer
}

/// Waits for a state, within the test's patience.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let reached = timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    reached.await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Nothing listens there.
pub(crate) async fn dead_address() -> SocketAddr {
    let socket = UdpSocket::bind(any_port()).await.unwrap();
    socket.local_addr().unwrap()
}
