//! What is known of one peer, and of one address.

use std::time::{Duration, Instant};

use model::PeerAddr;

/// RFC 8656 section 12: how long a number may not be another peer's after its binding has ended.
const QUARANTINE: Duration = Duration::from_secs(300);

/// How far a channel has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Unbound,
    Bound,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) peer: PeerAddr,
    /// No longer wanted; the number is kept until the relay has forgotten the binding.
    pub(super) released: bool,
    pub(super) channel: Channel,
    /// When to bind (again).
    pub(super) due: Option<Instant>,
    /// Until when the relay has said that it holds the binding, and until when it may hold it.
    pub(super) bound_until: Option<Instant>,
    pub(super) held_until: Option<Instant>,
    pub(super) ready: bool,
    /// Survived a lost allocation: whoever wanted it may be gone, so it must prove that it is used.
    pub(super) orphaned: bool,
    pub(super) used: bool,
}

#[derive(Debug)]
pub(super) struct Permission {
    pub(super) peers: usize,
    pub(super) granted: bool,
    /// The relay said no, and has not said otherwise since.
    pub(super) forbidden: bool,
    pub(super) due: Option<Instant>,
}

impl Slot {
    pub(super) fn new(peer: PeerAddr) -> Self {
        Self {
            peer,
            released: true,
            channel: Channel::Unbound,
            due: None,
            bound_until: None,
            held_until: None,
            ready: false,
            orphaned: false,
            used: false,
        }
    }

    /// Whether the number may go to another peer.
    pub(super) fn reusable(&self, now: Instant) -> bool {
        self.released
            && self
                .held_until
                .is_none_or(|until| until + QUARANTINE <= now)
    }
}
