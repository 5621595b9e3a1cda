//! When a loop rests, and when it stays awake.
//!
//! Packets that come one at a time, faster than a loop wakes for, are cheaper by the dozen.
//!
//! A sender without segmentation offload wakes the loop for nearly each of its packets, and waking, asking and sending
//! cost several times what the packet does. Above [`BUSY`] such packets in each of [`PATIENCE`] [`WINDOW`]s the loop sleeps for
//! [`REST`] after each turn, as a network card holds back its interrupt; what arrived meanwhile shares the system calls and
//! leaves joined. Below it nothing waits, what the kernel has joined already never does, and neither does what piled up once
//! while the core was another's: it would only be later still.
//!
//! From [`BRISK`] on, the next packet is nearer than a core takes to fall asleep and wake: the loop then asks again for
//! [`AWAKE`], and lets whoever else wants the core go first, before it sleeps.

use crate::udp::Taken;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(1);
/// Datagrams that came alone, in a window: one in 4 us.
const BUSY: u32 = 230;
/// A loop that rests goes on resting down to this: more than half of what a core carries of such packets.
const STILL_BUSY: u32 = 210;
/// Busy windows in a row before a loop rests.
const PATIENCE: u32 = 4;
/// Datagrams that came alone, in a window: one in 25 us. Waking for each takes half a core already.
const BRISK: u32 = 40;
/// How long the next packet is expected for: twice what lies between two.
const AWAKE: Duration = Duration::from_micros(50);
/// What a packet waits for at most, for the sake of the others.
const REST: Duration = Duration::from_micros(50);
/// More bytes than this in one buffer are several datagrams.
const ONE_DATAGRAM: usize = 2_048;

#[derive(Debug, Default)]
pub(crate) struct Moderation {
    window_ends: Option<Instant>,
    /// In this window.
    alone: u32,
    /// Windows in a row, [`PATIENCE`] at most.
    busy: u32,
    brisk: bool,
    /// When something came last.
    came: Option<Instant>,
}

impl Moderation {
    /// A socket gave this, in the turn that began `now`.
    pub(crate) fn taken(&mut self, taken: &Taken, now: Instant) {
        if taken.buffers > 0 {
            self.came = Some(now);
        }
        if taken.bytes <= taken.buffers * ONE_DATAGRAM {
            self.alone += taken.buffers as u32;
        }
    }

    /// How long to sleep after the turn that began `now`.
    pub(crate) fn after_turn(&mut self, now: Instant) -> Option<Duration> {
        if self.window_ends.is_none_or(|end| end <= now) {
            // The last window may have been longer than it should.
            let over = self.window_ends.map_or(WINDOW, |end| now - end + WINDOW);
            let alone = u128::from(self.alone) * WINDOW.as_micros();
            let is_over = |bound: u32| alone >= u128::from(bound) * over.as_micros();
            self.busy = match self.busy {
                PATIENCE if is_over(STILL_BUSY) => PATIENCE,
                busy if busy < PATIENCE && is_over(BUSY) => busy + 1,
                _ => 0,
            };
            self.brisk = is_over(BRISK);
            self.alone = 0;
            self.window_ends = Some(now + WINDOW);
        }
        (self.busy == PATIENCE).then_some(REST)
    }

    /// Until when to ask again instead of going to sleep.
    pub(crate) fn awake_until(&self) -> Option<Instant> {
        Some(self.came.filter(|_| self.brisk)? + AWAKE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(buffers: usize, bytes: usize) -> Taken {
        Taken {
            buffers,
            bytes,
            more: false,
        }
    }

    /// After turns every `gap`, for 10 ms, each with `buffers` of `bytes`: when the last one began, and what it ended with.
    fn after(gap: Duration, taken: &Taken) -> (Moderation, Instant, Option<Duration>) {
        let mut moderation = Moderation::default();
        let start = Instant::now();
        let (mut now, mut rest) = (start, None);
        while now + gap < start + Duration::from_millis(10) {
            now += gap;
            moderation.taken(taken, now);
            rest = moderation.after_turn(now);
        }
        (moderation, now, rest)
    }

    fn rests(gap: Duration, buffers: usize, bytes: usize) -> bool {
        after(gap, &taken(buffers, bytes)).2.is_some()
    }

    #[test]
    fn a_loop_that_wakes_for_each_of_many_packets_rests() {
        assert!(rests(Duration::from_micros(3), 1, 1_200));
        // And goes on when its turns are fewer and longer for it.
        assert!(rests(Duration::from_micros(60), 20, 20 * 1_200));
    }

    #[test]
    fn few_packets_and_joined_ones_never_wait() {
        assert!(!rests(Duration::from_micros(10), 1, 1_200));
        assert!(!rests(Duration::from_micros(3), 1, 60_000));
        assert!(!rests(Duration::from_millis(2), 100, 100 * 1_200));
    }

    #[test]
    fn what_piled_up_once_does_not_make_the_rest_late() {
        let mut moderation = Moderation::default();
        let mut now = Instant::now();
        for turn in 0..10_000 {
            // 180 in a millisecond. Twice the core was away for two, and the next turns find 32 each.
            now += match turn % 4_000 {
                3_980 => Duration::from_millis(2),
                3_981..3_992 => Duration::from_micros(10),
                _ => Duration::from_nanos(5_556),
            };
            let buffers = if (3_980..3_992).contains(&(turn % 4_000)) {
                32
            } else {
                1
            };
            moderation.taken(&taken(buffers, buffers * 1_200), now);
            assert_eq!(moderation.after_turn(now), None, "turn {turn}");
        }
    }

    #[test]
    fn the_rest_ends_with_the_load() {
        let (mut moderation, last, rest) = after(Duration::from_micros(3), &taken(1, 1_200));
        assert!(rest.is_some());
        let later = last + Duration::from_secs(1);
        moderation.taken(&taken(1, 1_200), later);
        assert_eq!(moderation.after_turn(later), None);
    }

    #[test]
    fn a_loop_stays_awake_while_the_next_packet_is_near() {
        let (moderation, last, _) = after(Duration::from_micros(20), &taken(1, 1_200));
        assert_eq!(moderation.awake_until(), Some(last + AWAKE));
        for (gap, bytes) in [(50, 1_200), (20, 60_000)] {
            let (moderation, ..) = after(Duration::from_micros(gap), &taken(1, bytes));
            assert_eq!(moderation.awake_until(), None, "{gap} us, {bytes} bytes");
        }
    }

    #[test]
    fn a_turn_without_a_packet_does_not_keep_it_awake() {
        let (mut moderation, last, _) = after(Duration::from_micros(20), &taken(1, 1_200));
        moderation.taken(&taken(0, 0), last + AWAKE);
        assert_eq!(moderation.awake_until(), Some(last + AWAKE));
    }
}
