//! One allocation and what belongs to it ([RFC 8656 section 5](https://www.rfc-editor.org/rfc/rfc8656#section-5)).

pub(crate) mod channel;
pub(crate) mod permission;
pub(crate) mod port_pool;
pub(crate) mod reservation;
pub(crate) mod table;

use crate::account::Account;
use crate::auth::Signer;
use crate::auth::token::Session;
use crate::icmp::IcmpLimit;
use crate::mobility::Mobile;
use crate::peer_connection::TcpPeers;
use crate::shared::{Port, PortKind};
use crate::usage::Counters;
use crate::{AllocationId, Family, FiveTuple, Realm, RealmUser, RelayId};
use channel::Channels;
use model::{PeerAddr, RelayedAddr};
use permission::Permissions;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stun_types::message::TransactionId;

/// A relayed transport address of an allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Relay {
    /// What the client is told: the external address, if one is configured.
    pub(crate) advertised: RelayedAddr,
    /// To be given back.
    pub(crate) port: Port,
    pub(crate) expires: Instant,
    /// Whether the shell has its socket.
    pub(crate) open: bool,
}

/// An Allocate request that waits for its sockets. The shell opens them at once, so there is one at most.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) signer: Signer,
    pub(crate) ports: PortKind,
    /// The family without which there is no allocation, or else both are optional.
    pub(crate) required: [bool; 2],
    /// How many ports may still be tried.
    pub(crate) attempts: u8,
}

/// The state of RFC 8656 section 5, without the credentials: the user proves itself anew with every request.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) path: FiveTuple,
    /// Its user's, as it is now.
    pub(crate) realm: Arc<Realm>,
    /// Who made it; nobody else may change it.
    pub(crate) user: RealmUser,
    /// The user name it was made with, if that says more: an expiring one.
    pub(crate) credential: Option<Box<str>>,
    /// What that one may use.
    pub(crate) account: Arc<Account>,
    /// The third-party token it is held with; replaced by later ones.
    pub(crate) session: Option<Box<Session>>,
    /// Of the Allocate request, to answer its retransmissions.
    pub(crate) transaction: TransactionId,
    /// By [`Family`].
    pub(crate) relays: [Option<Relay>; 2],
    pub(crate) lifetime: Duration,
    /// When its expiry timer runs out. Not later than the first of its relayed addresses ends.
    pub(crate) expiry_timer: Instant,
    /// RESERVATION-TOKEN of the answer.
    pub(crate) reservation: Option<u64>,
    /// ADDRESS-ERROR-CODE of the answer: why there is no relayed address of the additional family.
    pub(crate) address_error: Option<(Family, u16)>,
    pub(crate) opening: Option<Box<Opening>>,
    pub(crate) permissions: Permissions,
    pub(crate) channels: Channels,
    /// The peer of the last Send indication: it need not be looked for among those asked for.
    pub(crate) last_sent: Option<PeerAddr>,
    pub(crate) icmp: IcmpLimit,
    /// If it is one with TCP to peers (RFC 6062).
    pub(crate) tcp: Option<Box<TcpPeers>>,
    /// If it can go with its client to another five-tuple.
    pub(crate) mobile: Option<Mobile>,
    /// What it is used for.
    pub(crate) counters: Counters,
    /// The channels to other allocations of this relay that are open to a short cut: relayed address and peer.
    pub(crate) published: Vec<(SocketAddr, SocketAddr)>,
}

impl Allocation {
    pub(crate) fn relay(&self, family: Family) -> Option<&Relay> {
        self.relays[family as usize].as_ref()
    }

    /// The names of its relayed addresses, where `id` is its own.
    pub(crate) fn relay_ids(&self, id: AllocationId) -> impl Iterator<Item = RelayId> {
        let families = Family::BOTH.into_iter();
        let there = families.filter(|family| self.relay(*family).is_some());
        there.map(move |family| RelayId {
            allocation: id,
            family,
        })
    }

    /// When the first of its relayed addresses ends.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.relays.iter().flatten().map(|r| r.expires).min()
    }
}
