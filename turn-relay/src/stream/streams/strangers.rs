//! Which connections have no allocation, and so have not long to live.

use super::{DTLS, Streams, connection_at};
use std::time::Instant;
use turn_relay_proto::FiveTuple;

impl Streams {
    /// An allocation came to this five-tuple without anything being received on it.
    pub(crate) fn handle_moved(&mut self, now: Instant, path: FiveTuple) {
        if let Some(connection) = path.transport.connection() {
            self.set_stranger(now, connection.0, false);
        }
    }

    pub(super) fn set_stranger(&mut self, now: Instant, slot: u32, is_stranger: bool) {
        if slot & DTLS != 0 {
            let stats = &mut self.stats;
            return self.dtls.set_stranger(now, slot, is_stranger, stats);
        }
        let Some(connection) = connection_at(&mut self.slots, slot) else {
            return;
        };
        if connection.stranger_since.is_some() == is_stranger {
            return;
        }
        let source = connection.path.client.0.ip();
        let stats = self.stats.of_mut(connection.kind);
        if is_stranger {
            connection.stranger_since = Some(now);
            stats.strangers += 1;
            self.admission.add(slot, source, false, now);
        } else {
            connection.stranger_since = None;
            stats.strangers -= 1;
            self.admission.remove(source);
        }
    }

    /// Asks for each connection that had an allocation whether it still has one.
    pub(crate) fn review(
        &mut self,
        now: Instant,
        mut has_allocation: impl FnMut(FiveTuple) -> bool,
    ) {
        self.dtls.review(now, &mut has_allocation, &mut self.stats);
        for slot in 0..self.slots.len() {
            let over = self.slots[slot]
                .as_deref()
                .is_some_and(|c| c.stranger_since.is_none() && !has_allocation(c.path));
            if over {
                self.set_stranger(now, slot as u32, true);
            }
        }
    }
}
