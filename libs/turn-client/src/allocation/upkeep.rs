//! What happens by itself: repetitions, refreshes, the probe for silence, the next attempt.

use std::time::{Duration, Instant};

use super::{Allocation, Phase};
use crate::output::{Event, LostReason};
use crate::timer::Due;
use crate::transaction::{Overdue, Request};

/// Nothing came for so long: ask. Also keeps the NAT's binding open.
const SILENCE: Duration = Duration::from_secs(2);
/// Between two questions.
const PROBE_INTERVAL: Duration = Duration::from_millis(700);
/// The same when something was sent since it was last heard: whether the relay lives shows within 1.2 s.
const USED_SILENCE: Duration = Duration::from_millis(300);
/// See [`USED_SILENCE`].
const USED_PROBE_INTERVAL: Duration = Duration::from_millis(300);
/// So many without an answer, and the relay is gone.
const MAX_PROBES: u32 = 3;
/// Between two attempts at a relay that does not answer, and up to 500 ms more.
const SILENT_PAUSE: Duration = Duration::from_millis(500);
/// Between two reminders that a credential is needed.
pub(super) const SAY_AGAIN: Duration = Duration::from_secs(5);

impl Allocation {
    /// When [`Self::handle_timeout`] wants to be called; perhaps too early, never too late.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Closed => return None,
            Phase::Attempting => None,
            Phase::Waiting { until } => Some(until),
            Phase::NeedCredential { say_again } => Some(say_again),
            Phase::Active => {
                let grant = self.grant.as_ref();
                let expires = grant.map(|grant| grant.expires);
                let stays = self.moving.is_none();
                let refresh = grant.map(|grant| grant.refresh).filter(|_| stays);
                let probe = stays.then(|| self.probe_due());
                [expires, refresh, probe, self.wants_credential]
                    .into_iter()
                    .flatten()
                    .min()
            }
        };
        [own, self.timers.next()].into_iter().flatten().min()
    }

    fn probe_due(&self) -> Instant {
        let (silence, interval) = self.pace();
        self.liveness.quiet_since + silence + interval * self.liveness.probes
    }

    const fn pace(&self) -> (Duration, Duration) {
        if self.liveness.used {
            (USED_SILENCE, USED_PROBE_INTERVAL)
        } else {
            (SILENCE, PROBE_INTERVAL)
        }
    }

    /// Since when the relay has been asked something and nothing came from it.
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.liveness.asked
    }

    /// How long the relay took for its last answer on the present way.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Closed => return,
            Phase::Waiting { until } if until <= now => self.attempt(now),
            Phase::NeedCredential { say_again } if say_again <= now => {
                self.phase = Phase::NeedCredential {
                    say_again: now + SAY_AGAIN,
                };
                self.events.push_back(Event::NeedCredential);
            }
            Phase::Active => self.keep(now),
            _ => {}
        }
        while let Some((at, due)) = self.timers.pop(now) {
            self.on_due(at, due, now);
        }
    }

    fn keep(&mut self, now: Instant) {
        let Some(grant) = &mut self.grant else { return };
        if grant.expires <= now {
            return self.lose(LostReason::Expired, now);
        }
        // While it moves, an answer might come to where it no longer is.
        let refresh = grant.refresh <= now && self.moving.is_none();
        if refresh {
            // If this one fails, the next is soon enough; half of the lifetime is left.
            grant.refresh = now + Duration::from_secs(10);
        }
        if self.moving.is_none() && self.probe_due() <= now {
            if self.liveness.probes >= MAX_PROBES {
                return self.lose(LostReason::Silent, now);
            }
            self.liveness.probes += 1;
            // The next one not before the interval is over, also after the process slept through several.
            let (silence, interval) = self.pace();
            let asked = silence + interval * (self.liveness.probes - 1);
            if let Some(since) = now.checked_sub(asked) {
                self.liveness.quiet_since = self.liveness.quiet_since.max(since);
            }
            self.send(Request::Probe, 0, now);
        } else if refresh {
            self.send(Request::Refresh, 0, now);
        }
        if self.wants_credential.is_some_and(|at| at <= now) {
            self.wants_credential = Some(now + SAY_AGAIN);
            self.events.push_back(Event::NeedCredential);
        }
    }

    fn on_due(&mut self, at: Instant, due: Due, now: Instant) {
        match due {
            Due::Transaction(id) => match self.transactions.on_due(id, at) {
                Some(Overdue::SendAgain(request, bytes, next)) => {
                    self.stats.retransmissions += 1;
                    self.queue(request, bytes);
                    self.timers.set(next, due);
                }
                Some(Overdue::GiveUp(request)) => self.on_no_answer(request, now),
                None => {}
            },
            Due::Permission(ip) => {
                if self.peers.permission_is_due(ip, at) {
                    self.send(Request::Permission(ip), 0, now);
                }
            }
            Due::Channel(index) => {
                if let Some(peer) = self.peers.channel_is_due(index, at) {
                    self.bind(index, peer, now);
                }
            }
        }
    }

    fn on_no_answer(&mut self, request: Request, now: Instant) {
        match request {
            Request::Allocate | Request::Resume | Request::Delete => {
                self.say_lost(LostReason::Silent);
                self.wait(now, SILENT_PAUSE);
            }
            Request::Fence => self.ask_to_move(now),
            Request::Move => self.on_not_moved(now),
            _ => self.retry_later(request, now, Duration::from_secs(1)),
        }
    }

    /// Requests that wait for an answer; for tests and for the status.
    pub fn requests_waiting(&self) -> usize {
        self.transactions.len()
    }
}
