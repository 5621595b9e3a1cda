//! Deadlines, each with its reason.

use crate::{AllocationId, PeerConnectionId};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// What is to be looked at when the time comes. Looking may show that it was put off meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// A relayed address of the allocation may have reached the end of its lifetime.
    Expiry(AllocationId),
    /// Permissions and channels of the allocation may have expired. They are not honored from their expiry on; this
    /// only frees what they hold.
    Sweep(AllocationId),
    /// A reservation token was not used (RFC 8656 section 5: at least 30 seconds).
    Reservation(u64),
    /// A connection with a peer that may not have come up, or may not be bound, in time (RFC 6062 section 5.2).
    PeerConnection(AllocationId, PeerConnectionId),
}

/// Entries that are never looked at for those that are over.
const LEAST: usize = 4_096;

/// A heap. An entry that comes too early is put back, and one that was replaced by an earlier one is ignored when it
/// comes: none is searched for. Only an allocation whose lifetime is cut short has more than one entry for a reason.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Reason)>>,
    /// How many entries there may be until they are looked at.
    look_at: usize,
}

impl Timers {
    pub(crate) fn schedule(&mut self, at: Instant, reason: Reason) {
        self.heap.push(Reverse((at, reason)));
    }

    /// When most may be for what is over: forgets those that are not `wanted`. Entries that came since the last time pay
    /// for looking at all of them.
    pub(crate) fn forget(&mut self, mut wanted: impl FnMut(Instant, Reason) -> bool) {
        if self.heap.len() < self.look_at.max(LEAST) {
            return;
        }
        self.heap
            .retain(|Reverse((at, reason))| wanted(*at, *reason));
        self.heap.shrink_to(2 * self.heap.len());
        self.look_at = 2 * self.heap.len();
    }

    /// The tokens that are waited for.
    pub(crate) fn reservations(&self) -> impl Iterator<Item = u64> {
        self.heap
            .iter()
            .filter_map(|Reverse((_, reason))| match reason {
                Reason::Reservation(token) => Some(*token),
                _ => None,
            })
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next reason whose time has come, and that time.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, Reason)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}
