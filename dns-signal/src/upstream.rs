//! Forwarding to the upstream resolvers: the query's bytes go out as they came, but for the id, and the answer's
//! bytes come back likewise.
//!
//! Each attempt over UDP has a socket of its own, connected, on a random port: a forged answer must guess port and id
//! ([RFC 5452 section 9](https://www.rfc-editor.org/rfc/rfc5452#section-9)), come from the upstream's address, and
//! repeat the question.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use dns_signal_proto::query::{self, Query};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use socket2::SockRef;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};

use crate::dns_resolver::Resolver;

/// Queries that may wait for upstreams at once; each holds a socket per attempt.
const MAX_IN_FLIGHT: usize = 512;
/// After this long without an answer the next upstream is tried; the one before may still answer.
const NEXT_AFTER: Duration = Duration::from_millis(1500);
/// A stub resolver gives up after 5 s by default (resolv.conf(5)): it should hear SERVFAIL before.
const GIVE_UP_AFTER: Duration = Duration::from_millis(4500);
/// Attempts per query at least, so that a lost datagram to the only upstream is repeated.
const MIN_ATTEMPTS: usize = 3;
/// The largest UDP payload there is.
const MAX_DATAGRAM: usize = 65_535;
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

/// Which upstream, and what it said.
type Ended = (usize, io::Result<Vec<u8>>);

/// How a query came, and how it is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In a datagram.
    Udp,
    /// In a stream, after its length.
    Tcp,
}

/// Why there is no answer; the client gets SERVFAIL.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// None answered in time.
    #[error("no upstream answered")]
    NoAnswer,
}

/// The upstream resolvers.
#[derive(Debug)]
pub struct Upstreams {
    servers: Vec<SocketAddr>,
    /// Index of the one that answered last: it is tried first.
    preferred: AtomicUsize,
    in_flight: Arc<Semaphore>,
    resolver: Arc<Resolver>,
    /// Of our own packets, if they must be told from others'; 0: none.
    mark: AtomicU32,
}

impl Upstreams {
    /// `servers` in order of preference, at least one.
    pub fn new(servers: Vec<SocketAddr>, resolver: Arc<Resolver>) -> Arc<Self> {
        let in_flight = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        Arc::new(Self {
            servers,
            preferred: AtomicUsize::new(0),
            in_flight,
            resolver,
            mark: AtomicU32::new(0),
        })
    }

    /// Marks the packets of all queries from now on, so that the interception of DNS lets them pass.
    pub fn mark(&self, mark: Option<u32>) {
        self.mark.store(mark.unwrap_or(0), Ordering::Relaxed);
    }

    fn mark_socket<'s, S>(&self, socket: &'s S) -> io::Result<()>
    where
        SockRef<'s>: From<&'s S>,
    {
        match self.mark.load(Ordering::Relaxed) {
            0 => Ok(()),
            mark => SockRef::from(socket).set_mark(mark),
        }
    }

    /// The right to forward one query; `None`: as many as allowed are under way.
    pub fn admit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.in_flight).try_acquire_owned().ok()
    }

    /// How many queries wait for upstreams.
    pub fn in_flight(&self) -> usize {
        MAX_IN_FLIGHT - self.in_flight.available_permits()
    }

    /// Asks the upstreams, in turn; returns the first answer, with the client's id. An answer SERVFAIL or REFUSED
    /// is returned only if no other upstream does better.
    ///
    /// # Errors
    /// When none answers within 4.5 s.
    pub async fn forward(
        &self,
        message: &[u8],
        query: &Query,
        transport: Transport,
    ) -> Result<Vec<u8>, ForwardError> {
        let give_up = Instant::now() + GIVE_UP_AFTER;
        let first = self.preferred.load(Ordering::Relaxed);
        let count = self.servers.len();
        let attempts = count.max(MIN_ATTEMPTS);
        // More upstreams than fit one after the other share the time.
        let step = NEXT_AFTER.min(GIVE_UP_AFTER / u32::try_from(attempts).unwrap_or(u32::MAX));

        let mut waiting = FuturesUnordered::new();
        let mut to_try = (0..attempts).map(|attempt| (first + attempt) % count);
        let mut next_at = Instant::now();
        let mut refusal: Option<Vec<u8>> = None;
        loop {
            let now = Instant::now();
            if now >= give_up {
                break;
            }
            // Without a timer when it is due at once: the runtime's are a millisecond late.
            if next_at <= now {
                if !waiting.is_empty() {
                    self.resolver.stats().upstream_timeouts.count();
                }
                if let Some(index) = to_try.next() {
                    waiting.push(self.attempt(index, message, query, transport));
                    next_at = now + step;
                } else if waiting.is_empty() {
                    break;
                } else {
                    next_at = give_up;
                }
            }
            tokio::select! {
                biased;
                Some(ended) = waiting.next(), if !waiting.is_empty() => match Ended::from(ended) {
                    (_, Ok(answer)) if is_refusal(&answer) => {
                        refusal.get_or_insert(answer);
                        next_at = Instant::now();
                    }
                    (index, Ok(answer)) => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    (index, Err(error)) => {
                        tracing::debug!(upstream = %self.servers[index], %error, "upstream failed");
                        next_at = Instant::now();
                    }
                },
                () = sleep_until(next_at.min(give_up)) => {}
            }
        }
        refusal.ok_or(ForwardError::NoAnswer)
    }

    async fn attempt(
        &self,
        index: usize,
        message: &[u8],
        query: &Query,
        transport: Transport,
    ) -> Ended {
        let server = self.servers[index];
        let result = match transport {
            Transport::Udp => self.ask_udp(server, message, query).await,
            Transport::Tcp => self.ask_tcp(server, message, query).await,
        };
        (index, result)
    }

    async fn ask_udp(
        &self,
        server: SocketAddr,
        message: &[u8],
        query: &Query,
    ) -> io::Result<Vec<u8>> {
        let socket = UdpSocket::bind(SocketAddr::new(any_address(server), 0)).await?;
        self.mark_socket(&socket)?;
        socket.connect(server).await?;
        let (asked, id) = with_random_id(message)?;
        socket.send(&asked).await?;
        // Room that nobody has to zero.
        let mut answer = Vec::with_capacity(MAX_DATAGRAM);
        loop {
            answer.clear();
            socket.recv_buf(&mut answer).await?;
            if query::is_answer_to(&answer, id, &query.question) {
                query::set_id(&mut answer, query.id);
                return Ok(answer);
            }
            self.resolver.stats().upstream_mismatches.count();
        }
    }

    async fn ask_tcp(
        &self,
        server: SocketAddr,
        message: &[u8],
        query: &Query,
    ) -> io::Result<Vec<u8>> {
        let (asked, id) = with_random_id(message)?;
        let socket = if server.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        self.mark_socket(&socket)?;
        let mut stream = timeout(NEXT_AFTER, socket.connect(server)).await??;
        stream.set_nodelay(true)?;
        let mut framed = u16::try_from(asked.len())
            .map_err(io::Error::other)?
            .to_be_bytes()
            .to_vec();
        framed.extend_from_slice(&asked);
        stream.write_all(&framed).await?;
        let length = usize::from(stream.read_u16().await?);
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        if !query::is_answer_to(&answer, id, &query.question) {
            return Err(io::Error::other("the answer is to another question"));
        }
        query::set_id(&mut answer, query.id);
        Ok(answer)
    }
}

fn with_random_id(message: &[u8]) -> io::Result<(Vec<u8>, u16)> {
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let id = u16::from_ne_bytes(random);
    let mut message = message.to_vec();
    query::set_id(&mut message, id);
    Ok((message, id))
}

fn any_address(like: SocketAddr) -> IpAddr {
    match like {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

fn is_refusal(answer: &[u8]) -> bool {
    matches!(query::response_code(answer), SERVFAIL | REFUSED)
}
