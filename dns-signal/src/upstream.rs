//! Forwarding to the upstream resolvers: the query's bytes go out as they came, but for the id, and the answer's
//! bytes come back likewise.
//!
//! Each attempt over UDP has a socket of its own, connected, on a random port: a forged answer must guess port and id
//! ([RFC 5452 section 9](https://www.rfc-editor.org/rfc/rfc5452#section-9)), come from the upstream's address, and
//! repeat the question. Over TLS and HTTPS all queries share a connection ([`encrypted`]), and are padded.

mod locator;
mod plain;
mod encrypted;
mod dot;
mod doh;

use std::io;
use std::iter;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dns_signal_proto::query::{self, Query};
use explain::facts;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use service_kit::{ConfigError, authorities_in, own_authorities};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::dns_resolver::Resolver;
use encrypted::Encrypted;
pub use locator::{Encryption, Locator, LocatorError};
use plain::Mark;

/// Queries that may wait for upstreams at once; each holds a socket per attempt.
const MAX_IN_FLIGHT: usize = 512;
/// After this long without an answer the next upstream is tried; the one before may still answer.
const NEXT_AFTER: Duration = Duration::from_millis(1500);
/// A stub resolver gives up after 5 s by default (resolv.conf(5)): it should hear SERVFAIL before.
const GIVE_UP_AFTER: Duration = Duration::from_millis(4500);
/// Attempts per query at least, so that a lost datagram to the only upstream is repeated.
const MIN_ATTEMPTS: usize = 3;
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

/// Which upstream, and what it said.
type Ended = (usize, io::Result<Vec<u8>>);

/// How a query came, and how it is forwarded in clear text.
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

#[derive(Debug)]
struct Server {
    locator: Locator,
    /// Absent: asked in clear text.
    encrypted: Option<Arc<Encrypted>>,
}

/// The upstream resolvers.
#[derive(Debug)]
pub struct Upstreams {
    /// Those that are asked over an encrypted connection first.
    servers: Vec<Server>,
    /// Index of the one that answered last: it is tried first. While there is an encrypted one it is such a one, so that
    /// everything goes there again as soon as it answers.
    preferred: AtomicUsize,
    in_flight: Arc<Semaphore>,
    resolver: Arc<Resolver>,
    mark: Arc<Mark>,
}

impl Upstreams {
    /// `servers` in order of preference, at least one; encrypted ones come before the others in any case. Those that are asked over an encrypted connection show a certificate of
    /// one of the authorities in `trust_file`, else of this machine's.
    ///
    /// # Errors
    /// When there are no authorities.
    pub fn new(
        servers: &[Locator],
        trust_file: Option<&Path>,
        resolver: Arc<Resolver>,
    ) -> Result<Arc<Self>, ConfigError> {
        let mark = Arc::new(Mark::default());
        let is_encrypted = |server: &&Locator| server.encryption.is_some();
        let tls = match servers.iter().find(is_encrypted) {
            Some(_) => Some(tls(trust_file)?),
            None => None,
        };
        if let Some(clear) = servers.iter().find(|server| !is_encrypted(server))
            && tls.is_some()
        {
            tracing::warn!(
                upstream = %clear,
                "this upstream is asked in clear text when encrypted ones do not answer; leave it out of `dns.upstreams` to prevent it"
            );
        }
        let server = |locator: &Locator| {
            let encrypted = locator.encryption.clone().zip(tls.clone());
            Server {
                locator: locator.clone(),
                encrypted: encrypted.map(|(encryption, tls)| {
                    let (mark, resolver) = (Arc::clone(&mark), Arc::clone(&resolver));
                    Encrypted::new(locator.clone(), encryption, tls, mark, resolver)
                }),
            }
        };
        let mut servers: Vec<_> = servers.iter().map(server).collect();
        servers.sort_by_key(|server| server.encrypted.is_none());
        Ok(Arc::new(Self {
            servers,
            preferred: AtomicUsize::new(0),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            mark,
            resolver,
        }))
    }

    /// Marks the packets of all queries from now on, so that the interception of DNS lets them pass.
    pub fn mark(&self, mark: Option<u32>) {
        self.mark.set(mark);
    }

    /// Connects to those that are asked over an encrypted connection, so that what is wrong is said before somebody asks.
    pub(crate) fn prepare(&self) {
        for encrypted in self.servers.iter().filter_map(|it| it.encrypted.as_ref()) {
            tokio::spawn(Arc::clone(encrypted).prepare());
        }
    }

    /// How they are, in the order in which they are tried.
    #[must_use]
    pub fn facts(&self) -> Vec<facts::Upstream> {
        let fact = |server: &Server| {
            let encrypted = server.encrypted.as_ref();
            facts::Upstream {
                upstream: server.locator.to_string(),
                connected: encrypted.map(|encrypted| encrypted.is_connected()),
                problem: encrypted.and_then(|encrypted| encrypted.problem()),
            }
        };
        self.servers.iter().map(fact).collect()
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
        let others = (0..count).filter(|index| *index != first);
        let mut to_try = iter::once(first).chain(others).cycle().take(attempts);
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
                        self.prefer(index);
                        return Ok(answer);
                    }
                    (index, Err(error)) => {
                        tracing::debug!(upstream = %self.servers[index].locator, %error, "upstream failed");
                        next_at = Instant::now();
                    }
                },
                () = sleep_until(next_at.min(give_up)) => {}
            }
        }
        refusal.ok_or(ForwardError::NoAnswer)
    }

    fn prefer(&self, index: usize) {
        let is_encrypted = |index: usize| self.servers[index].encrypted.is_some();
        if is_encrypted(index) || !is_encrypted(0) {
            self.preferred.store(index, Ordering::Relaxed);
        }
    }

    async fn attempt(
        &self,
        index: usize,
        message: &[u8],
        query: &Query,
        transport: Transport,
    ) -> Ended {
        let Server { locator, encrypted } = &self.servers[index];
        let (server, mark) = (locator.address, &*self.mark);
        let result = match (encrypted, transport) {
            // Apart, so that what waits for a datagram stays small.
            (Some(encrypted), _) => Box::pin(encrypted.ask(message, query)).await,
            (None, Transport::Udp) => {
                plain::ask_udp(server, mark, message, query, self.resolver.stats()).await
            }
            (None, Transport::Tcp) => {
                plain::ask_tcp(server, mark, message, query, NEXT_AFTER).await
            }
        };
        (index, result)
    }
}

/// Whose certificates are believed.
fn tls(trust_file: Option<&Path>) -> Result<ClientConfig, ConfigError> {
    const TRUST_FILE: &str = "dns.upstream-trust-file";
    let roots = match trust_file {
        Some(file) => authorities_in(TRUST_FILE, file)?,
        None => own_authorities("dns.upstreams", TRUST_FILE)?,
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::without_field(format!("no TLS: {error}"), ""))?;
    Ok(tls.with_root_certificates(roots).with_no_client_auth())
}

fn is_refusal(answer: &[u8]) -> bool {
    matches!(query::response_code(answer), SERVFAIL | REFUSED)
}
