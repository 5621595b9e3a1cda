//! A reason per deadline. What was put off stays in the heap and is recognized as outdated when its time comes:
//! who owns the deadline knows the true one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::Instant;

use stun_types::message::TransactionId;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A request is to be sent again, or given up.
    Transaction(TransactionId),
    /// A permission is to be refreshed.
    Permission(IpAddr),
    /// A channel is to be bound again; by its index.
    Channel(u16),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Due)>>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Instant, due: Due) {
        self.heap.push(Reverse((at, due)));
    }

    pub(crate) fn clear(&mut self) {
        self.heap.clear();
    }

    /// The earliest deadline, perhaps an outdated one.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    pub(crate) fn pop(&mut self, now: Instant) -> Option<(Instant, Due)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}
