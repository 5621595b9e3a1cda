//! Whether the selected pair still carries.
//!
//! Used: what we send is answered soon, by whatever comes in. When not, a check goes out and is repeated; when that is
//! not answered either the pair is doubted, and any other that answers takes its place ([`super::choice`]); when none
//! does for long, the link is over. Not used: the controlling end checks now and then, which keeps NATs open and tells
//! the controlled end that somebody is there.

use std::time::{Duration, Instant};

use super::pair::Pair;
use crate::config::LinkConfig;

/// A path is given this long to answer by itself, and at least two round trips.
pub(super) const PROBE_AFTER: Duration = Duration::from_millis(200);
/// And this long in all, and at least five round trips, until others are looked at: TCP sends again 200 ms and 600 ms
/// after the last it heard, and what it sends the second time shall get through.
const DOUBT_AFTER: Duration = Duration::from_millis(500);
/// Checks without an answer before a pair is doubted, whatever the time: one or two can be lost.
const MIN_CHECKS: u32 = 3;
/// Keepalives that the controlled end can miss.
const MISSED: u32 = 3;

#[derive(Debug)]
pub(super) struct Liveness {
    heard: Instant,
    /// The first thing that was sent after something was last heard.
    unanswered: Option<Instant>,
    /// It was long unanswered, checks included.
    doubted: bool,
    keepalive: Duration,
    silence: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    Check,
    /// Said once.
    Doubt,
    Dead,
}

impl Liveness {
    pub(super) fn new(config: &LinkConfig, now: Instant) -> Self {
        Self {
            heard: now,
            unanswered: None,
            doubted: false,
            keepalive: config.keepalive,
            silence: config.silence_timeout,
        }
    }

    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = None;
        self.doubted = false;
    }

    pub(super) fn on_sent(&mut self, now: Instant) {
        self.unanswered.get_or_insert(now);
    }

    /// There is no pair any more that could answer.
    pub(super) const fn on_retired(&mut self) {
        self.doubted = true;
    }

    /// Since when the pair owes an answer.
    pub(super) const fn unanswered(&self) -> Option<Instant> {
        self.unanswered
    }

    pub(super) const fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// How long a pair may be without a pair to use.
    pub(super) const fn patience(&self) -> Duration {
        self.silence
    }

    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= PROBE_AFTER
    }

    pub(super) fn verdict(&mut self, pair: &Pair, controlling: bool, now: Instant) -> Verdict {
        if now < self.due(pair, controlling) {
            return Verdict::Fine;
        }
        match self.unanswered {
            Some(_) if self.doubted => Verdict::Dead,
            Some(_) if pair.attempts() >= MIN_CHECKS => {
                self.doubted = true;
                Verdict::Doubt
            }
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
            Some(since) if self.doubted => since + self.silence.max(12 * rtt),
            Some(since) if pair.attempts() > 0 => {
                let doubt = since + DOUBT_AFTER.max(5 * rtt);
                // Not before the last of them had its time.
                match pair.check_due(since) {
                    Some(next) if pair.attempts() < MIN_CHECKS => doubt.max(next),
                    _ => doubt,
                }
            }
            Some(since) => since + PROBE_AFTER.max(2 * rtt),
            None if controlling => self.heard + self.keepalive,
            None => self.heard + (MISSED * self.keepalive + self.silence),
        }
    }
}
