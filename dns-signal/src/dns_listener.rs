//! DNS on UDP and TCP ([RFC 7766](https://www.rfc-editor.org/rfc/rfc7766): both are required).

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns_signal_proto::cache::Cache;
use dns_signal_proto::repeated::Repeated;
use net::{Clock, Meta, RecvBatch, SendBatch, UdpOptions, UdpSocket};
use service_kit::ConfigError;
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::config::DnsConfig;
use crate::dns_handler::{Handled, Handler};
use crate::dns_resolver::Resolver;
use crate::upstream::{Transport, Upstreams};

/// A burst of queries that the kernel keeps for us.
const BUFFER_BYTES: usize = 1 << 20;
/// TCP connections at once, over all addresses.
const MAX_CONNECTIONS: usize = 256;
/// A TCP connection without a query for this long is closed
/// ([RFC 7766 section 6.2.3](https://www.rfc-editor.org/rfc/rfc7766#section-6.2.3): a few seconds).
const IDLE_LIMIT: Duration = Duration::from_secs(10);
/// A client that does not take its answer for this long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Pause after an error that is likely to come again at once, such as too many open files.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// The bound sockets.
#[derive(Debug)]
pub struct DnsListener {
    handler: Handler,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl DnsListener {
    /// Binds UDP and TCP on every configured address (port 0: one that the kernel chooses, the same for both).
    ///
    /// # Errors
    /// When an address cannot be listened on, or nobody vouches for encrypted upstreams; the error names the field and its
    /// value.
    pub fn bind(config: &DnsConfig, resolver: Arc<Resolver>) -> Result<Self, ConfigError> {
        let upstreams = Upstreams::new(
            &config.upstreams,
            config.upstream_trust_file.as_deref(),
            Arc::clone(&resolver),
        )?;
        let handler = Handler {
            resolver,
            upstreams,
            ttl: config.ttl,
            clock: Clock,
            cache: Arc::new(Mutex::new(Cache::new(config.cache_answers))),
        };
        let mut listener = Self {
            handler,
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        for (index, address) in config.listen.iter().enumerate() {
            let bound = bind_both(*address).map_err(|error| {
                ConfigError::listen(&format!("dns.listen[{index}]"), *address, &error)
            })?;
            listener.tcp.push(bound.0);
            listener.udp.push(bound.1);
        }
        Ok(listener)
    }

    /// The addresses in use, in the order of the configuration.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.udp.iter().map(UdpSocket::local_addr).collect()
    }

    /// Queries that wait for upstreams are seen here.
    pub fn upstreams(&self) -> Arc<Upstreams> {
        Arc::clone(&self.handler.upstreams)
    }

    /// Answers queries until dropped.
    ///
    /// # Errors
    /// When a socket fails for good.
    pub async fn run(self) -> io::Result<()> {
        self.handler.upstreams.prepare();
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            let socket = Arc::new(socket.into_async()?);
            tasks.spawn(serve_udp(socket, self.handler.clone()));
        }
        for listener in self.tcp {
            tasks.spawn(serve_tcp(
                listener,
                self.handler.clone(),
                Arc::clone(&connections),
            ));
        }
        match tasks.join_next().await {
            Some(ended) => ended.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }
}

fn bind_both(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket)> {
    let tcp = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if address.is_ipv6() {
        SockRef::from(&tcp).set_only_v6(true)?;
    }
    // A restart must not wait for the connections of the process before.
    tcp.set_reuseaddr(true)?;
    tcp.bind(address)?;
    let tcp = tcp.listen(128)?;
    let options = UdpOptions {
        receive_buffer: BUFFER_BYTES,
        send_buffer: BUFFER_BYTES,
        may_fragment: true,
        ..UdpOptions::default()
    };
    let udp = UdpSocket::bind(tcp.local_addr()?, options)?;
    Ok((tcp, udp))
}

async fn serve_udp(socket: Arc<AsyncFd<UdpSocket>>, handler: Handler) -> io::Result<()> {
    let mut batch = RecvBatch::new();
    let mut repeated = Repeated::default();
    let mut answers = SendBatch::new(BUFFER_BYTES);
    // Dropped with this task, and with it all queries under way.
    let mut forwards = JoinSet::new();
    loop {
        let mut ready = tokio::select! {
            biased;
            Some(_) = forwards.join_next() => continue,
            ready = socket.readable() => ready?,
        };
        let now = handler.clock.now();
        repeated.handle_view(handler.resolver.view().as_ref());
        let received = ready
            .get_inner()
            .try_recv_batch(&mut batch, |message, meta| {
                let message = &*message;
                if let Some(found) = repeated.find(message, now) {
                    handler.on_repeated(&found);
                    return push(&mut answers, &handler, meta, &found.pieces);
                }
                match handler.handle(message, Transport::Udp) {
                    Handled::Reply { answer, standing } => {
                        push(&mut answers, &handler, meta, &[&answer]);
                        if let Some(destination) = standing {
                            repeated.remember(message, &answer, destination, now);
                        }
                    }
                    Handled::Forward(query) => {
                        let (socket, handler) = (Arc::clone(&socket), handler.clone());
                        let message = message.to_vec();
                        forwards.spawn(async move {
                            let answer = handler.forward(&message, &query, Transport::Udp).await;
                            send(socket.get_ref(), &handler, meta.local, meta.source, &answer);
                        });
                    }
                    Handled::Dropped => {}
                }
            });
        flush(&mut answers, socket.get_ref(), &handler);
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) => {
                tracing::debug!(%error, "receiving a query failed");
                sleep(ERROR_PAUSE).await;
            }
            Ok(_) => {}
        }
    }
}

/// An answer, to be sent when all that arrived with its query was looked at. From the address that was asked, or the client
/// would not accept it.
fn push(answers: &mut SendBatch, handler: &Handler, meta: Meta, pieces: &[&[u8]]) {
    if answers.push(Some(meta.local), meta.source, pieces).is_err() {
        handler.resolver.stats().send_failed.count();
    }
}

fn flush(answers: &mut SendBatch, socket: &UdpSocket, handler: &Handler) {
    if answers.is_empty() {
        return;
    }
    let flushed = answers.flush(socket);
    let mut lost = flushed.refused;
    if flushed.blocked {
        // Clients ask again; what waits would only make the answers behind it late.
        lost += answers.shape().0;
        *answers = SendBatch::new(BUFFER_BYTES);
    }
    handler.resolver.stats().send_failed.add(lost as u64);
    if let Some(error) = flushed.error {
        tracing::debug!(%error, "sending an answer failed");
    }
}

/// From the address that was asked, too.
fn send(socket: &UdpSocket, handler: &Handler, from: SocketAddr, to: SocketAddr, answer: &[u8]) {
    if let Err(error) = socket.try_send_from(Some(from), to, answer, None) {
        handler.resolver.stats().send_failed.count();
        tracing::debug!(%error, "sending an answer failed");
    }
}

async fn serve_tcp(
    listener: TcpListener,
    handler: Handler,
    connections: Arc<Semaphore>,
) -> io::Result<()> {
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "accepting a connection failed");
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            handler.resolver.stats().tcp_limit.count();
            continue;
        };
        let handler = handler.clone();
        tasks.spawn(async move {
            let _permit = permit;
            if let Err(error) = serve_connection(stream, &handler).await {
                tracing::debug!(%error, "DNS connection ended");
            }
        });
    }
}

/// One query after the other; a client may send several without waiting.
async fn serve_connection(mut stream: TcpStream, handler: &Handler) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(message) = timeout(IDLE_LIMIT, read_message(&mut stream)).await?? {
        let answer = match handler.handle(&message, Transport::Tcp) {
            Handled::Reply { answer, .. } => answer,
            Handled::Forward(query) => handler.forward(&message, &query, Transport::Tcp).await,
            // What follows in a stream that is no DNS would be none either.
            Handled::Dropped => return Ok(()),
        };
        let mut framed = u16::try_from(answer.len())
            .map_err(io::Error::other)?
            .to_be_bytes()
            .to_vec();
        framed.extend_from_slice(&answer);
        timeout(WRITE_LIMIT, stream.write_all(&framed)).await??;
    }
    Ok(())
}

/// `None`: the client closed the connection between two messages.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
