//! What will happen, in order, and how bad the network is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Things that will happen; at the same time, in the order they were put in.
#[derive(Debug)]
pub(crate) struct Timeline<T> {
    happenings: BTreeMap<(Instant, u64), T>,
    sequence: u64,
}

impl<T> Timeline<T> {
    pub(crate) const fn new() -> Self {
        Self {
            happenings: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub(crate) fn push(&mut self, at: Instant, happening: T) {
        self.sequence += 1;
        self.happenings.insert((at, self.sequence), happening);
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.happenings.keys().next().map(|(at, _)| *at)
    }

    /// What is to happen by then.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<T> {
        let first = self.happenings.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.happenings.values()
    }
}

/// What each leg of the network does to a datagram. A path over the relay has two.
#[derive(Clone, Copy, Debug)]
pub struct Conditions {
    /// Every datagram takes this long at least.
    pub latency: Duration,
    /// And up to this much longer, which is what changes the order.
    pub jitter: Duration,
    /// Percent that vanish.
    pub loss: u64,
    /// Percent that arrive twice.
    pub duplication: u64,
}

impl Conditions {
    /// Nothing is lost, doubled or overtaken.
    pub const CALM: Self = Self {
        latency: Duration::from_millis(10),
        jitter: Duration::ZERO,
        loss: 0,
        duplication: 0,
    };

    /// A bad mobile network: on each leg a tenth is lost and a tenth doubled, and the order is a matter of luck.
    pub const ROUGH: Self = Self {
        latency: Duration::from_millis(5),
        jitter: Duration::from_millis(40),
        loss: 10,
        duplication: 10,
    };

    /// Nothing passes.
    pub const DEAD: Self = Self {
        loss: 100,
        ..Self::CALM
    };
}
