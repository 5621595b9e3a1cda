//! Everything that can leave the agent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use link::{Carrier, LinkStats, PairStatus, Path, Transmit};
use model::{NetworkName, NodeId, RelayName, ServiceName};
use protocol::document::document::Body;
use turn_client::Reserve;

use super::session::TimedStep;

/// Something for the shell to do.
#[derive(Debug)]
pub enum AgentOutput {
    /// Sign this for `to` and leave it in its mailbox; a failure comes back as
    /// [`crate::agent::Agent::handle_post_failed`].
    Document {
        /// The activator it is for.
        to: NodeId,
        /// The link it is about.
        link: u64,
        /// What to sign.
        body: Body,
    },
    /// A datagram from a host socket, or from a relayed address.
    Transmit(Transmit),
    /// For an allocation that is to be held.
    Reserve(Reserve),
    /// Have a relay let this peer through, for one more link.
    Permit {
        /// The relay.
        relay: RelayName,
        /// The peer.
        peer: SocketAddr,
    },
    /// One link fewer needs this peer.
    Unpermit {
        /// The relay.
        relay: RelayName,
        /// The peer.
        peer: SocketAddr,
    },
    /// A frame for the TUN device.
    ToTun(BytesMut),
    /// An activator said what is behind a service's name: for the DNS side, which answers for it.
    Verdict {
        /// The network of both.
        network: NetworkName,
        /// The name.
        service: ServiceName,
        /// What it said.
        verdict: NameVerdict,
    },
    /// Something for the log.
    Notice(LinkNotice),
}

/// See [`AgentOutput::Verdict`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameVerdict {
    /// A service.
    Found,
    /// Nothing, for so long.
    Absent {
        /// As the activator says.
        lasts: Duration,
        /// Why, as one sentence.
        reason: String,
    },
}

impl From<Reserve> for AgentOutput {
    fn from(reserve: Reserve) -> Self {
        Self::Reserve(reserve)
    }
}

/// What an operator would want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkNotice {
    /// A link is open.
    Opened {
        /// The link's id.
        link: u64,
        /// The activator.
        peer: NodeId,
        /// How packets travel.
        path: Option<Path>,
        /// Since it was wanted.
        after: Duration,
    },
    /// A link is over.
    Closed {
        /// The link's id.
        link: u64,
        /// The activator.
        peer: NodeId,
        /// Whether it was ever open.
        opened: bool,
        /// Why, as one sentence.
        reason: String,
        /// When it was first wanted.
        wanted_at: Instant,
        /// The steps of opening that it got to.
        steps: Vec<TimedStep>,
    },
    /// No link could be opened.
    OpenFailed {
        /// The network that was wanted.
        network: NetworkName,
        /// Why, as one sentence.
        reason: String,
    },
    /// The activator does not let this sidecar use a service.
    ServiceRefused {
        /// The activator.
        peer: NodeId,
        /// The service.
        service: ServiceName,
        /// Its reason.
        reason: String,
    },
}

/// One link, for `/status`.
#[derive(Clone, Debug)]
pub struct LinkStatus {
    /// The link's id.
    pub link: u64,
    /// The activator.
    pub peer: NodeId,
    /// Whether frames can be sent.
    pub open: bool,
    /// How packets travel.
    pub path: Option<Path>,
    /// What carries frames now, once the link is open.
    pub carrier: Option<Carrier>,
    /// Round trip of the session.
    pub rtt: Option<Duration>,
    /// When it was first wanted.
    pub wanted_at: Instant,
    /// The steps of opening so far.
    pub steps: Vec<TimedStep>,
    /// The link's counters.
    pub stats: LinkStats,
}

/// How an attempt to open a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No activator of the network is registered.
    NoActivator,
    /// The offer could not be delivered.
    NotDelivered,
    /// The offer was not answered in time.
    NoAnswer,
    /// The activator refused the offer.
    Refused,
    /// What the activator said was not believed, or could not be used.
    NotBelieved,
    /// The activator gave it up.
    Ended,
    /// No pair of candidates worked.
    NoPath,
    /// A path was found, and the session did not open over it.
    NoSession,
    /// This end could not begin.
    Local,
}

/// The last attempt that failed, for whoever asks why.
#[derive(Clone, Debug)]
pub struct Failure {
    /// How it ended.
    pub kind: FailureKind,
    /// The activator that was asked.
    pub node: Option<NodeId>,
    /// Why, as one sentence.
    pub reason: String,
    /// When it ended.
    pub at: Instant,
    /// The steps it got to.
    pub steps: Vec<TimedStep>,
    /// What ICE tried.
    pub pairs: Vec<PairStatus>,
}

impl Failure {
    /// Before there was a session.
    pub(crate) const fn before(
        kind: FailureKind,
        node: Option<NodeId>,
        reason: String,
        at: Instant,
    ) -> Self {
        Self {
            kind,
            node,
            reason,
            at,
            steps: Vec::new(),
            pairs: Vec::new(),
        }
    }
}

/// What the activator said of a service, on the link there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was not asked on this link.
    NotAsked,
    /// It was asked.
    Asked,
    /// This node may use it.
    Accepted,
    /// It may not, for this reason.
    Refused(String),
}

/// Everything that is known of the way to a service.
#[derive(Clone, Debug)]
pub struct Way {
    /// Attempts to reach the network that ended without an open link.
    pub failures: u64,
    /// The last of them, unless a link opened since.
    pub last_failure: Option<Failure>,
    /// The link there is.
    pub link: Option<LinkStatus>,
    /// What ICE found on it.
    pub pairs: Vec<PairStatus>,
    /// What its activator said of the service.
    pub verdict: Verdict,
    /// The longest IP packet that crosses it in one piece, bytes.
    pub mtu: usize,
    /// Whether its datagram lane should be up and does not get through.
    pub lane_silent: bool,
}

/// Why a frame went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum FrameDrop {
    /// The destination is no virtual IP that was handed out.
    #[error("unknown_destination")]
    UnknownDestination,
    /// No valid frame or IP packet.
    #[error("malformed")]
    Malformed,
    /// The link closed in between.
    #[error("link_closed")]
    LinkClosed,
    /// The link's send queue is full.
    #[error("queue_full")]
    QueueFull,
    /// Longer than a frame may be.
    #[error("too_long")]
    TooLong,
    /// The activator refuses this service.
    #[error("service_refused")]
    ServiceRefused,
    /// From a link: not for this device.
    #[error("foreign_destination")]
    ForeignDestination,
    /// From a link: not from a service this link is bound to.
    #[error("foreign_source")]
    ForeignSource,
    /// From the workloads: not from this device's own address.
    #[error("spoofed_source")]
    SpoofedSource,
}

impl FrameDrop {
    /// All reasons, in the order of [`FrameDrop::index`].
    pub const ALL: [Self; 9] = [
        Self::UnknownDestination,
        Self::Malformed,
        Self::LinkClosed,
        Self::QueueFull,
        Self::TooLong,
        Self::ServiceRefused,
        Self::ForeignDestination,
        Self::ForeignSource,
        Self::SpoofedSource,
    ];

    /// The reason's place in a table of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
