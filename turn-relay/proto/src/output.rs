//! Everything that can leave the core.

use crate::{FiveTuple, JoinedMeter, PeerConnectionId, RealmUser, RelayId, ShardMessage};
use model::PeerAddr;
use std::net::SocketAddr;

/// What becomes of a datagram. Borrows the payload from it: nothing is copied, queued or allocated.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub enum Verdict<'a> {
    /// Send `payload` to `peer` from the socket of `relay`.
    ToPeer {
        relay: RelayId,
        peer: PeerAddr,
        payload: &'a [u8],
        /// Whether it must not be fragmented on its way.
        dont_fragment: bool,
    },
    /// Send `prefix`, `payload` and `padding` zero bytes (0 to 3), in this order, to the client.
    ToClient {
        path: FiveTuple,
        prefix: Prefix,
        payload: &'a [u8],
        padding: u8,
    },
    /// Done, or answered: see [`Server::poll_output`](crate::Server::poll_output).
    Handled,
    /// Ignored and counted.
    Dropped(DropReason),
}

/// What the relay puts before a peer's payload: a ChannelData header of 4 bytes, or a Data indication up to the value of
/// its DATA attribute, at most 48 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Prefix {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Prefix {
    /// 20 of STUN header, 24 of XOR-PEER-ADDRESS for IPv6, 4 of DATA.
    pub const MAX: usize = 48;

    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        let mut bytes = [0; Self::MAX];
        let mut len = 0;
        for part in parts {
            bytes[len..len + part.len()].copy_from_slice(part);
            len += part.len();
        }
        Self {
            bytes,
            len: len as u8,
        }
    }

    pub(crate) fn is_channel_data(&self) -> bool {
        usize::from(self.len) == wire::channel_data::HEADER_LEN
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What the shell is to do. Ask for these until there are none after everything that entered.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to the client.
    Answer { path: FiveTuple, bytes: Vec<u8> },
    /// Bind a UDP socket to `address` and say how that went, before anything else enters:
    /// [`Server::handle_relay_opened`](crate::Server::handle_relay_opened).
    OpenRelay { relay: RelayId, address: SocketAddr },
    /// Listen for TCP connections on `address`, and say how that went, likewise. Each connection that comes is named by
    /// [`Server::handle_peer_accepted`](crate::Server::handle_peer_accepted), or closed.
    OpenTcpRelay { relay: RelayId, address: SocketAddr },
    /// Connect to `peer` over TCP from the address `from`, which `relay` listens on, and say how that went:
    /// [`Server::handle_peer_connected`](crate::Server::handle_peer_connected).
    Connect {
        connection: PeerConnectionId,
        relay: RelayId,
        from: SocketAddr,
        peer: PeerAddr,
    },
    /// End a connection with a peer, on whichever shard it is, and the client's connection that it is joined to.
    ClosePeer { connection: PeerConnectionId },
    /// The client's connection `path` carries what the connection with a peer carries from here on: after the answers before
    /// this, and from the message after the request on.
    Join {
        path: FiveTuple,
        connection: PeerConnectionId,
        /// To be asked before bytes are carried, and told of them.
        meter: JoinedMeter,
    },
    /// Ask the site about this user, who is none of those known here, and say what came of it:
    /// [`Server::handle_looked_up`](crate::Server::handle_looked_up).
    LookUp { user: RealmUser },
    /// Close the socket: what still arrives on it belongs to nobody.
    CloseRelay { relay: RelayId },
    /// Give this to another shard ([`Server::handle_shard_message`](crate::Server::handle_shard_message)), with the sockets of
    /// these relayed addresses, which are no longer this one's.
    ToShard {
        shard: u16,
        message: ShardMessage,
        relays: Vec<RelayId>,
    },
    /// An allocation is over; only where [`Extensions::usage`](crate::Extensions::usage) asks for it.
    Ended(Box<crate::Ended>),
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a datagram was ignored.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// All of them, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As a metric's label: lower case with underscores.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// Neither STUN nor ChannelData, or empty.
    NotTurn = "not_turn",
    /// STUN that cannot be read.
    MalformedStun = "malformed_stun",
    /// A response: servers get none.
    UnexpectedResponse = "unexpected_response",
    /// A request or indication of a method that is not served.
    UnknownMethod = "unknown_method",
    /// ChannelData that cannot be read.
    MalformedChannelData = "malformed_channel_data",
    /// A Send indication without peer or data, or with something in it that must be understood and is not.
    MalformedSend = "malformed_send",
    /// ChannelData or a Send indication on a five-tuple without allocation.
    NoAllocation = "no_allocation",
    /// ChannelData on a channel that is not bound.
    UnboundChannel = "unbound_channel",
    /// To a peer, or from a peer, without permission.
    NoPermission = "no_permission",
    /// To or from a peer that the policy denies, whatever the permission says.
    DeniedPeer = "denied_peer",
    /// To a peer of a family in which the allocation has no relayed address.
    FamilyMismatch = "family_mismatch",
    /// From a peer, on a socket whose allocation has ended.
    RelayClosed = "relay_closed",
    /// A Send indication in an allocation with TCP to peers.
    TcpAllocation = "tcp_allocation",
    /// From a peer, and too large to be wrapped.
    TooLarge = "too_large",
    /// To one peer too many that was not asked for before ([`UsageLimits::new_peers`](crate::UsageLimits::new_peers)).
    Scanning = "scanning",
    /// More than the user, or all users together, may have carried ([`UsageLimits`](crate::UsageLimits)).
    OverBandwidth = "over_bandwidth",
    /// Unauthenticated, and enough of those were answered within the second ([`AnswerLimits`](crate::AnswerLimits)).
    UnauthenticatedRate = "unauthenticated_rate",
    /// Unauthenticated, and so small that every answer would be more than one and a half times as large.
    UnauthenticatedSize = "unauthenticated_size",
}
