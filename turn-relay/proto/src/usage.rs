//! What allocations are used for: for records, not for limits (those are `account`'s).
//!
//! Counted is what was decided to be relayed, whether the kernel took it or not, and the bytes of TCP to peers, which have
//! no packets. What took the short cut counts for the
//! sender alone: the receiver may be another shard's.

use crate::allocation::Allocation;
use crate::{AllocationId, FiveTuple, RealmUser, Server, Traffic, Verdict};
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Traffic both ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub to_peer: Traffic,
    pub to_client: Traffic,
}

impl Usage {
    pub fn add(&mut self, more: Self) {
        for (sum, more) in [
            (&mut self.to_peer, more.to_peer),
            (&mut self.to_client, more.to_client),
        ] {
            sum.packets += more.packets;
            sum.bytes += more.bytes;
        }
    }

    /// What came since it was `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let less = |now: Traffic, before: Traffic| Traffic {
            packets: now.packets.saturating_sub(before.packets),
            bytes: now.bytes.saturating_sub(before.bytes),
        };
        Self {
            to_peer: less(self.to_peer, before.to_peer),
            to_client: less(self.to_client, before.to_client),
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why an allocation is over.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EndReason { $($(#[$doc])* $name,)* }

        impl EndReason {
            /// As it is written in records.
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// A Refresh with lifetime 0.
    Deleted = "deleted",
    /// It was not refreshed.
    Expired = "expired",
    /// The client's connection ended.
    Disconnected = "disconnected",
    /// Its user was revoked.
    Revoked = "revoked",
    /// The relay stops.
    Stopped = "stopped",
}

/// A finished allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub user: RealmUser,
    pub path: FiveTuple,
    /// As the client was told them.
    pub relayed: Vec<SocketAddr>,
    /// How long it existed.
    pub lasted: Duration,
    pub reason: EndReason,
    pub total: Usage,
    /// How often a permission was installed for an address that had none.
    pub peers: u32,
    /// What [`Server::take_usage`] has not told yet.
    pub untold: UserUsage,
}

/// What a user did since it was last told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserUsage {
    pub usage: Usage,
    /// Of all allocations together.
    pub held: Duration,
}

impl UserUsage {
    pub fn add(&mut self, more: Self) {
        self.usage.add(more.usage);
        self.held += more.held;
    }
}

/// One allocation's counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(crate) created: Instant,
    pub(crate) used: Usage,
    pub(crate) told: Usage,
    pub(crate) told_at: Instant,
    /// They are closed before it ends.
    pub(crate) relayed: [Option<SocketAddr>; 2],
}

impl Counters {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            created: now,
            used: Usage::default(),
            told: Usage::default(),
            told_at: now,
            relayed: [None; 2],
        }
    }

    fn tell(&mut self, now: Instant) -> UserUsage {
        let untold = UserUsage {
            usage: self.used.since(&self.told),
            held: now.saturating_duration_since(self.told_at),
        };
        self.told = self.used;
        self.told_at = now;
        untold
    }
}

impl Allocation {
    /// What its TCP connections with peers carried becomes part of its counters.
    fn collect_joined(&mut self) {
        if let Some(tcp) = &self.tcp {
            self.counters.used.add(tcp.take_carried());
        }
    }
}

impl Server {
    /// Whether it is counted what single allocations are used for.
    #[inline]
    pub(crate) fn counts_allocations(&self) -> bool {
        self.config.extensions.usage || self.config.realms.are_several()
    }

    /// An index, and no look-up: the allocation of the verdict was just looked at.
    #[inline]
    pub(crate) fn count_usage(&mut self, id: AllocationId, verdict: &Verdict<'_>, count: usize) {
        let Some(allocation) = self.table.get_mut(id) else {
            return;
        };
        let of_realm = self.stats.of_realm(allocation.realm.used.number);
        for used in [&mut allocation.counters.used, of_realm] {
            match verdict {
                Verdict::ToPeer { payload, .. } => used.to_peer.count(count, payload.len()),
                Verdict::ToClient { payload, .. } => used.to_client.count(count, payload.len()),
                Verdict::Handled | Verdict::Dropped(_) => {}
            }
        }
    }

    /// As [`Server::count_usage`], for what a client sent; by the short cut it goes to a client, too.
    #[inline]
    pub(crate) fn count_sent(&mut self, path: FiveTuple, verdict: &Verdict<'_>, count: usize) {
        if let Verdict::ToPeer { payload, .. } | Verdict::ToClient { payload, .. } = verdict
            && let Some((_, allocation)) = self.table.find(path)
        {
            let of_realm = self.stats.of_realm(allocation.realm.used.number);
            for used in [&mut allocation.counters.used, of_realm] {
                used.to_peer.count(count, payload.len());
            }
        }
    }

    /// What each user did since this was last called, without what [`Ended`] tells. As many entries as there are users
    /// with allocations.
    pub fn take_usage(&mut self, now: Instant) -> Vec<(RealmUser, UserUsage)> {
        let mut users: FxHashMap<RealmUser, UserUsage> = FxHashMap::default();
        for allocation in self.table.iter_mut() {
            allocation.collect_joined();
            let untold = allocation.counters.tell(now);
            match users.get_mut(&allocation.user) {
                Some(user) => user.add(untold),
                None => drop(users.insert(allocation.user.clone(), untold)),
            }
        }
        users.into_iter().collect()
    }

    /// The relay stops: all that exist are told as ended, if anybody wants to know.
    pub fn tell_stopped(&mut self, now: Instant) {
        let all: Vec<AllocationId> = self.table.iter().map(|(id, _)| id).collect();
        for id in all {
            self.tell_ended(id, EndReason::Stopped, now);
        }
    }

    /// To be called before an allocation is removed.
    pub(crate) fn tell_ended(&mut self, id: AllocationId, reason: EndReason, now: Instant) {
        if !self.config.extensions.usage {
            return;
        }
        let Some(allocation) = self.table.get_mut(id) else {
            return;
        };
        allocation.collect_joined();
        let counters = &mut allocation.counters;
        let ended = Ended {
            user: allocation.user.clone(),
            path: allocation.path,
            relayed: counters.relayed.iter().flatten().copied().collect(),
            lasted: now.saturating_duration_since(counters.created),
            reason,
            total: counters.used,
            peers: allocation.permissions.installed(),
            untold: counters.tell(now),
        };
        self.outputs
            .push_back(crate::Output::Ended(Box::new(ended)));
    }
}
