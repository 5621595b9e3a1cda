//! Roughly how many different peers a user asked for, in memory that does not grow.

use super::SCAN_WINDOW;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bits for each peer of the limit: with four, one in four new peers near the limit is taken for a known one.
const BITS_EACH: usize = 4;
/// Words of a sketch at least: 128 bytes, so that small limits are kept exactly enough.
const LEAST: usize = 16;

/// One bit for each value of a hash; a window begins with none.
#[derive(Debug)]
pub(super) struct Sketch {
    bits: Box<[AtomicU64]>,
    set: AtomicU32,
    /// When the window began, in nanoseconds of the process.
    began: AtomicU64,
}

impl Sketch {
    /// For so many peers.
    pub(super) fn new(limit: u32) -> Self {
        let words = (limit as usize * BITS_EACH)
            .div_ceil(64)
            .max(LEAST)
            .next_power_of_two();
        Self {
            bits: (0..words).map(|_| AtomicU64::new(0)).collect(),
            set: AtomicU32::new(0),
            began: AtomicU64::new(0),
        }
    }

    /// Whether it is known in this window, or there is room for one more.
    pub(super) fn admit(&self, hash: u64, limit: u32, now: u64) -> bool {
        let order = Ordering::Relaxed;
        let began = self.began.load(order);
        let first = began == 0;
        if (first || now.saturating_sub(began) >= SCAN_WINDOW.as_nanos() as u64)
            && self
                .began
                .compare_exchange(began, now.max(1), order, order)
                .is_ok()
        {
            self.bits.iter().for_each(|word| word.store(0, order));
            self.set.store(0, order);
        }
        let word = &self.bits[(hash >> 6) as usize & (self.bits.len() - 1)];
        let bit = 1 << (hash & 63);
        if word.load(order) & bit != 0 {
            return true;
        }
        if self.set.load(order) >= limit {
            return false;
        }
        if word.fetch_or(bit, order) & bit == 0 {
            self.set.fetch_add(1, order);
        }
        true
    }

    pub(super) fn is_over(&self, now: u64) -> bool {
        let began = self.began.load(Ordering::Relaxed);
        now.saturating_sub(began) >= SCAN_WINDOW.as_nanos() as u64
    }
}
