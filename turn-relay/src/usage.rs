//! Usage records: one for each finished allocation, and one per user and period, as JSON lines in a file.
//!
//! The event loops hand over what they counted and never wait: where there is no room, records are lost and counted. A
//! thread writes; on SIGHUP it opens the file again, so that it can be rotated.

use net::Clock;
use serde::Serialize;
use service_kit::ConfigError;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use turn_relay_proto::{Ended, RealmUser, Transport, UserUsage};

/// Messages that wait for the thread.
const WAITING: usize = 8_192;
/// Users of one period; what others did is lost.
const USERS: usize = 65_536;

/// Where records go, and how often users are told.
#[derive(Clone, Debug)]
pub(crate) struct UsageSettings {
    pub(crate) file: PathBuf,
    pub(crate) period: Duration,
}

#[derive(Debug)]
enum Message {
    Ended(Box<Ended>),
    Users(Vec<(RealmUser, UserUsage)>),
    /// All event loops have told: the period is over.
    Period,
    End,
}

/// For metrics.
#[derive(Debug, Default)]
pub(crate) struct UsageStats {
    pub(crate) written: AtomicU64,
    pub(crate) lost: AtomicU64,
}

/// An event loop's end.
#[derive(Clone, Debug)]
pub(crate) struct UsageSender {
    messages: SyncSender<Message>,
    stats: Arc<UsageStats>,
}

/// The thread.
#[derive(Debug)]
pub(crate) struct UsageWriter {
    sender: UsageSender,
    again: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Tells the thread to open its file again.
#[derive(Clone, Debug)]
pub(crate) struct Reopen(Arc<AtomicBool>);

impl Reopen {
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl UsageSender {
    pub(crate) fn ended(&self, ended: Box<Ended>) {
        self.send(Message::Ended(ended));
    }

    pub(crate) fn users(&self, users: Vec<(RealmUser, UserUsage)>) {
        if !users.is_empty() {
            self.send(Message::Users(users));
        }
    }

    pub(crate) fn period(&self) {
        self.send(Message::Period);
    }

    fn send(&self, message: Message) {
        if self.messages.try_send(message).is_err() {
            self.stats.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl UsageWriter {
    /// Opens the file, and starts the thread.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn start(
        settings: &UsageSettings,
        stats: Arc<UsageStats>,
    ) -> Result<Self, ConfigError> {
        let file = open(&settings.file).map_err(|error| {
            ConfigError::of_field(
                "usage-file",
                settings.file.display(),
                format!("cannot be written: {error}"),
                "name a file in a directory that the relay may write to",
            )
        })?;
        let (messages, received) = sync_channel(WAITING);
        let again = Arc::new(AtomicBool::new(false));
        let writing = Writing {
            path: settings.file.clone(),
            file,
            period: settings.period,
            again: again.clone(),
            users: HashMap::new(),
            stats: stats.clone(),
        };
        let thread = thread::Builder::new()
            .name("usage".into())
            .spawn(move || writing.run(&received))
            .map_err(|error| ConfigError::without_field(error, "raise the limit of threads"))?;
        let sender = UsageSender { messages, stats };
        Ok(Self {
            sender,
            again,
            thread,
        })
    }

    pub(crate) fn sender(&self) -> UsageSender {
        self.sender.clone()
    }

    pub(crate) fn reopen(&self) -> Reopen {
        Reopen(self.again.clone())
    }

    /// Writes what waits, and ends. Blocks as long as the disk does.
    pub(crate) fn end(self) {
        // Behind all that was sent before; an error means that the thread is gone.
        let _ = self.sender.messages.send(Message::End);
        let _ = self.thread.join();
    }
}

/// Others may not read who talked to whom.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).open(path)
}

#[derive(Debug)]
struct Writing {
    path: PathBuf,
    file: File,
    period: Duration,
    again: Arc<AtomicBool>,
    users: HashMap<RealmUser, UserUsage>,
    stats: Arc<UsageStats>,
}

/// A line. Times are in seconds, `time` since 1970.
#[derive(Debug, Serialize)]
#[serde(tag = "record", rename_all = "lowercase")]
enum Record<'a> {
    Allocation {
        time: u64,
        realm: &'a str,
        user: &'a str,
        transport: &'static str,
        client: SocketAddr,
        server: SocketAddr,
        relayed: &'a [SocketAddr],
        seconds: f64,
        reason: &'static str,
        peers: u32,
        #[serde(flatten)]
        traffic: Traffic,
    },
    User {
        time: u64,
        realm: &'a str,
        user: &'a str,
        period_seconds: u64,
        /// Of all its allocations together.
        allocation_seconds: f64,
        #[serde(flatten)]
        traffic: Traffic,
    },
}

#[derive(Debug, Serialize)]
struct Traffic {
    packets_to_peer: u64,
    bytes_to_peer: u64,
    packets_to_client: u64,
    bytes_to_client: u64,
}

impl From<turn_relay_proto::Usage> for Traffic {
    fn from(usage: turn_relay_proto::Usage) -> Self {
        Self {
            packets_to_peer: usage.to_peer.packets,
            bytes_to_peer: usage.to_peer.bytes,
            packets_to_client: usage.to_client.packets,
            bytes_to_client: usage.to_client.bytes,
        }
    }
}

/// Three digits after the point.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}

impl Writing {
    fn run(mut self, messages: &Receiver<Message>) {
        for message in messages {
            if self.again.swap(false, Ordering::Relaxed) {
                self.reopen();
            }
            match message {
                Message::Ended(ended) => self.on_ended(&ended),
                Message::Users(users) => {
                    users
                        .into_iter()
                        .for_each(|(user, did)| self.add(user, did));
                }
                Message::Period => self.tell_users(),
                Message::End => {
                    self.tell_users();
                    return;
                }
            }
        }
    }

    fn reopen(&mut self) {
        match open(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => {
                let file = self.path.display();
                tracing::error!(%file, %error, "cannot open usage-file again: the old one stays");
            }
        }
    }

    fn add(&mut self, user: RealmUser, did: UserUsage) {
        if let Some(sum) = self.users.get_mut(&user) {
            sum.add(did);
        } else if self.users.len() < USERS {
            self.users.insert(user, did);
        } else {
            self.stats.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn on_ended(&mut self, ended: &Ended) {
        self.write(&[Record::Allocation {
            time: Clock.unix_time().0,
            realm: &ended.user.realm,
            user: &ended.user.name,
            transport: match ended.path.transport {
                Transport::Udp => "udp",
                Transport::Tcp(_) => "tcp",
                Transport::Tls(_) => "tls",
                Transport::Dtls(_) => "dtls",
            },
            client: ended.path.client.0,
            server: ended.path.server.0,
            relayed: &ended.relayed,
            seconds: seconds(ended.lasted),
            reason: ended.reason.label(),
            peers: ended.peers,
            traffic: ended.total.into(),
        }]);
        self.add(ended.user.clone(), ended.untold);
    }

    fn tell_users(&mut self) {
        let users = std::mem::take(&mut self.users);
        let time = Clock.unix_time().0;
        let records: Vec<Record<'_>> = users
            .iter()
            .map(|(user, did)| Record::User {
                time,
                realm: &user.realm,
                user: &user.name,
                period_seconds: self.period.as_secs(),
                allocation_seconds: seconds(did.held),
                traffic: did.usage.into(),
            })
            .collect();
        self.write(&records);
    }

    /// Whole lines with one system call, so that others who write to the file do not come between.
    fn write(&mut self, records: &[Record<'_>]) {
        for some in records.chunks(1_024) {
            let mut lines = Vec::new();
            for record in some {
                // Only strings and numbers: nothing that JSON does not know.
                if serde_json::to_writer(&mut lines, record).is_ok() {
                    lines.push(b'\n');
                }
            }
            let count = some.len() as u64;
            match self.file.write_all(&lines) {
                Ok(()) => self.stats.written.fetch_add(count, Ordering::Relaxed),
                Err(error) => {
                    tracing::debug!(%error, "cannot write usage records");
                    self.stats.lost.fetch_add(count, Ordering::Relaxed)
                }
            };
        }
    }
}
