//! Usage records: one for each finished allocation, and one per user and period, as JSON lines in a file.

use net::Clock;
use serde::Serialize;
use service_kit::{ConfigError, RecordFile, RecordSender, RecordStats, RecordWriter};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use turn_relay_proto::{Ended, RealmUser, Transport, UserUsage};

/// Users of one period; what others did is lost.
const USERS: usize = 65_536;

/// Where records go, and how often users are told.
#[derive(Clone, Debug)]
pub(crate) struct UsageSettings {
    pub(crate) file: PathBuf,
    pub(crate) period: Duration,
}

/// What event loops tell.
#[derive(Debug)]
pub(crate) enum Message {
    Ended(Box<Ended>),
    Users(Vec<(RealmUser, UserUsage)>),
    /// All event loops have told: the period is over.
    Period,
}

pub(crate) type UsageWriter = RecordWriter<Message>;

/// An event loop's end.
#[derive(Clone, Debug)]
pub(crate) struct UsageSender(pub(crate) RecordSender<Message>);

impl UsageSender {
    pub(crate) fn ended(&self, ended: Box<Ended>) {
        self.0.send(Message::Ended(ended));
    }

    pub(crate) fn users(&self, users: Vec<(RealmUser, UserUsage)>) {
        if !users.is_empty() {
            self.0.send(Message::Users(users));
        }
    }

    pub(crate) fn period(&self) {
        self.0.send(Message::Period);
    }
}

/// Opens the file, and starts to write.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn start(
    settings: &UsageSettings,
    stats: Arc<RecordStats>,
) -> Result<UsageWriter, ConfigError> {
    let mut users = Users {
        period: settings.period,
        did: HashMap::new(),
    };
    RecordWriter::start(
        "usage-file",
        &settings.file,
        stats,
        move |message, file| match message {
            Some(Message::Ended(ended)) => {
                file.write(&[Record::of_allocation(&ended)]);
                users.add(ended.user, ended.untold, file);
            }
            Some(Message::Users(all)) => {
                all.into_iter()
                    .for_each(|(user, did)| users.add(user, did, file));
            }
            Some(Message::Period) | None => users.tell(file),
        },
    )
}

/// What users did in this period.
#[derive(Debug)]
struct Users {
    period: Duration,
    did: HashMap<RealmUser, UserUsage>,
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

impl<'a> Record<'a> {
    fn of_allocation(ended: &'a Ended) -> Self {
        Self::Allocation {
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
        }
    }
}

impl Users {
    fn add(&mut self, user: RealmUser, did: UserUsage, file: &RecordFile) {
        if let Some(sum) = self.did.get_mut(&user) {
            sum.add(did);
        } else if self.did.len() < USERS {
            self.did.insert(user, did);
        } else {
            file.lose(1);
        }
    }

    fn tell(&mut self, file: &mut RecordFile) {
        let users = std::mem::take(&mut self.did);
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
        file.write(&records);
    }
}
