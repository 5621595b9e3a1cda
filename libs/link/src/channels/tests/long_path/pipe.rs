//! One direction of a path: a queue in front of a bottleneck, random loss behind it, a delay.

use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) bits_per_second: f64,
    pub(super) round_trip: Duration,
    pub(super) loss: f64,
    /// Bytes that may wait.
    pub(super) queue: f64,
    pub(super) seed: u64,
    /// Nothing gets through between these times.
    pub(super) outage: (Duration, Duration),
}

pub(super) struct Pipe<T> {
    path: Path,
    random: u64,
    free_at: Duration,
    items: VecDeque<(Duration, T)>,
    /// Bytes that were put in, and those that did not fit.
    pub(super) offered: f64,
    pub(super) overflowed: f64,
}

impl<T> Pipe<T> {
    pub(super) fn new(path: Path, direction: u64) -> Self {
        Self {
            path,
            random: (path.seed * 2 + direction).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            free_at: Duration::ZERO,
            items: VecDeque::new(),
            offered: 0.0,
            overflowed: 0.0,
        }
    }

    pub(super) fn push(&mut self, item: T, bytes: usize, now: Duration) {
        let (bytes, per_second) = (bytes as f64, self.path.bits_per_second / 8.0);
        self.offered += bytes;
        let start = self.free_at.max(now);
        if (start - now).as_secs_f64() * per_second + bytes > self.path.queue {
            self.overflowed += bytes;
            return;
        }
        self.free_at = start + Duration::from_secs_f64(bytes / per_second);
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let lost = ((self.random >> 11) as f64 / (1_u64 << 53) as f64) < self.path.loss;
        let (from, to) = self.path.outage;
        if !lost && !(from..to).contains(&now) {
            self.items
                .push_back((self.free_at + self.path.round_trip / 2, item));
        }
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.items.front().map(|(due, _)| *due)
    }

    pub(super) fn pop(&mut self, now: Duration) -> Option<T> {
        self.next().filter(|due| *due <= now)?;
        self.items.pop_front().map(|(_, item)| item)
    }
}
