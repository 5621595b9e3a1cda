//! Addresses that will soon be gone: those of a relay that drains. Pairs with them go on carrying until there is another that
//! does, and nothing is lost: what is still under way arrives by the pair that was left.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Ice;
use super::pair::Pair;

/// A pair on which nothing was heard for so long is taken for left by the other end, too.
const LEFT_AFTER: Duration = Duration::from_secs(2);

/// One of them, of this end or of the peer's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    pub(super) address: SocketAddr,
    since: Instant,
}

impl Ice {
    /// A base of ours is one of them; whether that is news.
    pub(crate) fn leave_local(&mut self, address: SocketAddr, now: Instant) -> bool {
        let known = self.bases.iter().any(|base| base.address == address);
        known && self.leave(address, now)
    }

    /// An address of the peer's is.
    pub(crate) fn leave_remote(&mut self, address: SocketAddr, now: Instant) {
        if self.remotes.iter().any(|remote| remote.address == address) {
            self.leave(address, now);
        }
    }

    fn leave(&mut self, address: SocketAddr, now: Instant) -> bool {
        if self.is_leaving(address) {
            return false;
        }
        // As many as there are addresses: those that are forgotten are here, too.
        let (bases, remotes) = (&self.bases, &self.remotes);
        self.leaving.retain(|it| {
            bases.iter().any(|base| base.address == it.address)
                || remotes.iter().any(|remote| remote.address == it.address)
        });
        let since = now;
        self.leaving.push(Leaving { address, since });
        self.mark_leaving();
        let selected = self.selected.and_then(|selected| self.pair(selected));
        if selected.is_some_and(|pair| pair.leaving) {
            self.ask_others(now);
        }
        true
    }

    /// An address is there, or not at all any more.
    pub(super) fn is_no_longer_leaving(&mut self, address: SocketAddr) {
        self.leaving.retain(|it| it.address != address);
        self.mark_leaving();
    }

    pub(super) fn is_leaving(&self, address: SocketAddr) -> bool {
        self.leaving.iter().any(|it| it.address == address)
    }

    fn mark_leaving(&mut self) {
        for pair in &mut self.pairs {
            let of = |it: &Leaving| [pair.base, pair.remote].contains(&it.address);
            pair.leaving = self.leaving.iter().any(of);
        }
    }

    /// The bases of ours that are leaving.
    pub(crate) fn leaving_locals(&self) -> Vec<SocketAddr> {
        let bases = self.bases.iter().map(|base| base.address);
        bases.filter(|base| self.is_leaving(*base)).collect()
    }

    /// Whether neither end uses an address any more that is leaving; also of one that is none.
    pub(crate) fn has_left(&self, address: SocketAddr, now: Instant) -> bool {
        let Some(leaving) = self.leaving.iter().find(|it| it.address == address) else {
            return true;
        };
        let recent = |at: Instant| now.saturating_duration_since(at) < LEFT_AFTER;
        let used = |pair: &Pair| {
            [pair.base, pair.remote].contains(&address)
                && (self.selected == Some(pair.path()) || pair.heard.is_some_and(recent))
        };
        !recent(leaving.since) && !self.pairs.iter().any(used)
    }
}
