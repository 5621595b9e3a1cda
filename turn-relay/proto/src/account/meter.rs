//! A token bucket of two atomic numbers, and a fair part of another one.
//!
//! The bucket is kept as the time at which it will be full again (the generic cell rate algorithm): one number, changed
//! by one compare-and-swap for a run of packets. Rounding: a packet's price is cut to whole nanoseconds, so a rate is
//! exceeded by less than one part in (price in nanoseconds): 0.1 % at 10 Gbit/s and 1200 bytes. Of a run as many packets
//! are let through as fit, whole ones.
//!
//! Fairness: `level` is what the user put into the common bucket, forgotten exponentially within [`MEMORY`] times that
//! bucket's depth, so it stands for the user's rate. A user is let through while its level is below a multiple of the room
//! that the bucket has left (the dynamic threshold of Choudhury and Hahne, 1998). When all together want more than there is,
//! the room shrinks until the levels of those who want most are equal, and whoever wants less never meets it.

use std::sync::atomic::{AtomicU64, Ordering};

const SECOND: u64 = 1_000_000_000;
/// What may come at once after a pause, as a time at the rate.
const DEPTH: u64 = SECOND / 10;
/// But one largest datagram at least.
const LARGEST: u64 = 65_536;
/// Over so many depths a user's rate is averaged: long enough to tell the rates of hundreds apart by whole packets.
const MEMORY: u64 = 10;

/// Of one user and direction, or of all in one direction. Times are nanoseconds of the process.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// When the bucket is full again; it is empty if that is `depth` from now.
    full_at: AtomicU64,
    /// Microseconds of the process (32 bits, may turn over) and level in nanoseconds at the total rate (an `f32`).
    level: AtomicU64,
}

/// What a packet costs and what fits, at a rate.
#[derive(Clone, Copy, Debug)]
struct Price {
    each: u64,
    depth: u64,
}

impl Price {
    fn at(rate: u64, bytes_each: usize) -> Self {
        let time = |bytes: u64| (u128::from(bytes) * u128::from(SECOND) / u128::from(rate)) as u64;
        Self {
            each: time(bytes_each as u64).max(1),
            depth: DEPTH.max(time(LARGEST)),
        }
    }
}

impl Meter {
    /// How many of `count` packets may pass; they are paid for.
    pub(crate) fn take(&self, rate: u64, bytes_each: usize, count: usize, now: u64) -> usize {
        let price = Price::at(rate, bytes_each);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let from = full_at.max(now);
            let room = (now + price.depth).saturating_sub(from);
            let fit = usize::try_from(room / price.each).map_or(count, |fit| fit.min(count));
            if fit == 0 {
                return 0;
            }
            let next = from + fit as u64 * price.each;
            match self.full_at.compare_exchange_weak(
                full_at,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return fit,
                Err(other) => full_at = other,
            }
        }
    }

    /// Gives back what was paid for `count` packets.
    pub(crate) fn give_back(&self, rate: u64, bytes_each: usize, count: usize) {
        let price = Price::at(rate, bytes_each);
        self.full_at
            .fetch_sub(count as u64 * price.each, Ordering::Relaxed);
    }

    /// How many bytes may pass now.
    pub(crate) fn room(&self, rate: u64, now: u64) -> usize {
        let depth = Price::at(rate, 1).depth;
        let from = self.full_at.load(Ordering::Relaxed).max(now);
        bytes_in((now + depth).saturating_sub(from), rate)
    }

    /// Takes the price of bytes that have passed, even beyond what is left.
    pub(crate) fn pay(&self, rate: u64, bytes: usize, now: u64) {
        let cost = Price::at(rate, bytes).each;
        let order = Ordering::Relaxed;
        let paid = |full_at: u64| Some(full_at.max(now) + cost);
        // Never fails: there always is a next value.
        let _ = self.full_at.fetch_update(order, order, paid);
    }

    /// How many of `count` packets may pass into `total`, which all users share; they are paid for there.
    pub(crate) fn take_fairly(
        &self,
        total: &Self,
        rate: u64,
        bytes_each: usize,
        count: usize,
        now: u64,
    ) -> usize {
        let price = Price::at(rate, bytes_each);
        let room = self.part_of(total, price.depth, now);
        let fit = usize::try_from(room.div_ceil(price.each)).map_or(count, |fit| fit.min(count));
        let taken = total.take(rate, bytes_each, fit, now);
        if taken > 0 {
            self.raise_level(taken as f32 * price.each as f32, price.depth, now);
        }
        taken
    }

    /// Gives back what was paid into `total` for `count` packets.
    pub(crate) fn give_back_fairly(
        &self,
        total: &Self,
        rate: u64,
        bytes_each: usize,
        count: usize,
        now: u64,
    ) {
        let price = Price::at(rate, bytes_each);
        total.give_back(rate, bytes_each, count);
        self.raise_level(-(count as f32) * price.each as f32, price.depth, now);
    }

    /// How many bytes may pass into `total` now.
    pub(crate) fn fair_room(&self, total: &Self, rate: u64, now: u64) -> usize {
        let depth = Price::at(rate, 1).depth;
        let room = bytes_in(self.part_of(total, depth, now), rate);
        room.min(total.room(rate, now))
    }

    /// Takes the price of bytes that have passed into `total`.
    pub(crate) fn pay_fairly(&self, total: &Self, rate: u64, bytes: usize, now: u64) {
        let price = Price::at(rate, bytes);
        total.pay(rate, bytes, now);
        self.raise_level(price.each as f32, price.depth, now);
    }

    /// How far the level may rise, in nanoseconds at the total rate.
    fn part_of(&self, total: &Self, depth: u64, now: u64) -> u64 {
        let used = total.full_at.load(Ordering::Relaxed).saturating_sub(now);
        let threshold = 2 * MEMORY * depth.saturating_sub(used);
        let level = level(self.level.load(Ordering::Relaxed), depth, now);
        (threshold as f32 - level).max(0.0) as u64
    }

    fn raise_level(&self, by: f32, depth: u64, now: u64) {
        let order = Ordering::Relaxed;
        let raised = |packed: u64| {
            let level = (level(packed, depth, now) + by).max(0.0);
            Some(u64::from(micros(now)) << 32 | u64::from(level.to_bits()))
        };
        // Never fails: there always is a next value.
        let _ = self.level.fetch_update(order, order, raised);
    }

    pub(super) fn is_at_rest(&self, now: u64) -> bool {
        self.full_at.load(Ordering::Relaxed) <= now
    }
}

/// Of the process; may turn over.
fn micros(now: u64) -> u32 {
    (now / 1_000) as u32
}

/// What is left of a level by now.
fn level(packed: u64, depth: u64, now: u64) -> f32 {
    let then = (packed >> 32) as u32;
    let age = u64::from(micros(now).wrapping_sub(then)) * 1_000;
    f32::from_bits(packed as u32) * (-(age as f32) / (MEMORY * depth) as f32).exp()
}

fn bytes_in(nanos: u64, rate: u64) -> usize {
    (u128::from(nanos) * u128::from(rate) / u128::from(SECOND)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEGABYTE: u64 = 1_000_000;

    #[test]
    fn a_bucket_gives_its_rate_and_a_tenth_of_a_second_at_once() {
        let meter = Meter::default();
        assert_eq!(meter.take(MEGABYTE, 1_000, 1_000, SECOND), 100);
        assert_eq!(meter.take(MEGABYTE, 1_000, 1_000, SECOND), 0);
        let mut passed = 0;
        for step in 1..=1_000 {
            passed += meter.take(MEGABYTE, 1_000, 7, SECOND + step * SECOND / 1_000);
        }
        assert_eq!(passed, 1_000);
        meter.give_back(MEGABYTE, 1_000, 3);
        assert_eq!(meter.take(MEGABYTE, 1_000, 10, 2 * SECOND), 3);
    }

    #[test]
    fn the_largest_datagram_passes_at_the_lowest_rate() {
        let meter = Meter::default();
        assert_eq!(meter.take(100, 65_535, 1, SECOND), 1);
        assert_eq!(meter.take(100, 65_535, 1, SECOND), 0);
    }

    /// Offers at multiples of the total rate; what each got, in parts of the total.
    fn share(offers: &[f64]) -> Vec<f64> {
        let total = Meter::default();
        let users: Vec<Meter> = offers.iter().map(|_| Meter::default()).collect();
        let (mut owed, mut got) = (vec![0.0; offers.len()], vec![0.0; offers.len()]);
        let step = SECOND / 2_000;
        for tick in 1..=12_000u64 {
            let now = SECOND + tick * step;
            for turn in 0..offers.len() {
                // Nobody is always first.
                let index = (turn + tick as usize * 7) % offers.len();
                owed[index] += offers[index] * MEGABYTE as f64 * 10.0 / 2_000.0 / 1_000.0;
                let count = owed[index] as usize;
                owed[index] -= count as f64;
                if count > 0 {
                    let passed = users[index].take_fairly(&total, 10 * MEGABYTE, 1_000, count, now);
                    // The first seconds are for settling.
                    if tick > 8_000 {
                        got[index] += passed as f64;
                    }
                }
            }
        }
        got.iter().map(|got| got / 20_000.0).collect()
    }

    #[test]
    fn who_wants_less_than_its_part_gets_it_and_the_others_share_the_rest_evenly() {
        let got = share(&[10.0, 2.0, 0.1]);
        assert!((0.095..0.105).contains(&got[2]), "{got:?}");
        assert!((0.40..0.50).contains(&got[0]), "{got:?}");
        assert!((0.40..0.50).contains(&got[1]), "{got:?}");
        assert!(got.iter().sum::<f64>() > 0.95, "{got:?}");
    }

    #[test]
    fn one_alone_gets_everything() {
        assert!(share(&[5.0])[0] > 0.97);
    }

    #[test]
    fn a_hundred_who_want_too_much_get_a_hundredth_each() {
        let mut offers = vec![0.5; 100];
        offers[0] = 20.0;
        let got = share(&offers);
        for each in &got {
            assert!((0.007..0.020).contains(each), "{got:?}");
        }
    }
}
