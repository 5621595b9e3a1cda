//! The agent's counters.

use super::output::FrameDrop;

/// Plain counters since start.
#[derive(Clone, Debug, Default)]
pub struct AgentStats {
    /// Offers made.
    pub links_offered: u64,
    /// Links that opened.
    pub links_opened: u64,
    /// Links that ended, opened or not.
    pub links_closed: u64,
    /// Attempts that led to no open link.
    pub links_failed: u64,
    /// Links whose place another took: one to another activator.
    pub links_replaced: u64,
    /// Frames that waited for a link too long, or were too many.
    pub dropped_waiting: u64,
    /// Datagrams for no link.
    pub stray_datagrams: u64,
    /// Documents for no link, or from somebody else than its peer.
    pub stray_documents: u64,
    /// Control messages that make no sense here.
    pub stray_controls: u64,
    dropped: [u64; FrameDrop::ALL.len()],
}

impl AgentStats {
    /// Counts a dropped frame.
    pub const fn count_drop(&mut self, reason: FrameDrop) {
        self.dropped[reason.index()] += 1;
    }

    /// Frames dropped, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (FrameDrop, u64)> + '_ {
        FrameDrop::ALL
            .into_iter()
            .map(|reason| (reason, self.dropped[reason.index()]))
    }
}
