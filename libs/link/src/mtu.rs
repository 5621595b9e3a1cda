//! What size of datagram the path takes, and whether it takes any: datagram packetization layer path MTU discovery
//! ([RFC 8899](https://www.rfc-editor.org/rfc/rfc8899)) by padded probes, which are also the lane's sign of life.
//!
//! ```text
//!               acknowledged                        nothing bigger to try
//!   Seeking ──────────────────▶ Searching ◀──────▶ Settled
//!      ▲                            │   ▲              │ each second with traffic
//!      │     nothing comes back     ▼   │ acknowledged ▼
//!      └──────────────────────────── Confirming ◀──────┘
//! ```
//!
//! Nothing is sent on an idle path but in `Seeking`, and there at last once a minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// No path of interest takes less: IPv6's minimum of 1280 bytes less the headers of IPv6, UDP and ChannelData leaves
/// more. What takes less is left to the data channel.
pub(crate) const FLOOR: usize = 1200;
/// Sizes closer than this to each other are not told apart.
const STEP: usize = 8;
/// [RFC 8899 §5.1.2](https://www.rfc-editor.org/rfc/rfc8899#section-5.1.2): MAX_PROBES, PMTU_RAISE_TIMER.
const MAX_PROBES: u32 = 3;
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// With traffic, the limit is confirmed this often.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
/// Unanswered probes after which the path counts as dead when nothing else came in meanwhile, and when something did.
const GIVE_UP: u32 = 6;
const GIVE_UP_HEARING: u32 = 15;
/// How long an answer is waited for: three round trips within these.
const WAIT: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Probes whose acknowledgement still counts.
const OUTSTANDING: usize = 16;

/// A probe to send: a datagram of exactly `size` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    pub(crate) id: u32,
    pub(crate) size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Seeking,
    Searching { candidate: usize },
    Confirming { since: Instant, small: u32 },
    Settled,
}

#[derive(Debug)]
pub(crate) struct Prober {
    base: usize,
    ceiling: usize,
    /// What was acknowledged and can be used; 0 in the beginning.
    limit: usize,
    /// What does not get through, as far as is known.
    too_big: usize,
    phase: Phase,
    tries: u32,
    due: Option<Instant>,
    raise_at: Option<Instant>,
    confirmed_at: Option<Instant>,
    heard_at: Option<Instant>,
    round_trip: Option<Duration>,
    next_id: u32,
    outstanding: VecDeque<(Probe, Instant)>,
}

impl Prober {
    /// `base` is expected to get through, `ceiling` is the most that is tried.
    pub(crate) fn new(base: usize, ceiling: usize, now: Instant) -> Self {
        let base = base.max(FLOOR);
        let ceiling = ceiling.max(base);
        Self {
            base,
            ceiling,
            limit: 0,
            too_big: ceiling + 1,
            phase: Phase::Seeking,
            tries: 0,
            due: Some(now),
            raise_at: None,
            confirmed_at: None,
            heard_at: None,
            round_trip: None,
            next_id: 0,
            outstanding: VecDeque::new(),
        }
    }

    /// Whether datagrams get through and come back, as far as is known.
    pub(crate) fn is_alive(&self) -> bool {
        self.phase != Phase::Seeking
    }

    /// Whether a probe went unanswered for its time since something was last known to get through.
    pub(crate) const fn has_waited(&self) -> bool {
        self.tries > 1
    }

    /// The longest datagram that the path takes; what is expected of it while nothing got through.
    pub(crate) const fn limit(&self) -> usize {
        match self.limit {
            0 => self.base,
            limit => limit,
        }
    }

    /// The path takes no more than `most`: somebody said so who must know it.
    pub(crate) fn lower(&mut self, most: usize) {
        let most = most.max(FLOOR);
        self.ceiling = self.ceiling.min(most);
        self.base = self.base.min(most);
        self.limit = self.limit.min(most);
        self.too_big = self.too_big.min(most + 1);
        self.outstanding.retain(|(probe, _)| probe.size <= most);
        if let Phase::Searching { candidate } = self.phase
            && candidate > most
        {
            self.tries = MAX_PROBES;
        }
    }

    /// Datagrams take another path from now on: what was known of the limit does not hold.
    pub(crate) fn on_path_change(&mut self, now: Instant) {
        self.outstanding.clear();
        self.round_trip = None;
        self.limit = self.limit.min(self.base);
        self.too_big = self.ceiling + 1;
        if self.is_alive() {
            self.confirm(now);
        } else {
            self.tries = 0;
            self.due = Some(now);
        }
    }

    /// Something authentic came in.
    pub(crate) fn on_heard(&mut self, now: Instant) {
        self.heard_at = Some(now);
    }

    /// A frame was sent. Says whether a probe has become due with it.
    pub(crate) fn on_traffic(&mut self, now: Instant) -> bool {
        if self.phase != Phase::Settled {
            return false;
        }
        let since =
            |at: Option<Instant>| at.map_or(Duration::MAX, |at| now.saturating_duration_since(at));
        if self.raise_at.is_some_and(|at| at <= now) {
            self.raise_at = None;
            self.too_big = self.ceiling + 1;
            self.search(now);
            return true;
        }
        if since(self.confirmed_at) >= CONFIRM_EVERY {
            self.confirm(now);
            return true;
        }
        false
    }

    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// The probe that is due.
    pub(crate) fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        self.due.filter(|due| *due <= now)?;
        match self.phase {
            Phase::Settled => {
                self.due = None;
                return None;
            }
            Phase::Seeking => {}
            Phase::Searching { candidate } => {
                if self.tries >= MAX_PROBES {
                    self.too_big = self.too_big.min(candidate);
                    // Or was it the path that failed?
                    self.confirm(now);
                }
            }
            Phase::Confirming { since, .. } => {
                let hears = self.heard_at.is_some_and(|at| at >= since);
                if self.tries >= if hears { GIVE_UP_HEARING } else { GIVE_UP } {
                    self.phase = Phase::Seeking;
                    self.tries = 3;
                    self.outstanding.clear();
                }
            }
        }
        let size = match self.phase {
            // The floor now and then: perhaps it is only the size.
            Phase::Seeking if self.tries % 3 == 2 => FLOOR,
            Phase::Seeking => self.base,
            Phase::Searching { candidate } => candidate,
            Phase::Confirming { .. } if self.tries % 2 == 1 => FLOOR,
            Phase::Confirming { .. } | Phase::Settled => self.limit,
        };
        self.tries += 1;
        self.due = Some(now + self.wait());
        let probe = Probe {
            id: self.next_id,
            size,
        };
        self.next_id = self.next_id.wrapping_add(1);
        self.outstanding.truncate(OUTSTANDING - 1);
        self.outstanding.push_front((probe, now));
        Some(probe)
    }

    /// A probe was acknowledged. `false`: none of those that are waited for.
    pub(crate) fn on_acknowledged(&mut self, id: u32, now: Instant) -> bool {
        let Some(at) = self
            .outstanding
            .iter()
            .position(|(probe, _)| probe.id == id)
        else {
            return false;
        };
        let Some((Probe { size, .. }, sent)) = self.outstanding.remove(at) else {
            return false;
        };
        let sample = now.saturating_duration_since(sent);
        self.round_trip = Some(match self.round_trip {
            Some(known) => sample.max(known * 7 / 8),
            None => sample,
        });
        match self.phase {
            Phase::Seeking => {
                self.limit = size;
                self.too_big = self.ceiling + 1;
                self.confirmed_at = Some(now);
                self.search(now);
            }
            Phase::Confirming { since, small } if size < self.limit => {
                let small = small + 1;
                self.phase = Phase::Confirming { since, small };
                // Small ones get through, and full ones do not: a black hole (RFC 8899 §4.3).
                if small >= 2 && self.tries > MAX_PROBES {
                    self.too_big = self.limit;
                    self.limit = FLOOR;
                    self.search(now);
                }
            }
            Phase::Confirming { .. } => {
                self.raise(size);
                self.confirmed_at = Some(now);
                self.search(now);
            }
            Phase::Searching { candidate } => {
                self.raise(size);
                if size >= candidate {
                    self.confirmed_at = Some(now);
                    self.search(now);
                }
            }
            Phase::Settled => self.raise(size),
        }
        true
    }

    fn raise(&mut self, size: usize) {
        self.limit = self.limit.max(size);
        self.too_big = self.too_big.max(self.limit + 1);
    }

    fn confirm(&mut self, now: Instant) {
        self.phase = Phase::Confirming {
            since: now,
            small: 0,
        };
        self.tries = 0;
        self.due = Some(now);
    }

    /// Looks for more than the limit: what is expected first, then the most there can be, then halves.
    fn search(&mut self, now: Instant) {
        self.tries = 0;
        let open = |size: &usize| (self.limit + 1..self.too_big).contains(size);
        let half = || (self.too_big - self.limit > STEP).then(|| (self.limit + self.too_big) / 2);
        let candidate = [self.base, self.ceiling]
            .into_iter()
            .find(open)
            .or_else(half);
        match candidate {
            Some(candidate) => {
                self.phase = Phase::Searching { candidate };
                self.due = Some(now);
            }
            None => {
                self.phase = Phase::Settled;
                self.due = None;
                self.raise_at.get_or_insert(now + RAISE_AFTER);
            }
        }
    }

    fn wait(&self) -> Duration {
        let wait = self.round_trip.map_or(WAIT[0], |round_trip| {
            (round_trip * 3).clamp(WAIT[0], WAIT[1])
        });
        if self.phase != Phase::Seeking {
            return wait;
        }
        (wait * (1 << (self.tries / 3).min(10))).min(MAX_BACKOFF)
    }
}

#[cfg(test)]
mod tests;
