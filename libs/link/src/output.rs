//! Everything that can leave a link.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::BytesMut;
use model::RelayTransport;
use protocol::document::Control;

use crate::config::PathChoice;

/// One or more datagrams to send, in order.
#[derive(Debug)]
pub struct Transmit {
    /// The base it is sent from: a host socket's address, or a relayed address of an allocation.
    pub local: SocketAddr,
    /// The peer's address on this path.
    pub remote: SocketAddr,
    /// The UDP payloads, one after the other; never empty.
    pub payload: BytesMut,
    /// Bytes of each payload but the last, which may be shorter: what UDP_SEGMENT wants to know. Never 0; no less
    /// than the whole means that it is one datagram.
    pub segment: usize,
}

impl Transmit {
    /// One datagram.
    #[must_use]
    pub fn one(local: SocketAddr, remote: SocketAddr, payload: BytesMut) -> Self {
        let segment = payload.len().max(1);
        Self {
            local,
            remote,
            payload,
            segment,
        }
    }

    /// The datagrams' payloads, in order.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.payload.chunks(self.segment.max(1))
    }
}

/// What happened on a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// Opening got one step further.
    Step(Step),
    /// Packets travel this way from now on, or by another relay.
    Path(Path),
    /// What is sent is not answered, on no path. Said once; the link looks for a path, and ends when it finds none
    /// within [`crate::LinkConfig::silence_timeout`].
    Silent,
    /// Frames sent from now on travel by this carrier: `Datagram` once the lane is confirmed, `DataChannel` when
    /// it turned out to be dead.
    Carrier(Carrier),
    /// A message on the `control` channel (`Hello` and `Ping` are dealt with inside).
    Control(Control),
    /// One message of the `ip` channel: a tunnel frame, not yet validated.
    Frame(BytesMut),
    /// The link is over; nothing follows but the last transmits.
    Closed(CloseReason),
}

/// The steps of opening, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A pair was nominated.
    IceConnected,
    /// DTLS came up between exactly the two certificates that were signed.
    DtlsConnected,
    /// Both data channels can be used.
    Open,
}

/// How a link's packets travel: as the worse of its two ends reaches the relay. The later in this list, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Host to host, punched or not.
    Direct,
    /// Through a relay, reached over UDP.
    RelayUdp,
    /// Through a relay, which one end reaches over TCP.
    RelayTcp,
    /// Through a relay, which one end reaches over TLS.
    RelayTls,
}

impl Path {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::Direct, Self::RelayUdp, Self::RelayTcp, Self::RelayTls];

    /// Whether a relay carries the packets.
    #[must_use]
    pub fn is_relayed(self) -> bool {
        self != Self::Direct
    }

    /// Through a relay that is reached so.
    #[must_use]
    pub const fn over(transport: RelayTransport) -> Self {
        match transport {
            RelayTransport::Udp => Self::RelayUdp,
            RelayTransport::Tcp => Self::RelayTcp,
            RelayTransport::Tls => Self::RelayTls,
        }
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|path| path.as_str() == text)
    }

    /// `direct`, `relay/udp`, `relay/tcp`, `relay/tls`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::RelayUdp => "relay/udp",
            Self::RelayTcp => "relay/tcp",
            Self::RelayTls => "relay/tls",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A pair of candidates, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairStatus {
    /// What this end sends from.
    pub local: SocketAddr,
    /// Where the peer is on it.
    pub remote: SocketAddr,
    /// Whether a relay is on it.
    pub relayed: bool,
    /// What became of it.
    pub outcome: PairOutcome,
    /// Round trip, as the last check found it that was answered at once.
    pub rtt: Option<Duration>,
}

/// What became of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairOutcome {
    /// The link's packets go this way.
    Selected,
    /// A check was answered; another pair was chosen.
    Answered,
    /// Checks are still going out.
    Checking,
    /// No check was answered.
    Unanswered,
    /// It was not tried yet.
    Unchecked,
}

impl fmt::Display for PairOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Selected => "selected",
            Self::Answered => "answered",
            Self::Checking => "checking",
            Self::Unanswered => "unanswered",
            Self::Unchecked => "unchecked",
        })
    }
}

/// What carries a link's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// A choice, not a state: the lane when the peer speaks it and it gets through, else the data channel.
    #[default]
    Auto,
    /// The datagram lane (docs/protocol/datagram-lane.md). As a choice: like `Auto`, but a lane that fell silent is
    /// not given up for the data channel.
    Datagram,
    /// The `ip` data channel, which every WebRTC peer has.
    DataChannel,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Datagram => "datagram",
            Self::DataChannel => "data-channel",
        })
    }
}

impl FromStr for Carrier {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        match text {
            "auto" => Ok(Self::Auto),
            "datagram" => Ok(Self::Datagram),
            "data-channel" => Ok(Self::DataChannel),
            _ => Err(LinkError::Setup(
                "a carrier is `auto`, `datagram` or `data-channel`".to_owned(),
            )),
        }
    }
}

/// Why a link ended, one clear sentence each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// No pair worked in time, or the peer fell silent.
    #[error("no path to the peer: connectivity checks went unanswered")]
    IceTimeout,
    /// The same, where the setting forbids some.
    #[error(
        "no path to the peer that `path = \"{0}\"` allows here: connectivity checks went unanswered, or the peer allows no \
         such path"
    )]
    NoAllowedPath(PathChoice),
    /// ICE connected but DTLS or SCTP did not come up in time.
    #[error("the session did not open in time after a path was found")]
    OpenTimeout,
    /// The peer's DTLS certificate is not the one that was signed.
    #[error(
        "the DTLS certificate's fingerprint {seen} is not the signed one {expected}: somebody is in between, or the \
         peer restarted"
    )]
    FingerprintMismatch {
        /// Hex of what the signed description named.
        expected: String,
        /// Hex of what DTLS saw.
        seen: String,
    },
    /// The peer ended the link.
    #[error("the peer closed the link: {0}")]
    PeerClosed(String),
    /// This side ended it.
    #[error("closed here: {0}")]
    LocalClosed(String),
    /// The DTLS handshake failed otherwise.
    #[error("DTLS failed: {0}")]
    DtlsFailed(String),
    /// The SCTP association was lost, or the peer broke the protocol.
    #[error("the session broke: {0}")]
    Protocol(String),
}

/// A description or candidate that cannot be used, or a local failure to set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The remote description is unusable.
    #[error("unusable session description: {0}")]
    BadDescription(&'static str),
    /// A candidate has no valid address.
    #[error("unusable candidate `{0}`")]
    BadCandidate(String),
    /// Local set-up failed.
    #[error("cannot set up the session: {0}")]
    Setup(String),
}

/// Why something was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendRefused {
    /// Neither the lane nor the data channels are open (yet, or any more).
    #[error("the link is not open")]
    NotOpen,
    /// `send_limit` bytes wait already.
    #[error("the link's send queue is full")]
    QueueFull,
    /// Longer than a message may be.
    #[error("the message is too long")]
    TooLong,
}
