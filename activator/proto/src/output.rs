//! Everything that can leave, packets excepted.

use std::net::IpAddr;

use model::{NodeId, RelayName, RelayedAddr, ServiceName};
use protocol::document;
use turn_client::Reserve;

use crate::{answer::RefuseReason, links::LinkKey};

/// What is to be done outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// For an allocation that is to be held.
    Reserve(Reserve),
    /// Keep this registration in the directory; none: withdraw.
    Publish(Option<document::Registration>),
    /// Make the link and post the answer.
    Answer {
        /// Names the link from now on.
        link: LinkKey,
        /// Who offered.
        to: NodeId,
        /// The offer, which has a description.
        offer: document::Offer,
        /// Relays whose allocations give the relayed candidates.
        relays: Vec<RelayName>,
        /// For the answer.
        bindings: Vec<document::BindingResult>,
    },
    /// Post a refusal.
    Refuse {
        /// Who offered.
        to: NodeId,
        /// The offerer's name for the link.
        offered_as: u64,
        /// Why.
        reason: RefuseReason,
    },
    /// Send `Bound` on the `control` channel.
    Bound {
        /// The link.
        link: LinkKey,
        /// One per binding asked for.
        results: Vec<document::BindingResult>,
    },
    /// Ask this network's DNS; answer with [`Input::Resolved`](crate::Input::Resolved), whatever becomes of it.
    Resolve {
        /// Below a wildcard.
        name: ServiceName,
        /// What to ask for, without its last dot.
        domain: String,
        /// A records are wanted.
        ipv4: bool,
        /// AAAA records are wanted.
        ipv6: bool,
    },
    /// For the log: DNS gave addresses to a name, and none of them is within what its export allows.
    Outside {
        /// Below a wildcard.
        name: ServiceName,
        /// What DNS gave.
        addresses: Vec<IpAddr>,
    },
    /// Close the link; answer with [`Input::LinkClosed`](crate::Input::LinkClosed).
    Close {
        /// The link.
        link: LinkKey,
        /// For the log of both sides.
        reason: String,
    },
    /// One of the link's allocations is gone: it goes on without, or ends when it finds no other path.
    Retire {
        /// The link.
        link: LinkKey,
        /// Where the allocation was.
        relay: RelayName,
        /// What it had.
        relayed: Vec<RelayedAddr>,
    },
    /// This relay drains, and there are others: take every link off it, and answer with
    /// [`Input::Left`](crate::Input::Left) when none uses it. Said again until then.
    Leave {
        /// Where the allocation is.
        relay: RelayName,
        /// What it has.
        relayed: Vec<RelayedAddr>,
    },
    /// An allocation is there that the link can use: let its peer through, and tell it of the candidate.
    Extend {
        /// The link.
        link: LinkKey,
        /// The offerer, and its name for the link.
        to: NodeId,
        /// See `to`.
        offered_as: u64,
        /// Where the allocation is.
        relay: RelayName,
        /// What it has.
        relayed: Vec<RelayedAddr>,
    },
}

impl From<Reserve> for Output {
    fn from(reserve: Reserve) -> Self {
        Self::Reserve(reserve)
    }
}
