//! What the store speaks of.

use std::{sync::Arc, time::Duration};

use model::{LeaseId, Revision};

/// Bounds of the store.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Events kept for watchers that come back or are slow.
    pub ring: usize,
    /// Keys in all.
    pub entries: usize,
    /// Leases of one owner.
    pub leases_per_owner: usize,
    /// How many revisions are reserved at a time.
    pub revision_block: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ring: 16_384,
            entries: 200_000,
            leases_per_owner: 8,
            revision_block: 100_000,
        }
    }
}

/// A key's value and history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was put.
    pub value: Arc<[u8]>,
    /// The revision it was created at.
    pub create_revision: Revision,
    /// The revision of the latest change.
    pub mod_revision: Revision,
    /// The lease it goes with.
    pub lease: Option<LeaseId>,
    /// Whether it is forgotten at a restart.
    pub ephemeral: bool,
}

/// One change of one key, as watchers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision it made.
    pub revision: Revision,
    /// Which key.
    pub key: Arc<str>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// It has this value now.
    Put(Entry),
    /// It is gone.
    Delete,
}

/// What must become durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key has this entry.
    Put(Arc<str>, Entry),
    /// A key is gone.
    Delete(Arc<str>),
    /// A lease was granted: owner and TTL.
    Grant(LeaseId, String, Duration),
    /// A lease is gone.
    Revoke(LeaseId),
    /// After a restart, begin above this revision.
    Reserve(Revision),
}

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Compare-and-swap failed.
    #[error("the key is at revision {actual}, not {expected}")]
    Conflict {
        /// What the caller expected; 0 for absent.
        expected: Revision,
        /// What it is.
        actual: Revision,
    },
    /// There is no such lease, or it is another owner's.
    #[error("no such lease: grant a new one and put again")]
    NoLease,
    /// The store is full.
    #[error("the store is full: {0} keys")]
    Full(usize),
    /// The owner has too many leases.
    #[error("too many leases: at most {0} for each node")]
    TooManyLeases(usize),
    /// The wanted revision is not in the ring.
    #[error("revision {0} is no longer (or not yet) known: list again")]
    OutOfRange(Revision),
    /// All reserved revisions are used and the disk has not yet confirmed more.
    #[error("the disk is slow: try again")]
    Busy,
}
