//! What an allocation says.

use std::time::Duration;

use model::{MappedAddr, PeerAddr, RelayedAddr};
use protocol::document::relay_trouble::Kind as TroubleKind;
use thiserror::Error;

/// What became of a datagram from the relay. Borrows the payload from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received<'a> {
    /// Understood and used up.
    Handled,
    /// A peer sent this through the relay.
    FromPeer {
        /// Who.
        peer: PeerAddr,
        /// What.
        payload: &'a [u8],
    },
    /// Ignored and counted.
    Dropped(DropReason),
}

/// Why a datagram from the relay was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Neither STUN nor ChannelData, or not readable.
    Malformed,
    /// ChannelData on a channel that is not bound, or whose peer was released.
    UnboundChannel,
    /// A response to nothing that we asked, or too late.
    UnknownTransaction,
    /// A response whose integrity is missing or wrong, or that an attacker has weakened.
    NotAuthentic,
    /// A request, or an indication that is not Data.
    Unexpected,
    /// There is no allocation.
    NoAllocation,
}

/// What happened to an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// There is an allocation now. After [`Event::Lost`] with the same relayed addresses, the peers that were
    /// permitted still are; otherwise none is.
    Allocated {
        /// One or two relayed addresses, of different families.
        relayed: Vec<RelayedAddr>,
        /// Where the relay sees us.
        mapped: MappedAddr,
    },
    /// There is no allocation now; a new one is tried for already. Also said when the first attempts fail, and
    /// again when the reason changes.
    Lost {
        /// Why.
        reason: LostReason,
    },
    /// The relay will soon be gone, or at least this allocation, however often it is refreshed: the relay drains. Said once
    /// of an allocation, within 5 s. What is on it should go elsewhere, and it be given back
    /// ([`Allocation::give_back`](crate::Allocation::give_back)).
    Ending {
        /// What is left of it.
        left: Duration,
    },
    /// The relay does not accept the credential: [`Allocation::set_credential`](crate::Allocation::set_credential)
    /// with another. Said again every 5 s.
    NeedCredential,
    /// The allocation is where [`Allocation::move_to`](crate::Allocation::move_to) wanted it. Nothing of it has changed.
    Moved,
    /// It stays where it was: the relay did not answer there, or did not let it move.
    NotMoved,
    /// The relay now passes packets of this peer, both ways.
    PeerReady(PeerAddr),
}

/// Why there is no allocation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LostReason {
    /// Nothing came from the relay for 4 seconds, though it was asked; for 1.2 seconds when something was sent through
    /// it.
    #[error("the relay is silent")]
    Silent,
    /// The relay does not know the allocation: it was restarted, or a NAT changed our address (437).
    #[error("the relay does not know the allocation (437)")]
    Mismatch,
    /// It could not be refreshed before its lifetime was over.
    #[error("the allocation has expired")]
    Expired,
    /// The relay wants the credential that the allocation was made with (441).
    #[error("the relay wants the credential that the allocation was made with (441)")]
    WrongCredential,
    /// The credential is not accepted (401).
    #[error("the relay does not accept the credential (401)")]
    Unauthorized,
    /// Somebody, perhaps this process before a restart, has an allocation from this address and port, and it
    /// cannot be deleted (437). A new socket helps.
    #[error("the relay has an allocation from this port that is not ours (437)")]
    PortTaken,
    /// The relay answers but does not allocate.
    #[error("the relay refuses ({code} {reason})")]
    Refused {
        /// The error code, 300 to 699.
        code: u16,
        /// Its words, at most 127 characters.
        reason: String,
    },
    /// It was given back, because the relay drains.
    #[error("given back, as the relay drains")]
    GivenBack,
    /// The relay's answer makes no sense.
    #[error("the relay's answer has no usable relayed address")]
    Nonsense,
}

impl LostReason {
    /// Whether a socket with another local port would help, which only the shell can open. Attempts go on with
    /// this one meanwhile: the relay forgets the other allocation within minutes.
    pub fn needs_new_port(&self) -> bool {
        matches!(self, Self::PortTaken | Self::WrongCredential)
    }

    /// What the directory says of it.
    pub const fn trouble(&self) -> TroubleKind {
        match self {
            Self::Silent => TroubleKind::Silent,
            Self::Unauthorized => TroubleKind::CredentialRefused,
            Self::Mismatch
            | Self::Expired
            | Self::WrongCredential
            | Self::PortTaken
            | Self::Refused { .. }
            | Self::GivenBack
            | Self::Nonsense => TroubleKind::Refused,
        }
    }
}

/// Where an allocation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Asking the relay, or waiting to ask again.
    Allocating,
    /// Waiting for a credential.
    NeedCredential,
    /// There is an allocation.
    Allocated,
    /// It was closed; nothing happens any more.
    Closed,
}
