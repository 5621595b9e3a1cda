//! Who may stay without an allocation: few at a time, few of one source prefix, and not for long.

use std::collections::{HashMap, VecDeque};
use std::hash::RandomState;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use turn_relay_proto::source_prefix;

/// Entries that are out of date are removed when there are so many more than there should be.
const STALE: usize = 1_024;

/// Bounds of one event loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamLimits {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Connections at a time that have no allocation.
    pub(crate) strangers: usize,
    /// Of them from one source prefix: /24 of IPv4, /48 of IPv6.
    pub(crate) strangers_of_prefix: usize,
    /// How long a TLS handshake may take.
    pub(crate) handshake: Duration,
    /// How long a connection may be without an allocation.
    pub(crate) stranger: Duration,
    /// Bytes that wait for a client that reads slowly; beyond it, frames are dropped.
    pub(crate) buffer: usize,
}

/// Why a stranger's time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Handshake,
    Stranger,
}

/// A connection that was let in, and when: what is waited for may have happened since.
#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u32,
    since: Instant,
}

/// All strangers, in the order in which their time is over.
#[derive(Debug)]
pub(super) struct Admission {
    limits: StreamLimits,
    handshakes: VecDeque<Entry>,
    strangers: VecDeque<Entry>,
    count: usize,
    // With a secret key: whoever has many addresses cannot choose them to collide.
    prefixes: HashMap<u64, u32, RandomState>,
}

impl Admission {
    pub(super) fn new(limits: StreamLimits) -> Self {
        Self {
            limits,
            handshakes: VecDeque::new(),
            strangers: VecDeque::new(),
            count: 0,
            prefixes: HashMap::default(),
        }
    }

    /// Also for those that are strangers now.
    pub(super) fn set_limits(&mut self, limits: StreamLimits) {
        self.limits = limits;
    }

    /// Whether there is room for one more of this source prefix.
    pub(super) fn has_room_for(&self, source: IpAddr) -> bool {
        let held = self
            .prefixes
            .get(&source_prefix(source))
            .copied()
            .unwrap_or(0);
        (held as usize) < self.limits.strangers_of_prefix
    }

    /// Whether there are so many that the oldest has to go before another is added.
    pub(super) fn is_full(&self) -> bool {
        self.count >= self.limits.strangers
    }

    /// A connection has no allocation (yet, or any more).
    pub(super) fn add(&mut self, slot: u32, source: IpAddr, handshaking: bool, since: Instant) {
        self.count += 1;
        *self.prefixes.entry(source_prefix(source)).or_default() += 1;
        let entry = Entry { slot, since };
        if handshaking {
            self.handshakes.push_back(entry);
        }
        self.strangers.push_back(entry);
    }

    /// A stranger has an allocation, or is closed.
    pub(super) fn remove(&mut self, source: IpAddr) {
        self.count = self.count.saturating_sub(1);
        let prefix = source_prefix(source);
        if let Some(held) = self.prefixes.get_mut(&prefix) {
            *held -= 1;
            if *held == 0 {
                self.prefixes.remove(&prefix);
            }
        }
    }

    /// A stranger comes from elsewhere than it seemed.
    pub(super) fn announce(&mut self, seemed: IpAddr, source: IpAddr) {
        self.remove(seemed);
        self.count += 1;
        *self.prefixes.entry(source_prefix(source)).or_default() += 1;
    }

    /// The stranger that has been one for the longest. `is_one` says whether a slot still is what it was at that time.
    pub(super) fn oldest(&mut self, is_one: impl Fn(u32, Instant) -> bool) -> Option<u32> {
        while let Some(entry) = self.strangers.pop_front() {
            if is_one(entry.slot, entry.since) {
                return Some(entry.slot);
            }
        }
        None
    }

    /// The next whose time is over. `is_one` as above, for what it is waited for.
    pub(super) fn poll_over(
        &mut self,
        now: Instant,
        is_one: impl Fn(u32, Instant, Over) -> bool,
    ) -> Option<(u32, Over)> {
        let queues = [
            (&mut self.handshakes, self.limits.handshake, Over::Handshake),
            (&mut self.strangers, self.limits.stranger, Over::Stranger),
        ];
        for (queue, time, over) in queues {
            while let Some(entry) = queue.front().copied() {
                if entry.since + time > now {
                    break;
                }
                queue.pop_front();
                if is_one(entry.slot, entry.since, over) {
                    return Some((entry.slot, over));
                }
            }
        }
        None
    }

    /// When [`Admission::poll_over`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let handshake = self.handshakes.front();
        let stranger = self.strangers.front();
        let both = [
            handshake.map(|entry| entry.since + self.limits.handshake),
            stranger.map(|entry| entry.since + self.limits.stranger),
        ];
        both.into_iter().flatten().min()
    }

    /// Forgets entries that are out of date, if there are many. Costs nothing on average.
    pub(super) fn tidy(&mut self, is_one: impl Fn(u32, Instant, Over) -> bool) {
        let most = 2 * self.count + STALE;
        if self.handshakes.len() > most {
            self.handshakes
                .retain(|entry| is_one(entry.slot, entry.since, Over::Handshake));
        }
        if self.strangers.len() > most {
            self.strangers
                .retain(|entry| is_one(entry.slot, entry.since, Over::Stranger));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn admission() -> Admission {
        Admission::new(StreamLimits {
            connections: 10,
            strangers: 3,
            strangers_of_prefix: 2,
            handshake: Duration::from_secs(1),
            stranger: Duration::from_secs(3),
            buffer: 0,
        })
    }

    #[test]
    fn a_prefix_has_its_share_and_gives_it_back() {
        let mut admission = admission();
        let now = Instant::now();
        let near: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "192.0.2.200".parse().unwrap()];
        let far: IpAddr = "192.0.3.1".parse().unwrap();
        let v6: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let v6_near: IpAddr = "2001:db8:1:ffff::2".parse().unwrap();
        for (slot, source) in near.into_iter().enumerate() {
            assert!(admission.has_room_for(source));
            admission.add(slot as u32, source, false, now);
        }
        assert!(!admission.has_room_for(near[0]) && admission.has_room_for(far));
        assert!(!admission.is_full());
        admission.add(2, v6, false, now);
        assert!(admission.is_full() && admission.has_room_for(v6_near));
        admission.add(3, v6_near, false, now);
        assert!(!admission.has_room_for(v6));
        admission.remove(near[1]);
        assert!(admission.has_room_for(near[0]));
        for source in [near[0], v6, v6_near] {
            admission.remove(source);
        }
        assert!(admission.prefixes.is_empty() && admission.count == 0);
    }

    #[test]
    fn time_is_over_for_those_that_are_still_what_they_were() {
        let mut admission = admission();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        admission.add(1, source, true, start);
        admission.add(2, source, true, start);
        admission.add(3, source, false, start);
        assert_eq!(admission.poll_timeout(), Some(at(1)));
        let all = |_: u32, _: Instant, _: Over| true;
        // The second has completed its handshake.
        let not_2 = |slot: u32, _: Instant, over: Over| (slot, over) != (2, Over::Handshake);
        assert_eq!(admission.poll_over(start, not_2), None);
        assert_eq!(
            admission.poll_over(at(1), not_2),
            Some((1, Over::Handshake))
        );
        assert_eq!(admission.poll_over(at(1), not_2), None);
        assert_eq!(admission.poll_timeout(), Some(at(3)));
        let not_1 = |slot: u32, _: Instant, _: Over| slot != 1;
        assert_eq!(admission.poll_over(at(3), not_1), Some((2, Over::Stranger)));
        assert_eq!(admission.oldest(|_, _| true), Some(3));
        assert_eq!(admission.poll_over(at(9), all), None);
        assert_eq!(admission.poll_timeout(), None);
    }

    #[test]
    fn entries_out_of_date_do_not_pile_up() {
        let mut admission = admission();
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        for slot in 0..10_000 {
            admission.add(slot, source, true, Instant::now());
            admission.remove(source);
            admission.tidy(|_, _, _| false);
        }
        assert!(admission.strangers.len() <= STALE && admission.handshakes.len() <= STALE);
    }
}
