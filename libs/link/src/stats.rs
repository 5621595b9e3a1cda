//! Plain counters.

/// Counters of a link, over both carriers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames and their bytes accepted for sending.
    pub frames_sent: u64,
    /// See `frames_sent`.
    pub bytes_sent: u64,
    /// Frames and their bytes that came in.
    pub frames_received: u64,
    /// See `frames_received`.
    pub bytes_received: u64,
    /// Frames refused because the queue was full.
    pub frames_refused: u64,
    /// Messages of frames that were dropped in the queue of a data channel, where their flow had waited for too long, or
    /// had most of a queue that was full.
    pub queue_dropped: u64,
    /// Messages of frames that were marked there instead (ECN).
    pub queue_marked: u64,
    /// Senders that were told that the path takes no packet of that length.
    pub too_big_told: u64,
    /// Datagrams that belonged to no layer or to no valid path, and what the lane dropped.
    pub datagrams_dropped: u64,
    /// What the datagram lane had of it; the rest was the data channel's.
    pub lane: LaneStats,
}

/// Counters of the datagram lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Frames sent, and the datagrams they were cut into.
    pub frames_sent: u64,
    /// See `frames_sent`.
    pub datagrams_sent: u64,
    /// Datagrams that were opened: authentic, and new. Probes are among them.
    pub datagrams_received: u64,
    /// Packets that were joined to the one before them.
    pub packets_joined: u64,
    /// Probes sent, and probes of the peer that were acknowledged.
    pub probes_sent: u64,
    /// See `probes_sent`.
    pub probes_answered: u64,
    /// How often the sending key was changed.
    pub epoch: u32,
    /// Came in before the keys were there.
    pub dropped_early: u64,
    /// Sealed under a key that is not known (any more).
    pub dropped_epoch: u64,
    /// Seen before.
    pub dropped_replayed: u64,
    /// Too old to tell whether it was seen before.
    pub dropped_old: u64,
    /// Not authentic.
    pub dropped_forged: u64,
    /// Too short, or authentic but not understood.
    pub dropped_malformed: u64,
}

impl LaneStats {
    /// Everything that was dropped.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped_early
            + self.dropped_epoch
            + self.dropped_replayed
            + self.dropped_old
            + self.dropped_forged
            + self.dropped_malformed
    }
}
