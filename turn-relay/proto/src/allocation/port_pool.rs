//! The ports of one relay address.

use crate::random::Random;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// A port rests this long before it serves someone else, if others are free: peers of the last owner may still send
/// ([RFC 8656 section 7.2](https://www.rfc-editor.org/rfc/rfc8656#section-7.2)).
const REST: Duration = Duration::from_secs(120);

/// Free ports, in no order, and those at rest, in the order of their release.
#[derive(Debug)]
pub(crate) struct PortPool {
    range: RangeInclusive<u16>,
    free: Vec<u16>,
    resting: VecDeque<(Instant, u16)>,
}

impl PortPool {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Self {
        Self {
            free: range.clone().collect(),
            range,
            resting: VecDeque::new(),
        }
    }

    /// A port that nobody can guess; the one that rested longest if no other is left.
    pub(crate) fn take(&mut self, random: &mut Random, now: Instant) -> Option<u16> {
        self.wake(now);
        if self.free.is_empty() {
            return self.resting.pop_front().map(|(_, port)| port);
        }
        let at = random.below(self.free.len());
        Some(self.free.swap_remove(at))
    }

    /// An even port, and with `pair` the next one too (EVEN-PORT, RFC 8656 section 18.7).
    pub(crate) fn take_even(
        &mut self,
        pair: bool,
        random: &mut Random,
        now: Instant,
    ) -> Option<u16> {
        self.wake(now);
        if pair {
            return self.take_pair(random);
        }
        let start = random.below(self.free.len());
        let (before, after) = self.free.split_at(start);
        let even = |port: &u16| port.is_multiple_of(2);
        let at = match after.iter().position(even) {
            Some(at) => start + at,
            None => before.iter().position(even)?,
        };
        Some(self.free.swap_remove(at))
    }

    fn take_pair(&mut self, random: &mut Random) -> Option<u16> {
        self.free.sort_unstable();
        let start = random.below(self.free.len());
        let is_pair = |pair: &[u16]| pair[0].is_multiple_of(2) && pair[0] + 1 == pair[1];
        let from_start = self.free[start..].windows(2).position(is_pair);
        let at = match from_start {
            Some(at) => start + at,
            None => self.free.windows(2).position(is_pair)?,
        };
        let even = self.free[at];
        self.free.drain(at..at + 2);
        Some(even)
    }

    /// Gives a port back. One that was claimed from beyond the range is nobody's from now on.
    pub(crate) fn release(&mut self, port: u16, now: Instant) {
        if self.range.contains(&port) {
            self.resting.push_back((now + REST, port));
        }
    }

    /// The ports at rest, and until when. One that nobody took since is free, however long ago its rest ended.
    pub(crate) fn resting(&self, now: Instant) -> impl Iterator<Item = (u16, Instant)> {
        let all = self.resting.iter().map(|(until, port)| (*port, *until));
        all.filter(move |(_, until)| *until > now)
    }

    /// Takes these ports, and lets those rest.
    pub(crate) fn claim(&mut self, taken: &FxHashSet<u16>, resting: &FxHashMap<u16, Instant>) {
        let mut rest = Vec::new();
        self.free.retain(|port| match resting.get(port) {
            _ if taken.contains(port) => false,
            Some(until) => {
                rest.push((*until, *port));
                false
            }
            None => true,
        });
        self.resting.retain(|(_, port)| !taken.contains(port));
        self.resting.extend(rest);
        self.resting.make_contiguous().sort_unstable();
    }

    fn wake(&mut self, now: Instant) {
        while let Some((until, port)) = self.resting.front().copied()
            && until <= now
        {
            self.resting.pop_front();
            self.free.push(port);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const RANGE: RangeInclusive<u16> = 50_000..=50_009;

    #[test]
    fn every_port_is_given_out_once() {
        let now = Instant::now();
        let mut random = Random::new([1; 32]);
        let mut pool = PortPool::new(RANGE);
        let mut seen = BTreeSet::new();
        while let Some(port) = pool.take(&mut random, now) {
            assert!(seen.insert(port));
        }
        assert_eq!(
            seen.into_iter().collect::<Vec<_>>(),
            RANGE.collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_port_rests_while_there_are_others() {
        let now = Instant::now();
        let mut random = Random::new([1; 32]);
        let mut pool = PortPool::new(RANGE);
        let first = pool.take(&mut random, now).unwrap();
        pool.release(first, now);
        for _ in 0..9 {
            assert_ne!(pool.take(&mut random, now), Some(first));
        }
        assert_eq!(pool.take(&mut random, now), Some(first));
        assert_eq!(pool.take(&mut random, now), None);
    }

    #[test]
    fn even_ports_and_pairs_are_even() {
        let now = Instant::now();
        let mut random = Random::new([1; 32]);
        let mut pool = PortPool::new(RANGE);
        for _ in 0..2 {
            let even = pool.take_even(false, &mut random, now).unwrap();
            assert!(even.is_multiple_of(2));
        }
        for _ in 0..3 {
            let even = pool.take_even(true, &mut random, now).unwrap();
            assert!(even.is_multiple_of(2));
            assert!(!pool.free.contains(&(even + 1)));
        }
        assert_eq!(pool.take_even(true, &mut random, now), None);
        assert_eq!(pool.take_even(false, &mut random, now), None);
        assert!(pool.take(&mut random, now).is_some());
    }
}
