//! Bandwidth: of a run of packets, how many may pass. Asked once for a run, and only where there is a limit.

use crate::{AllocationId, Direction, DropReason, Now, RelayId, Server, Verdict};

impl Server {
    /// A verdict about packets of a client: how many of them it stays true for.
    #[inline]
    pub(crate) fn meter<'a>(
        &mut self,
        now: Now,
        verdict: Verdict<'a>,
        count: usize,
    ) -> (Verdict<'a>, usize) {
        match verdict {
            Verdict::ToPeer { relay, payload, .. } if self.config.shared.meters() => {
                let len = payload.len();
                let passed = self.admit(relay.allocation, Direction::ToPeer, len, count, now);
                cut(verdict, count, passed)
            }
            _ => (verdict, count),
        }
    }

    /// The same about packets of a peer.
    #[inline]
    pub(crate) fn meter_from_peer<'a>(
        &mut self,
        now: Now,
        relay: RelayId,
        verdict: Verdict<'a>,
        count: usize,
    ) -> (Verdict<'a>, usize) {
        match verdict {
            Verdict::ToClient { payload, .. } if self.config.shared.meters() => {
                let len = payload.len();
                let passed = self.admit(relay.allocation, Direction::ToClient, len, count, now);
                cut(verdict, count, passed)
            }
            _ => (verdict, count),
        }
    }

    fn admit(
        &mut self,
        id: AllocationId,
        direction: Direction,
        len: usize,
        count: usize,
        now: Now,
    ) -> usize {
        let nanos = self.nanos(now.instant);
        match self.table.get(id) {
            Some(allocation) => allocation.account.admit(direction, len, count, nanos),
            None => count,
        }
    }
}

/// The verdict about those that pass; or all are dropped. The rest of a run that is cut is asked about again.
fn cut(verdict: Verdict<'_>, count: usize, passed: usize) -> (Verdict<'_>, usize) {
    match passed {
        0 => (Verdict::Dropped(DropReason::OverBandwidth), count),
        passed => (verdict, passed),
    }
}
