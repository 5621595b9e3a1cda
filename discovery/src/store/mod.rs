//! The store: keys with revisions, leases, watches from a revision; in memory, and (except for mail) in a file.
//!
//! [`core`] decides, without I/O or a clock; [`journal`] makes what it decided durable; [`Store`] joins the two and
//! wakes the watchers that a change concerns. A change is answered when it is on disk, but watchers may see it before: should the process die in
//! between, revisions go on above all that was handed out, so every watcher lists again and sees what is true.

pub mod core;
mod expiry;
mod interest;
mod journal;
mod shared;
mod types;

pub use self::core::Core;
pub use interest::Interest;
pub use journal::JournalError;
pub use shared::{Store, Update};
pub use types::{Change, Entry, Event, EventKind, Limits, StoreError};
