//! An upstream that is asked over TLS. There is one connection, made when it is wanted, shared by all queries, closed when
//! nobody has asked for a while, and made again when it ended; after failures not at once. Whatever fails, nothing is asked in
//! clear text.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use dns_signal_proto::padding;
use dns_signal_proto::query::{self, Query};
use rustls::ClientConfig;
use socket2::SockRef;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::locator::{Encryption, Locator};
use super::plain::Mark;
use super::{doh, dot};
use crate::dns_resolver::Resolver;

/// Until TLS is up, and HTTP/2 with it.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// What the upstream's kernel does not acknowledge for so long ends the connection: its path is gone.
const UNACKNOWLEDGED_LIMIT: Duration = Duration::from_secs(2);
/// A connection on which nobody asked for so long is closed
/// ([RFC 7766 section 6.2.3](https://www.rfc-editor.org/rfc/rfc7766#section-6.2.3)).
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// After the first failure; twice as long after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Problems that come and go are logged at most so often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What has to run while there is a connection.
type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    /// The connection ended: another may be better.
    #[error("{0}")]
    Lost(io::Error),
    /// What came is no answer.
    #[error("{0}")]
    Refused(String),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Encrypted {
    locator: Locator,
    encryption: Encryption,
    tls: Arc<ClientConfig>,
    mark: Arc<Mark>,
    resolver: Arc<Resolver>,
    slot: Arc<Mutex<Slot>>,
    told: std::sync::Mutex<Told>,
}

/// What operators are told.
#[derive(Debug, Default)]
struct Told {
    /// Why it cannot be used, as far as is known.
    problem: Option<String>,
    /// Whether this problem is in the log.
    is_logged: bool,
    last_logged: Option<Instant>,
}

#[derive(Debug, Default)]
struct Slot {
    open: Option<Open>,
    /// Connections made so far.
    made: u64,
    /// Failures since the last answer.
    failures: u32,
    /// No connection is made before.
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    connection: Connection,
    used: Instant,
}

#[derive(Clone, Debug)]
enum Connection {
    Tls(dot::Asker),
    Https(doh::Asker),
}

impl Connection {
    async fn ask(&self, message: Vec<u8>) -> Result<Vec<u8>, Trouble> {
        match self {
            Self::Tls(asker) => asker.ask(message).await,
            Self::Https(asker) => asker.ask(message).await,
        }
    }
}

/// A connection, for one query.
struct Held {
    number: u64,
    is_new: bool,
    connection: Connection,
}

impl Encrypted {
    /// `tls` says whose certificates are believed.
    pub(super) fn new(
        locator: Locator,
        encryption: Encryption,
        mut tls: ClientConfig,
        mark: Arc<Mark>,
        resolver: Arc<Resolver>,
    ) -> Arc<Self> {
        let protocol: &[u8] = if encryption.http.is_some() {
            b"h2"
        } else {
            b"dot"
        };
        tls.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(Self {
            locator,
            encryption,
            tls: Arc::new(tls),
            mark,
            resolver,
            slot: Arc::default(),
            told: std::sync::Mutex::default(),
        })
    }

    /// Why it cannot be used, as far as is known.
    pub(super) fn problem(&self) -> Option<String> {
        self.told().problem.clone()
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a connection now.
    pub(super) fn is_connected(&self) -> bool {
        // Who holds it makes one.
        let slot = self.slot.try_lock();
        slot.is_ok_and(|slot| slot.open.is_some())
    }

    /// Connects before somebody asks, so that what is wrong is said at once.
    pub(super) async fn prepare(self: Arc<Self>) {
        // What failed was told.
        let _ = self.connection().await;
    }

    /// The upstream's answer, with the query's id.
    ///
    /// # Errors
    /// When there is no connection and cannot be one now, or when what comes is no answer.
    pub(super) async fn ask(
        self: &Arc<Self>,
        message: &[u8],
        query: &Query,
    ) -> io::Result<Vec<u8>> {
        let asked = padding::pad(message);
        let mut is_again = false;
        loop {
            let held = self.connection().await?;
            match held.connection.ask(asked.clone()).await {
                Ok(answer) if query::is_answer_to(&answer, query.id, &query.question) => {
                    self.on_answer().await;
                    return Ok(padding::unpad(message, answer));
                }
                Ok(_) => {
                    self.resolver.stats().upstream_mismatches.count();
                    return Err(io::Error::other("the answer is to another question"));
                }
                Err(Trouble::Lost(error)) => {
                    self.resolver.stats().upstream_lost.count();
                    self.on_lost(&held, &error).await;
                    // The upstream may have closed it just when it was needed.
                    if held.is_new || is_again {
                        return Err(error);
                    }
                    is_again = true;
                }
                Err(Trouble::Refused(problem)) => {
                    let error = io::Error::other(problem);
                    self.on_failure(&error);
                    return Err(error);
                }
            }
        }
    }

    async fn connection(self: &Arc<Self>) -> io::Result<Held> {
        let mut slot = Arc::clone(&self.slot).lock_owned().await;
        if let Some(open) = &mut slot.open {
            open.used = Instant::now();
            return Ok(Held {
                number: open.number,
                is_new: false,
                connection: open.connection.clone(),
            });
        }
        if slot.not_before.is_some_and(|at| Instant::now() < at) {
            return Err(io::Error::other("it failed a moment ago"));
        }
        let this = Arc::clone(self);
        // It is not given up when another upstream is faster: the next query will want it.
        let connecting = tokio::spawn(async move { this.connect(&mut slot).await });
        connecting.await.map_err(io::Error::other)?
    }

    async fn connect(&self, slot: &mut Slot) -> io::Result<Held> {
        let opened = timeout(CONNECT_LIMIT, self.open()).await;
        let opened = opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (connection, running) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                slot.pause();
                self.on_failure(&error);
                return Err(error);
            }
        };
        self.resolver.stats().upstream_connections.count();
        slot.made += 1;
        let number = slot.made;
        slot.open = Some(Open {
            number,
            connection: connection.clone(),
            used: Instant::now(),
        });
        tokio::spawn(keep(Arc::clone(&self.slot), number, running));
        Ok(Held {
            number,
            is_new: true,
            connection,
        })
    }

    async fn open(&self) -> io::Result<(Connection, Running)> {
        let server = self.locator.address;
        let socket = self.mark.tcp_socket(server)?;
        SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED_LIMIT))?;
        let stream = socket.connect(server).await?;
        stream.set_nodelay(true)?;
        let Encryption { name, http } = self.encryption.clone();
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        let stream = tls.connect(name, stream).await?;
        let Some(uri) = http else {
            let (asker, running) = dot::start(stream, Arc::clone(&self.resolver));
            return Ok((Connection::Tls(asker), Box::pin(running)));
        };
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::other("it does not speak HTTP/2"));
        }
        let (asker, running) = doh::start(stream, uri).await?;
        Ok((Connection::Https(asker), Box::pin(running)))
    }

    async fn on_answer(&self) {
        let was_logged = {
            let mut told = self.told();
            if told.problem.take().is_none() {
                return;
            }
            std::mem::take(&mut told.is_logged)
        };
        if was_logged {
            tracing::info!(upstream = %self.locator, "the upstream answers again");
        }
        self.slot.lock().await.failures = 0;
    }

    async fn on_lost(&self, held: &Held, error: &io::Error) {
        let mut slot = self.slot.lock().await;
        slot.close(held.number);
        // One that ends before it has answered would be made again for each query.
        if held.is_new {
            slot.pause();
            self.on_failure(error);
        }
    }

    /// Says what is wrong, once, and not again with every query of which one fails and the next does not.
    fn on_failure(&self, error: &io::Error) {
        let stats = self.resolver.stats();
        let cause = error
            .get_ref()
            .and_then(|it| it.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(_)) => stats.upstream_untrusted.count(),
            _ => stats.upstream_unreachable.count(),
        }
        let problem = error.to_string();
        let mut told = self.told();
        let is_new = told.problem.as_ref() != Some(&problem);
        if is_new && told.last_logged.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            tracing::warn!(
                upstream = %self.locator,
                problem,
                "an encrypted upstream cannot be used; it is not asked in clear text"
            );
            told.is_logged = true;
            told.last_logged = Some(Instant::now());
        }
        told.problem = Some(problem);
    }
}

impl Slot {
    /// Nobody asks on this connection any more.
    fn close(&mut self, number: u64) {
        self.open.take_if(|open| open.number == number);
    }

    fn pause(&mut self) {
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.not_before = Some(Instant::now() + pause.min(LONGEST_PAUSE));
    }
}

/// Runs a connection until its end, and lets it end when it is idle.
async fn keep(slot: Arc<Mutex<Slot>>, number: u64, mut running: Running) {
    let idle = async {
        let mut until = Instant::now() + IDLE_LIMIT;
        loop {
            sleep_until(until).await;
            let mut slot = slot.lock().await;
            let open = slot.open.as_ref().filter(|open| open.number == number);
            match open.map(|open| open.used + IDLE_LIMIT) {
                Some(later) if later > Instant::now() => until = later,
                _ => return slot.close(number),
            }
        }
    };
    tokio::select! {
        () = &mut running => slot.lock().await.close(number),
        // With the last who holds it.
        () = idle => running.await,
    }
}
