//! Which of the valid pairs is used, and that another is at hand when it dies.
//!
//! The first that is valid is selected, a better one takes over. A selected pair that is doubted ([`super::liveness`])
//! is left for any that answered since the doubt began; the others are asked from the second unanswered check on.
//! The controlled end follows where the peer's data comes from. While the link is used the other valid pairs are
//! checked now and then, so that they are known to be good, and how quick they are; pairs that failed and would be
//! better are tried again, ever more rarely. On a link that is not used nothing of this costs a packet.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::liveness::Verdict;
use super::pair::{Pair, PairState};
use super::{Ice, IceEvent};
use crate::output::Path;

/// How often the other pairs are looked after while the link is used.
pub(super) const UPKEEP: Duration = Duration::from_secs(5);
/// Valid pairs that are kept so, beside the selected.
const STANDBYS: usize = 3;

impl Ice {
    /// Selects a pair that is valid and nominated if none is, if the selected is doubted, or if it is better.
    pub(super) fn consider(&mut self, at: usize, now: Instant) {
        let pair = &self.pairs[at];
        if !pair.is_valid() || !pair.nominated || self.over || self.selected == Some(pair.path()) {
            return;
        }
        let better = match self.selected.and_then(|selected| self.pair(selected)) {
            Some(selected) => {
                selected.state == PairState::Failed
                    || self.liveness.is_doubted()
                    || (pair.leaving, pair.relayed) < (selected.leaving, selected.relayed)
                    // The controlled end follows.
                    || self.controlling && pair.is_better_than(selected)
            }
            None => true,
        };
        if better {
            if self.liveness.is_doubted() {
                self.fail_selected(now);
            }
            self.select(at, now);
        }
    }

    fn select(&mut self, at: usize, now: Instant) {
        let pair = &self.pairs[at];
        let path = if pair.relayed {
            Path::RelayUdp
        } else {
            Path::Direct
        };
        self.selected = Some((pair.base, pair.remote));
        self.liveness.on_heard(now);
        self.events.push_back(IceEvent::Selected {
            local: pair.base,
            remote: pair.remote,
            path,
        });
    }

    fn fail_selected(&mut self, now: Instant) {
        if let Some(at) = self.selected.and_then(|selected| self.position(selected)) {
            self.pairs[at].fail(now);
        }
    }

    /// The controlling end sends data on a pair that is not ours, and ours is quiet.
    pub(super) fn follow(&mut self, path: (SocketAddr, SocketAddr), now: Instant) {
        if self.controlling || self.selected.is_none() || !self.liveness.is_quiet(now) {
            return;
        }
        let usable = |pair: &Pair| pair.path() == path && pair.is_valid() && pair.nominated;
        if let Some(at) = self.pairs.iter().position(usable) {
            self.select(at, now);
        }
    }

    /// Looks after the selected pair: a check when it is needed, another pair when there is no answer.
    pub(super) fn watch_selected(&mut self, now: Instant) {
        let Some(at) = self.selected.and_then(|selected| self.position(selected)) else {
            return;
        };
        let pair = &self.pairs[at];
        match self.liveness.verdict(pair, self.controlling, now) {
            Verdict::Fine => {}
            Verdict::Check => {
                self.liveness.on_sent(now);
                self.check(at, now);
            }
            Verdict::Doubt => match self.alternative(self.liveness.unanswered()) {
                Some(other) => {
                    self.pairs[at].fail(now);
                    self.select(other, now);
                }
                // Who answers first is taken then.
                None => self.events.push_back(IceEvent::Silent),
            },
            Verdict::Dead => self.fail(),
        }
    }

    /// Nothing answers, on no pair.
    pub(crate) const fn is_silent(&self) -> bool {
        self.selected.is_none() || self.liveness.is_doubted()
    }

    /// The best pair beside the selected, if any was heard of since then.
    fn alternative(&self, since: Option<Instant>) -> Option<usize> {
        let usable = |pair: &Pair| {
            pair.is_valid()
                && pair.nominated
                && self.selected != Some(pair.path())
                && (since.is_none() || pair.heard >= since)
        };
        let all = (0..self.pairs.len()).filter(|at| usable(&self.pairs[*at]));
        all.min_by_key(|at| {
            let pair = &self.pairs[*at];
            (pair.burden(), pair.rtt.unwrap_or(Duration::MAX))
        })
    }

    /// The selected pair's check was sent again: it is time to ask the others.
    pub(super) fn on_check_repeated(&mut self, at: usize, now: Instant) {
        if self.pairs[at].attempts() == 2 {
            self.ask_others(now);
        }
    }

    pub(super) fn ask_others(&mut self, now: Instant) {
        for at in 0..self.pairs.len() {
            let pair = &mut self.pairs[at];
            if self.selected == Some(pair.path()) {
                continue;
            }
            pair.revive();
            if pair.is_valid() && pair.attempts() == 0 && self.spend(now) {
                self.check(at, now);
            }
        }
    }

    /// Keeps the other valid pairs known to be good, and tries better ones again. See [`UPKEEP`].
    pub(super) fn look_after_others(&mut self, now: Instant) {
        if self.upkeep_at.is_none_or(|at| now < at) {
            return;
        }
        self.upkeep_at = None;
        let Some(selected) = self.selected.and_then(|selected| self.pair(selected)) else {
            return;
        };
        let relayed = selected.relayed;
        let mut kept = 0;
        for at in 0..self.pairs.len() {
            let pair = &mut self.pairs[at];
            if pair.may_retry(now) && (!pair.relayed || relayed) && !pair.leaving {
                pair.revive();
            } else if pair.is_valid() && pair.attempts() == 0 && self.controlling {
                // The selected one, too: its round trip is compared with theirs.
                let selected = self.selected == Some(pair.path());
                if selected || kept < STANDBYS && !self.pairs[at].leaving {
                    kept += usize::from(!selected);
                    self.check(at, now);
                }
            }
        }
    }

    /// A local or remote address is no more: pairs with it are over.
    pub(crate) fn retire(&mut self, address: SocketAddr, now: Instant) {
        let gone = |path: (SocketAddr, SocketAddr)| path.0 == address || path.1 == address;
        self.locals
            .retain(|local| local.address != address && local.base != address);
        self.bases.retain(|base| base.address != address);
        self.remotes.retain(|remote| remote.address != address);
        self.described.retain(|remote| remote.address != address);
        self.pairs.retain(|pair| !gone(pair.path()));
        self.is_no_longer_leaving(address);
        if self.selected.is_none_or(|selected| !gone(selected)) || self.over {
            return;
        }
        self.selected = None;
        self.give_up_at = Some(now + self.liveness.patience());
        match self.alternative(None) {
            Some(other) => {
                self.select(other, now);
                self.liveness.on_sent(now);
                self.check(other, now);
            }
            None => {
                self.liveness.on_retired();
                self.events.push_back(IceEvent::Silent);
                self.ask_others(now);
            }
        }
    }
}
