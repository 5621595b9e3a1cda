//! What ends when.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use model::{LeaseId, Revision};

/// Something with an end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Expiring {
    /// A lease and its keys.
    Lease(LeaseId),
    /// A key, if it is still at this revision.
    Key(Arc<str>, Revision),
}

/// Ends in order of time.
#[derive(Debug, Default)]
pub(super) struct Expiries(BTreeSet<(Instant, Expiring)>);

impl Expiries {
    pub(super) fn arm(&mut self, at: Instant, what: Expiring) {
        self.0.insert((at, what));
    }

    pub(super) fn disarm(&mut self, at: Instant, what: Expiring) {
        self.0.remove(&(at, what));
    }

    pub(super) fn first(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes the next one that is due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<Expiring> {
        let due = self.first().is_some_and(|at| at <= now);
        if due {
            self.0.pop_first().map(|(_, what)| what)
        } else {
            None
        }
    }
}
