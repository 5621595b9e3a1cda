//! Whether the selected pair still carries.
//!
//! Used: what we send is answered soon, by whatever comes in. When not, a check goes out and is repeated, and without
//! an answer to that either the pair is dead. Not used: the controlling end checks now and then, which keeps NATs open
//! and tells the controlled end that somebody is there.

use std::time::{Duration, Instant};

use super::pair::Pair;
use crate::config::LinkConfig;

/// A path is given this long to answer by itself, and at least two round trips.
const PROBE_AFTER: Duration = Duration::from_millis(250);
/// Checks without an answer before a pair is dead, whatever the time: one or two can be lost.
const MIN_CHECKS: u32 = 3;
/// Keepalives that the controlled end can miss.
const MISSED: u32 = 3;

#[derive(Debug)]
pub(super) struct Liveness {
    heard: Instant,
    /// The first thing that was sent after something was last heard.
    unanswered: Option<Instant>,
    keepalive: Duration,
    silence: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Check,
    Dead,
}

impl Liveness {
    pub(super) fn new(config: &LinkConfig, now: Instant) -> Self {
        Self {
            heard: now,
            unanswered: None,
            keepalive: config.keepalive,
            silence: config.silence_timeout,
        }
    }

    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = None;
    }

    pub(super) fn on_sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    pub(super) fn verdict(&self, pair: &Pair, controlling: bool, now: Instant) -> Verdict {
        if now < self.due(pair, controlling) {
            return Verdict::Fine;
        }
        match self.unanswered {
            Some(_) if pair.attempts() >= MIN_CHECKS => Verdict::Dead,
            // Its repetitions are the pair's own business.
            Some(_) if pair.attempts() > 0 => Verdict::Fine,
            None if !controlling => Verdict::Dead,
            _ => Verdict::Check,
        }
    }

    /// When there is something to do about the pair.
    pub(super) fn due(&self, pair: &Pair, controlling: bool) -> Instant {
        let rtt = pair.rtt.unwrap_or_default();
        match self.unanswered {
            Some(since) if pair.attempts() > 0 => {
                let dead = since + self.silence.max(6 * rtt);
                // Not before the last of them had its time.
                match pair.check_due(since) {
                    Some(next) if pair.attempts() < MIN_CHECKS => dead.max(next),
                    _ => dead,
                }
            }
            Some(since) => since + PROBE_AFTER.max(2 * rtt),
            None if controlling => self.heard + self.keepalive,
            None => self.heard + (MISSED * self.keepalive + self.silence),
        }
    }
}
