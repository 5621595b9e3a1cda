//! What happened to connections, as plain numbers.

use super::StreamKind;
use turn_relay_proto::Traffic;

macro_rules! reasons {
    ($(#[$of:meta])* $type:ident { $($(#[$doc:meta])* $name:ident = $label:literal,)* }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $type { $($(#[$doc])* $name,)* }

        impl $type {
            /// All of them, in the order of their discriminants.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As a metric's label.
            pub(crate) fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// Why a connection is closed.
    CloseReason {
        /// The client closed it.
        Client = "client",
        /// It broke: reset, or silent for too long.
        Broken = "broken",
        /// Its bytes are not STUN or ChannelData, or too long for a stranger.
        BadFrame = "bad_frame",
        /// Its bytes are not TLS, or not of a version or key that is accepted.
        BadTls = "bad_tls",
        /// The TLS handshake took too long.
        HandshakeTimeout = "handshake_timeout",
        /// It had no allocation for too long.
        Stranger = "stranger",
        /// It was the oldest stranger when there were too many.
        Evicted = "evicted",
        /// The client reads none of its answers.
        AnswersUnread = "answers_unread",
        /// It comes from a load balancer, and does not begin with a PROXY header that names a client over TCP.
        BadProxyHeader = "bad_proxy_header",
        /// There are as many strangers of the announced client's prefix as there may be.
        Prefix = "prefix",
        /// It carried a peer's connection (RFC 6062) that ended.
        Peer = "peer",
    }
}

reasons! {
    /// Why a connection is closed as soon as it is accepted.
    RefuseReason {
        /// There are as many connections as there may be.
        Connections = "connections",
        /// There are as many strangers of its source prefix as there may be.
        Prefix = "prefix",
        /// The kernel has no descriptor or no memory left.
        System = "system",
    }
}

/// All counters only grow, except where "now" is said.
#[derive(Clone, Debug, Default)]
pub(crate) struct OfTransport {
    /// Connections now.
    pub(crate) connections: u64,
    /// Of them without an allocation.
    pub(crate) strangers: u64,
    pub(crate) accepted: u64,
    /// By [`RefuseReason`] as index.
    pub(crate) refused: [u64; RefuseReason::ALL.len()],
    /// By [`CloseReason`] as index.
    pub(crate) closed: [u64; CloseReason::ALL.len()],
    /// Handshakes of TLS or DTLS completed.
    pub(crate) handshakes: u64,
    /// What clients sent for peers.
    pub(crate) to_peer: Traffic,
    /// What was sent, or is about to be sent, to clients.
    pub(crate) to_client: Traffic,
    /// Frames for clients that read too slowly.
    pub(crate) dropped: Traffic,
    /// Connections now that carry a peer's.
    pub(crate) joined: u64,
    /// Bytes that they carried.
    pub(crate) joined_to_peer: u64,
    pub(crate) joined_to_client: u64,
}

reasons! {
    /// Why a datagram for a DTLS listener is dropped.
    DtlsDropReason {
        /// It belongs to no session and begins none.
        NoSession = "no_session",
        /// What is in it is not of the session, or damaged, or came before.
        BadRecord = "bad_record",
        /// A hello with a right cookie that no session can come of: nothing in common, for one.
        BadHello = "bad_hello",
    }
}

/// All counters only grow.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamStats {
    /// By [`StreamKind`] as index.
    of: [OfTransport; StreamKind::ALL.len()],
    /// By [`DtlsDropReason`] as index.
    pub(crate) dtls_dropped: [u64; DtlsDropReason::ALL.len()],
    /// Cookies sent to clients of DTLS that did not show one.
    pub(crate) dtls_cookies: u64,
}

impl StreamStats {
    pub(crate) fn of(&self, kind: StreamKind) -> &OfTransport {
        &self.of[kind as usize]
    }

    /// Frames that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.of.iter().map(|of| of.dropped.packets).sum()
    }

    pub(super) fn of_mut(&mut self, kind: StreamKind) -> &mut OfTransport {
        &mut self.of[kind as usize]
    }
}
