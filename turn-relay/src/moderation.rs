//! When a loop rests: packets that come one at a time, faster than a loop wakes for, are cheaper by the dozen.
//!
//! A sender without segmentation offload wakes the loop for nearly each of its packets, and waking, asking and sending
//! cost several times what the packet does. Above [`BUSY`] such packets in a [`WINDOW`] the loop sleeps for [`REST`] after
//! each turn, as a network card holds back its interrupt; what arrived meanwhile shares the system calls and leaves
//! joined. Below it nothing waits, and what the kernel has joined already never does.

use crate::udp::Taken;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(1);
/// Datagrams that came alone, in a window: one in 5 us.
const BUSY: u32 = 200;
/// A loop that rests goes on resting down to this.
const STILL_BUSY: u32 = 160;
/// What a packet waits for at most, for the sake of the others.
const REST: Duration = Duration::from_micros(50);
/// More bytes than this in one buffer are several datagrams.
const ONE_DATAGRAM: usize = 2_048;

#[derive(Debug, Default)]
pub(crate) struct Moderation {
    window_ends: Option<Instant>,
    /// In this window.
    alone: u32,
    resting: bool,
}

impl Moderation {
    /// A socket gave this.
    pub(crate) fn taken(&mut self, taken: &Taken) {
        if taken.bytes <= taken.buffers * ONE_DATAGRAM {
            self.alone += taken.buffers as u32;
        }
    }

    /// How long to sleep after the turn that began `now`.
    pub(crate) fn after_turn(&mut self, now: Instant) -> Option<Duration> {
        if self.window_ends.is_none_or(|end| end <= now) {
            let over = self.window_ends.map_or(WINDOW, |end| now - end + WINDOW);
            let bound = if self.resting { STILL_BUSY } else { BUSY };
            // The last window may have been longer than it should.
            let alone = u128::from(self.alone) * WINDOW.as_micros();
            self.resting = alone >= u128::from(bound) * over.as_micros();
            self.alone = 0;
            self.window_ends = Some(now + WINDOW);
        }
        self.resting.then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns every `gap`, for 10 ms, each with `buffers` of `bytes`; whether the last one ended with a rest.
    fn rests(gap: Duration, buffers: usize, bytes: usize) -> bool {
        let mut moderation = Moderation::default();
        let start = Instant::now();
        let mut rest = None;
        let mut now = start;
        while now < start + Duration::from_millis(10) {
            let taken = Taken {
                buffers,
                bytes,
                more: false,
            };
            moderation.taken(&taken);
            rest = moderation.after_turn(now);
            now += gap;
        }
        rest.is_some()
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
    fn the_rest_ends_with_the_load() {
        let mut moderation = Moderation::default();
        let start = Instant::now();
        for at in 0..1_000 {
            moderation.taken(&Taken {
                buffers: 1,
                bytes: 1_200,
                more: false,
            });
            let _ = moderation.after_turn(start + Duration::from_micros(3 * at));
        }
        let later = start + Duration::from_secs(1);
        moderation.taken(&Taken {
            buffers: 1,
            bytes: 1_200,
            more: false,
        });
        assert_eq!(moderation.after_turn(later), None);
    }
}
