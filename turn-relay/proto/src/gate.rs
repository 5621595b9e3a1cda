//! What the unauthenticated may cost: they may be nobody, with the address of a victim.
//!
//! Over UDP an answer to them is at most one and a half times as large as the request, both as they are on the wire, with
//! IP and UDP headers; so nobody gains by having us answer to somebody else. A few a second are larger nevertheless: there
//! are clients that log in with SHA-256 or not at all, and requests so small, or realms so long, that even the smallest
//! challenge is larger. And of all answers there are so many in a second for a source prefix, and so many in all.
//!
//! The memory is a table of fixed size; prefixes that meet in it share a place.

use std::net::IpAddr;

/// Places for prefixes.
const SLOTS: usize = 4_096;
const SECOND: u64 = 1_000_000_000;

/// Answers per second to the unauthenticated over UDP, of one shard; 0 for any number. A second's worth may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimits {
    pub total: u32,
    /// To one /24 of IPv4 or /48 of IPv6.
    pub per_prefix: u32,
    /// Of them, those that are more than one and a half times as large as the request: in all, and a sixteenth of it to
    /// one prefix. Here 0 is for none.
    pub large: u32,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self {
            total: 20_000,
            per_prefix: 2_000,
            large: 4_096,
        }
    }
}

impl AnswerLimits {
    /// The part of one shard of so many, rounded up: so much that all of them answer a few more.
    pub fn of_one(self, shards: u16) -> Self {
        let part = |all: u32| all.div_ceil(u32::from(shards.max(1)));
        Self {
            total: part(self.total),
            per_prefix: part(self.per_prefix),
            large: part(self.large),
        }
    }
}

/// Stands for the /24 of IPv4 or /48 of IPv6 that an address is in, which one party can easily have all addresses of:
/// different for each.
pub fn source_prefix(source: IpAddr) -> u64 {
    match source {
        IpAddr::V4(ip) => u64::from(ip.to_bits() >> 8),
        IpAddr::V6(ip) => 1 << 63 | (ip.to_bits() >> 80) as u64,
    }
}

/// A token bucket with a second's worth, as the time at which it is full again (nanoseconds).
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(u64);

impl Bucket {
    fn take(&mut self, rate: u32, now: u64) -> bool {
        let from = self.0.max(now);
        let next = from + SECOND / u64::from(rate.max(1));
        let room = next <= now + SECOND;
        if room {
            self.0 = next;
        }
        room
    }
}

/// One shard's counts of answers.
pub(crate) struct Gate {
    limits: AnswerLimits,
    /// Secret, so that nobody can choose whom to share a place with.
    key: [u64; 2],
    total: Bucket,
    large: Bucket,
    /// All answers and large ones.
    prefixes: Box<[[Bucket; 2]]>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Gate {
    pub(crate) fn new(limits: AnswerLimits, seed: &[u8; 32]) -> Self {
        let part = |at: usize| {
            seed[at..at + 8]
                .iter()
                .fold(0, |n, byte| n << 8 | u64::from(*byte))
        };
        Self {
            limits,
            key: [part(8), part(16) | 1],
            total: Bucket::default(),
            large: Bucket::default(),
            prefixes: vec![[Bucket::default(); 2]; SLOTS].into(),
        }
    }

    /// For what comes from now on.
    pub(crate) fn set_limits(&mut self, limits: AnswerLimits) {
        self.limits = limits;
    }

    fn slot(&self, source: IpAddr) -> usize {
        // The upper half of a product depends on all bits of both.
        let product = u128::from(source_prefix(source) ^ self.key[0]) * u128::from(self.key[1]);
        ((product >> 64) ^ product) as usize % SLOTS
    }

    /// Whether this source may be answered once more.
    pub(crate) fn admit(&mut self, source: IpAddr, now: u64) -> bool {
        let AnswerLimits {
            total, per_prefix, ..
        } = self.limits;
        let slot = self.slot(source);
        // The prefix first: what one has too much must not cost the others.
        (per_prefix == 0 || self.prefixes[slot][0].take(per_prefix, now))
            && (total == 0 || self.total.take(total, now))
    }

    /// Whether it may be answered with more than [`fitting`].
    pub(crate) fn admit_large(&mut self, source: IpAddr, now: u64) -> bool {
        let large = self.limits.large;
        let slot = self.slot(source);
        large > 0
            && self.prefixes[slot][1].take((large / 16).max(1), now)
            && self.large.take(large, now)
    }
}

/// Bytes of the largest answer to a request of so many bytes from this source.
pub(crate) fn fitting(request_len: usize, source: IpAddr) -> usize {
    let headers = if source.is_ipv4() { 20 + 8 } else { 40 + 8 };
    (request_len + headers) * 3 / 2 - headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(total: u32, per_prefix: u32, large: u32) -> Gate {
        let limits = AnswerLimits {
            total,
            per_prefix,
            large,
        };
        Gate::new(limits, &[7; 32])
    }

    #[test]
    fn a_prefix_gets_its_number_in_a_second_and_leaves_the_others_theirs() {
        let mut gate = gate(1_000, 10, 0);
        let mut count = |ip: [u8; 4], now: u64| {
            (0..100)
                .filter(|_| gate.admit(IpAddr::from(ip), now))
                .count()
        };
        assert_eq!(count([192, 0, 2, 1], SECOND), 10);
        assert_eq!(count([192, 0, 2, 200], SECOND), 0);
        assert_eq!(count([192, 0, 3, 1], SECOND), 10);
        assert_eq!(count([192, 0, 2, 1], SECOND + SECOND / 2), 5);
        assert_eq!(count([192, 0, 2, 1], 10 * SECOND), 10);
    }

    #[test]
    fn all_prefixes_together_have_a_bound_and_none_may_have_none() {
        let mut small = gate(50, 10, 32);
        let from = |n: u32| IpAddr::from((0x0A00_0000 + (n << 8)).to_be_bytes());
        let answered = (0..1_000).filter(|n| small.admit(from(*n), SECOND)).count();
        assert_eq!(answered, 50);
        let large = |gate: &mut Gate| {
            (0..10)
                .filter(|_| gate.admit_large(from(0), SECOND))
                .count()
        };
        assert_eq!(large(&mut small), 2);
        assert_eq!(large(&mut gate(0, 0, 0)), 0);
        let mut open = gate(0, 0, 0);
        assert_eq!((0..1_000).filter(|_| open.admit(from(0), 0)).count(), 1_000);
    }

    #[test]
    fn an_answer_is_one_and_a_half_times_the_request_with_its_headers() {
        let v4 = IpAddr::from([192, 0, 2, 1]);
        assert_eq!(fitting(20, v4), 44);
        assert_eq!(fitting(28, v4), 56);
        assert_eq!(fitting(20, IpAddr::from([0; 16])), 54);
    }
}
