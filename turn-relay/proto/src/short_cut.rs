//! The short cut: both ends have an allocation on this relay, each with a channel to the other's relayed address. Then a
//! packet goes from client to client, and neither the kernel's way between two sockets nor a second turn is needed.
//!
//! The receiving allocation may be another shard's. So what is needed of it — where its client is, the channel's number,
//! until when channel and permission hold — is published in [`Shared`], and each shard keeps a copy of what it uses until
//! something changes. Whatever is not published takes the way through the kernel, with the same result.

use crate::allocation::Allocation;
use crate::shared::Shared;
use crate::{AllocationId, Family, FiveTuple, Server, Transport};
use model::PeerAddr;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Channels of one allocation that are published; others take the way through the kernel.
const MOST: usize = 256;

/// A relayed address, and one of its peers: both ends of a channel.
type Pair = (SocketAddr, SocketAddr);

/// What the other end must know of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) path: FiveTuple,
    pub(crate) number: u16,
    /// When channel or permission end.
    pub(crate) until: Instant,
}

/// The ends that are published, by all shards. At most one per channel of an allocation to an address of this relay.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    by_pair: Mutex<FxHashMap<Pair, End>>,
    /// Counts changes.
    version: AtomicU64,
}

impl Ends {
    fn change(&self, change: impl FnOnce(&mut FxHashMap<Pair, End>)) {
        // Each change is complete before anything could panic.
        let mut ends = self.by_pair.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut ends);
        self.version.fetch_add(1, Ordering::Release);
    }

    /// What is published of an allocation that is no more.
    pub(crate) fn withdraw(&self, published: &mut Vec<(SocketAddr, SocketAddr)>) {
        if !published.is_empty() {
            self.change(|ends| {
                for pair in published.drain(..) {
                    ends.remove(&pair);
                }
            });
        }
    }

    fn get(&self, pair: Pair) -> Option<End> {
        let ends = self.by_pair.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(&pair).copied()
    }
}

/// One shard's copies, and what it knows not to be there.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    by_pair: FxHashMap<Pair, Option<End>>,
    version: u64,
}

impl Copies {
    /// Locks only for a pair that was not asked for since the last change.
    fn get(&mut self, ends: &Ends, pair: Pair, now: Instant) -> Option<End> {
        let version = ends.version.load(Ordering::Acquire);
        if self.version != version {
            self.version = version;
            self.by_pair.clear();
        }
        let found = *self.by_pair.entry(pair).or_insert_with(|| ends.get(pair));
        found.filter(|end| end.until > now)
    }
}

impl Server {
    /// The other end of a channel of `allocation` to `peer`, where the short cut is open.
    #[inline]
    pub(crate) fn other_end(
        shared: &Shared,
        copies: &mut Copies,
        allocation: &Allocation,
        peer: PeerAddr,
        now: Instant,
    ) -> Option<End> {
        let relay = allocation.relay(Family::of(peer.0))?;
        let here = shared.as_known_to(relay.port, peer.0.ip())?;
        copies.get(shared.ends(), (peer.0, here), now)
    }

    /// Publishes, renews or withdraws the ends of an allocation, after its channels, permissions or relayed addresses
    /// changed. All of them are withdrawn when its relayed addresses are closed, and with them it ends.
    pub(crate) fn publish_ends(&mut self, id: AllocationId, now: Instant) {
        let shared = &self.config.shared;
        let Some(allocation) = self.table.get_mut(id) else {
            return;
        };
        // A connection belongs to its shard: no other could send on it.
        if !self.config.short_cut || allocation.path.transport != Transport::Udp {
            return;
        }
        let path = allocation.path;
        let pair_of = |relay: Option<&crate::allocation::Relay>, peer: PeerAddr| {
            let here = shared.as_known_to(relay?.port, peer.0.ip())?;
            Some((here, peer.0))
        };
        let mut published = Vec::new();
        for channel in allocation.channels.iter() {
            let relay = allocation.relay(Family::of(channel.peer.0));
            if let Some(pair) = pair_of(relay, channel.peer) {
                let until = channel.expires.min(channel.permitted_until);
                let number = channel.number;
                let end = End {
                    path,
                    number,
                    until,
                };
                if until > now && published.len() < MOST {
                    published.push((pair, end));
                }
            }
        }
        if published.is_empty() && allocation.published.is_empty() {
            return;
        }
        shared.ends().change(|ends| {
            for pair in &allocation.published {
                ends.remove(pair);
            }
            ends.extend(published.iter().copied());
        });
        allocation.published = published.into_iter().map(|(pair, _)| pair).collect();
    }
}
