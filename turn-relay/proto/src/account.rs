//! What a user may use: allocations, bandwidth, and peers it has not asked for before.
//!
//! A user's allocations may be with any shard, so its [`Account`] is shared by all of them. It holds nothing but atomic
//! numbers: the packet path asks it once for a run of equal datagrams, and only where there is a limit, without a lock.

mod ledger;
mod meter;
mod shares;
mod sketch;

pub(crate) use ledger::Exceeded;
use ledger::Ledger;
use meter::Meter;
use shares::RealmShare;
pub use shares::RelayLimits;
pub(crate) use shares::{RealmUse, RelayShare};
use sketch::Sketch;

use rustc_hash::FxBuildHasher;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Over this time new peers are counted.
pub(crate) const SCAN_WINDOW: Duration = Duration::from_secs(60);
/// The most that [`UsageLimits::new_peers`] may be: what a user's memory of them is made for.
pub const MOST_NEW_PEERS: u32 = 16_384;

/// Bounds of what the users of a realm use, over all shards. They may change at any time:
/// [`Shared::set_limits`](crate::Shared::set_limits), [`Shared::set_limits_of`](crate::Shared::set_limits_of).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageLimits {
    /// Allocations of one user at a time; beyond it 486.
    pub allocations_per_user: u32,
    /// Allocations of all users of the realm together; beyond it 508, or 300 where there is another relay.
    pub allocations: u32,
    /// Bytes of application data per second of one user, in each direction; 0 for any number. Beyond it packets are
    /// dropped.
    pub user_rate: u64,
    /// The same of all users of the realm together. When they want more, each gets the same, except those who want less.
    pub total_rate: u64,
    /// Peers that a user has not asked for before, within a minute: addresses of permissions, and addresses with ports.
    /// Beyond it 403, or the packet is dropped. At most [`MOST_NEW_PEERS`]; 0 for any number.
    pub new_peers: u32,
}

impl Default for UsageLimits {
    /// No bounds but one: 2048 new peers in a minute.
    fn default() -> Self {
        Self {
            allocations_per_user: u32::MAX,
            allocations: u32::MAX,
            user_rate: 0,
            total_rate: 0,
            new_peers: 2_048,
        }
    }
}

/// [`UsageLimits`] that every shard reads.
#[derive(Debug, Default)]
pub(crate) struct CurrentLimits {
    pub(crate) allocations_per_user: AtomicU32,
    pub(crate) allocations: AtomicU32,
    pub(crate) user_rate: AtomicU64,
    pub(crate) total_rate: AtomicU64,
    pub(crate) new_peers: AtomicU32,
}

impl CurrentLimits {
    pub(crate) fn set(&self, limits: UsageLimits) {
        let order = Ordering::Relaxed;
        self.allocations_per_user
            .store(limits.allocations_per_user, order);
        self.allocations.store(limits.allocations, order);
        self.user_rate.store(limits.user_rate, order);
        self.total_rate.store(limits.total_rate, order);
        self.new_peers
            .store(limits.new_peers.min(MOST_NEW_PEERS), order);
    }

    /// Whether packets are to be metered for them.
    pub(crate) fn meters(&self) -> bool {
        let order = Ordering::Relaxed;
        self.user_rate.load(order) | self.total_rate.load(order) != 0
    }
}

/// One user of a realm, while it has allocations and shortly after.
#[derive(Debug, Default)]
pub(crate) struct Account {
    realm: Arc<RealmShare>,
    /// By [`Direction`]: its own, with its level in the realm's.
    meters: [Meter; 2],
    /// Its level in the relay's.
    in_relay: [Meter; 2],
    /// Made when the first peer is asked for.
    peers: OnceLock<Box<Sketch>>,
}

impl Account {
    fn of(realm: &Arc<RealmShare>) -> Self {
        Self {
            realm: realm.clone(),
            ..Self::default()
        }
    }

    /// Whether the user may have this peer, or an address at any port: one of those it had within the window, or not too
    /// many new ones. `now` is in nanoseconds of the process.
    pub(crate) fn may_ask_for(&self, ip: IpAddr, port: u16, now: u64) -> bool {
        let limit = self.realm.limits.new_peers.load(Ordering::Relaxed);
        if limit == 0 {
            return true;
        }
        let sketch = self.peers.get_or_init(|| Box::new(Sketch::new(limit)));
        sketch.admit(FxBuildHasher.hash_one((ip, port)), limit, now)
    }

    /// Whether forgetting it would change nothing.
    fn is_at_rest(&self, now: u64) -> bool {
        self.meters.iter().all(|meter| meter.is_at_rest(now))
            && self.peers.get().is_none_or(|peers| peers.is_over(now))
    }
}
