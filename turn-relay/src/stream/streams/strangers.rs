//! Which connections have no allocation, and so have not long to live.

use super::{DTLS, Streams};
use std::time::Instant;
use turn_relay_proto::FiveTuple;

impl Streams {
    /// Whether a five-tuple has an allocation now, where something was received or an allocation came.
    pub(crate) fn handle_allocation(
        &mut self,
        now: Instant,
        path: FiveTuple,
        has_allocation: bool,
    ) {
        let Some(id) = path.transport.connection() else {
            return;
        };
        let (is_stranger, stats) = (!has_allocation, &mut self.stats);
        match id.0 & DTLS {
            0 => self.room.set_stranger(now, id.0, is_stranger, stats),
            _ => self
                .dtls
                .room
                .set_stranger(now, id.0 & !DTLS, is_stranger, stats),
        }
    }

    /// Asks for each connection that had an allocation whether it still has one.
    pub(crate) fn review(
        &mut self,
        now: Instant,
        mut has_allocation: impl FnMut(FiveTuple) -> bool,
    ) {
        let stats = &mut self.stats;
        self.dtls.room.review(now, &mut has_allocation, stats);
        self.room.review(now, &mut has_allocation, stats);
    }
}
