//! One direction: loss, then a queue before a bottleneck, then delay. Order is kept.
//!
//! ```text
//! push ──► lost? ──► queue of at most `queue` bytes ──► `rate` ──► `delay` ──► deliver
//! ```
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Bytes under way at most, whatever the shape.
const UNDER_WAY_MAX: u64 = 256 << 20;
/// Buffers kept for the frames to come.
const SPARE_MAX: usize = 4096;

/// What a wire is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// How long a frame is under way behind the bottleneck.
    pub(crate) delay: Duration,
    /// The bottleneck, bits per second.
    pub(crate) rate: Option<u64>,
    /// Bytes that may wait before it.
    pub(crate) queue: u64,
    /// Probability that a frame is lost, 0 to 1.
    pub(crate) loss: f64,
}

/// What becomes of a frame that enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It will arrive.
    Kept,
    /// Lost by chance.
    Lost,
    /// Lost because the queue was full.
    Overflowed,
}

#[derive(Debug)]
pub(crate) struct Wire {
    shape: Shape,
    random: Random,
    /// When the bottleneck has sent everything it was given.
    free_at: Instant,
    under_way: VecDeque<(Instant, Vec<u8>)>,
    bytes: u64,
    spare: Vec<Vec<u8>>,
}

impl Wire {
    pub(crate) const fn new(shape: Shape, seed: u64, now: Instant) -> Self {
        Self {
            shape,
            random: Random(seed),
            free_at: now,
            under_way: VecDeque::new(),
            bytes: 0,
            spare: Vec::new(),
        }
    }

    /// A frame enters.
    pub(crate) fn push(&mut self, frame: &[u8], now: Instant) -> Fate {
        if self.random.next_share() < self.shape.loss {
            return Fate::Lost;
        }
        let length = frame.len() as u64;
        let waiting = self.waiting(now);
        let too_much = waiting + length > self.shape.queue || self.bytes + length > UNDER_WAY_MAX;
        // A queue shorter than one frame still lets that frame through when nothing waits.
        if too_much && (waiting > 0 || self.bytes + length > UNDER_WAY_MAX) {
            return Fate::Overflowed;
        }
        let start = self.free_at.max(now);
        self.free_at = start + self.transmission(length);
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(frame);
        self.bytes += length;
        self.under_way
            .push_back((self.free_at + self.shape.delay, buffer));
        Fate::Kept
    }

    /// Bytes before the bottleneck.
    fn waiting(&self, now: Instant) -> u64 {
        let Some(rate) = self.shape.rate else {
            return 0;
        };
        let time = self.free_at.saturating_duration_since(now);
        (time.as_nanos() * u128::from(rate) / 8_000_000_000) as u64
    }

    /// How long the bottleneck needs for this many bytes.
    fn transmission(&self, length: u64) -> Duration {
        self.shape.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos(length * 8_000_000_000 / rate)
        })
    }

    /// Every frame that arrives by `now`, in order.
    pub(crate) fn deliver(&mut self, now: Instant, mut each: impl FnMut(&[u8])) {
        while self.next_delivery().is_some_and(|at| at <= now) {
            let Some((_, frame)) = self.under_way.pop_front() else {
                return;
            };
            each(&frame);
            self.bytes -= frame.len() as u64;
            if self.spare.len() < SPARE_MAX {
                self.spare.push(frame);
            }
        }
    }

    /// When the next frame arrives.
    pub(crate) fn next_delivery(&self) -> Option<Instant> {
        self.under_way.front().map(|&(at, _)| at)
    }
}

/// SplitMix64: small, and the same everywhere.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// 0 to 1, without 1.
    fn next_share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Shape = Shape {
        delay: Duration::ZERO,
        rate: None,
        queue: u64::MAX,
        loss: 0.0,
    };

    /// When each frame that is delivered arrives, from `start`, and its first byte.
    fn arrivals(wire: &mut Wire, start: Instant) -> Vec<(Duration, u8)> {
        let mut seen = Vec::new();
        while let Some(at) = wire.next_delivery() {
            wire.deliver(at, |frame| seen.push((at - start, frame[0])));
        }
        seen
    }

    #[test]
    fn a_frame_arrives_after_the_delay_and_not_before() {
        let start = Instant::now();
        let delay = Duration::from_millis(40);
        let mut wire = Wire::new(Shape { delay, ..PLAIN }, 1, start);
        wire.push(&[7; 100], start);
        wire.deliver(start + delay - Duration::from_nanos(1), |_| {
            panic!("too early")
        });
        assert_eq!(arrivals(&mut wire, start), [(delay, 7)]);
    }

    #[test]
    fn frames_leave_one_after_the_other_at_the_rate() {
        let start = Instant::now();
        let shape = Shape {
            rate: Some(8_000_000),
            ..PLAIN
        };
        let mut wire = Wire::new(shape, 1, start);
        for n in 0..3 {
            wire.push(&[n; 1000], start);
        }
        let ms = Duration::from_millis;
        assert_eq!(
            arrivals(&mut wire, start),
            [(ms(1), 0), (ms(2), 1), (ms(3), 2)]
        );
        // An idle bottleneck saves nothing up.
        wire.push(&[9; 1000], start + ms(100));
        assert_eq!(arrivals(&mut wire, start), [(ms(101), 9)]);
    }

    #[test]
    fn what_the_queue_has_no_room_for_is_dropped_until_it_drains() {
        let start = Instant::now();
        let shape = Shape {
            rate: Some(8_000_000),
            queue: 3000,
            ..PLAIN
        };
        let mut wire = Wire::new(shape, 1, start);
        let fates = [0, 1, 2, 3].map(|n| wire.push(&[n; 1000], start));
        assert_eq!(
            fates,
            [Fate::Kept, Fate::Kept, Fate::Kept, Fate::Overflowed]
        );
        let later = start + Duration::from_millis(1);
        assert_eq!(wire.push(&[5; 1000], later), Fate::Kept);
        let order: Vec<u8> = arrivals(&mut wire, start)
            .into_iter()
            .map(|(_, n)| n)
            .collect();
        assert_eq!(order, [0, 1, 2, 5]);
        assert_eq!(wire.bytes, 0);
    }

    #[test]
    fn a_share_of_the_frames_is_lost_and_the_same_ones_for_the_same_seed() {
        let start = Instant::now();
        let lost = |seed| {
            let mut wire = Wire::new(Shape { loss: 0.1, ..PLAIN }, seed, start);
            let fates = (0..10_240).map(|n: u32| wire.push(&n.to_be_bytes()[3..], start));
            let count = fates.filter(|&fate| fate == Fate::Lost).count();
            (count, arrivals(&mut wire, start))
        };
        let (count, frames) = lost(1);
        assert!((900..1150).contains(&count), "{count} of 10 240");
        assert_eq!(lost(1), (count, frames.clone()));
        assert_ne!(lost(2).1, frames);
    }
}
