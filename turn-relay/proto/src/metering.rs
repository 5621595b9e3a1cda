//! Bandwidth: of a run of packets, how many may pass. Asked once for a run, and only where there is a limit.

use crate::{AllocationId, Direction, DropReason, Now, RelayId, Server, Verdict};
use std::sync::atomic::Ordering;

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
            Verdict::ToPeer { relay, payload, .. } if self.config.shared.limits().meters() => {
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
            Verdict::ToClient { payload, .. } if self.config.shared.limits().meters() => {
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
        let Some(allocation) = self.table.get_mut(id) else {
            return count;
        };
        let shared = &self.config.shared;
        let user = allocation.account.meter(direction);
        let of_user = shared.limits().user_rate.load(Ordering::Relaxed);
        let of_all = shared.limits().total_rate.load(Ordering::Relaxed);
        let within_user = match of_user {
            0 => count,
            rate => user.take(rate, len, count, nanos),
        };
        if of_all == 0 || within_user == 0 {
            return within_user;
        }
        let total = shared.total(direction);
        let passed = user.take_fairly(total, of_all, len, within_user, nanos);
        if of_user != 0 && passed < within_user {
            user.give_back(of_user, len, within_user - passed);
        }
        passed
    }
}

/// The verdict about those that pass; or all are dropped. The rest of a run that is cut is asked about again.
fn cut(verdict: Verdict<'_>, count: usize, passed: usize) -> (Verdict<'_>, usize) {
    match passed {
        0 => (Verdict::Dropped(DropReason::OverBandwidth), count),
        passed => (verdict, passed),
    }
}
