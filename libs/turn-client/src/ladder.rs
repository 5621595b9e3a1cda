//! Which way to a relay is used: UDP, else TCP, else TLS.
//!
//! ```text
//!   open -> asking (Binding) -> ready -> in use -> lingering -> closed
//! ```
//!
//! The allocation begins on the first rung at once. Whenever the relay leaves something unanswered for longer than it
//! used to, the other rungs are tried, one after the other a moment later (as RFC 8305 has it for addresses), and the
//! first that answers is used. While a rung is used that is not the first, those above it are tried now and then, and
//! the allocation climbs when one answers. A rung that was left is still read for a moment.
//!
//! It decides and the shell does: sockets, streams, and [`Allocation::move_to`](crate::Allocation::move_to).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use stun_types::message::{BINDING, MessageClass, TransactionId};
use wire::stun::Message;
use wire::stun::write::Writer;

use crate::random::Random;

/// How long the relay may leave something unanswered, as long as its round trip is not known. Between two rungs, too.
const PATIENCE: Duration = Duration::from_millis(300);
/// The same for a known round trip: three of it within these bounds.
const MIN_PATIENCE: Duration = Duration::from_millis(100);
const MAX_PATIENCE: Duration = Duration::from_secs(1);
/// A rung has to be there by then: a connection, a handshake, an answer.
const OPENING: Duration = Duration::from_secs(5);
/// Between two Binding requests on one rung.
const ASK_AGAIN: Duration = Duration::from_millis(400);
const MAX_ASKED: u32 = 4;
/// Between two attempts at a rung, doubling.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// The same while the present rung is of no use: whatever may be the only way is tried again soon.
const IN_NEED: Duration = Duration::from_secs(2);
/// A rung that was used for so long is a good one.
const PROVEN: Duration = Duration::from_secs(30);
/// What the relay sent before it knew of a move is still read for so long.
const LINGER: Duration = Duration::from_secs(2);

/// A rung, by its place: 0 is preferred.
pub type Rung = usize;

/// What the shell has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Open a socket or begin a connection, then [`Ladder::handle_open`] or [`Ladder::handle_failed`].
    Open(Rung),
    /// Send this message there.
    Send(Rung, Vec<u8>),
    /// Take the allocation there, then [`Ladder::handle_moved`] or [`Ladder::handle_not_moved`].
    Move {
        /// Where.
        to: Rung,
        /// Nothing is to be expected of the present rung.
        dead: bool,
    },
    /// Close it; it may be closed already.
    Close(Rung),
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Opening {
        until: Instant,
    },
    Asking {
        id: TransactionId,
        times: u32,
        again: Instant,
    },
    Ready,
    InUse {
        since: Instant,
    },
    Lingering {
        until: Instant,
    },
}

#[derive(Debug)]
struct Standing {
    state: State,
    /// Not tried before, unless there is need.
    again: Instant,
    backoff: Duration,
    /// Not tried before even then.
    in_need: Instant,
}

/// The rungs of one relay. See the module's documentation.
#[derive(Debug)]
pub struct Ladder {
    rungs: Vec<Standing>,
    current: Rung,
    /// The present one is closed since.
    broken: Option<Instant>,
    moving: Option<Rung>,
    random: Random,
    steps: VecDeque<Step>,
}

impl Ladder {
    /// A ladder of so many rungs, at least one, which stands on the first. That one the shell has opened already.
    pub fn new(rungs: usize, seed: u64, now: Instant) -> Self {
        let closed = || Standing {
            state: State::Closed,
            again: now,
            backoff: MIN_BACKOFF,
            in_need: now,
        };
        let mut rungs: Vec<Standing> = (0..rungs.max(1)).map(|_| closed()).collect();
        rungs[0].state = State::InUse { since: now };
        Self {
            rungs,
            current: 0,
            broken: None,
            moving: None,
            random: Random::new(seed),
            steps: VecDeque::new(),
        }
    }

    /// The rung in use.
    pub fn current(&self) -> Rung {
        self.current
    }

    /// The rung that the allocation is on its way to.
    pub fn moving_to(&self) -> Option<Rung> {
        self.moving
    }

    /// What to do next.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// A rung can be sent on.
    pub fn handle_open(&mut self, rung: Rung, now: Instant) {
        if matches!(self.state(rung), Some(State::Opening { .. })) {
            self.ask(rung, 1, now);
        }
    }

    /// A rung cannot be opened, or has closed.
    pub fn handle_failed(&mut self, rung: Rung, now: Instant) {
        if rung == self.current && self.broken.is_none() {
            self.broken = Some(now);
        }
        self.close(rung, now);
    }

    /// A message from a rung. `true`: it was an answer to the ladder's question, and nothing for the allocation.
    pub fn handle_message(&mut self, rung: Rung, message: &[u8]) -> bool {
        let Some(State::Asking { id, .. }) = self.state(rung) else {
            return false;
        };
        let answer = Message::decode(message).ok().filter(|message| {
            let class = message.class();
            matches!(class, MessageClass::Success | MessageClass::Error)
                && message.transaction_id() == id
        });
        if answer.is_some() {
            self.rungs[rung].state = State::Ready;
        }
        answer.is_some()
    }

    /// The allocation is there now.
    pub fn handle_moved(&mut self, now: Instant) {
        let Some(to) = self.moving.take() else { return };
        if to != self.current {
            let broken = self.broken.is_some();
            self.leave(self.current, broken, now);
        }
        self.broken = None;
        self.current = to;
        self.rungs[to].state = State::InUse { since: now };
    }

    /// The allocation stays where it was.
    pub fn handle_not_moved(&mut self, now: Instant) {
        if let Some(to) = self.moving.take() {
            self.close(to, now);
        }
    }

    /// When [`Self::handle_timeout`] has something to do. `unanswered_since` and `rtt` are the allocation's.
    pub fn poll_timeout(
        &self,
        unanswered_since: Option<Instant>,
        rtt: Option<Duration>,
    ) -> Option<Instant> {
        let trouble = self.trouble(unanswered_since, rtt);
        let mut tried = 0;
        let due = self
            .rungs
            .iter()
            .enumerate()
            .filter_map(|(rung, held)| match held.state {
                State::Opening { until } | State::Lingering { until } => Some(until),
                State::Asking { again, .. } => Some(again),
                State::Ready | State::InUse { .. } => None,
                State::Closed => {
                    let climb = (rung < self.current).then_some(held.again);
                    let need = trouble.map(|since| self.need(since, &mut tried).max(held.in_need));
                    climb.into_iter().chain(need).min()
                }
            });
        let due = due.min();
        // A rung that is ready is used as soon as it may be.
        let ready = self.moving.is_none() && self.rungs.iter().any(Standing::is_ready);
        due.into_iter().chain(trouble.filter(|_| ready)).min()
    }

    /// Tries, climbs, falls back.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        unanswered_since: Option<Instant>,
        rtt: Option<Duration>,
    ) {
        let trouble = self
            .trouble(unanswered_since, rtt)
            .filter(|since| *since <= now);
        let mut tried = 0;
        for rung in 0..self.rungs.len() {
            match self.rungs[rung].state {
                State::Opening { until } if until <= now => self.close(rung, now),
                State::Lingering { until } if until <= now => {
                    self.rungs[rung].state = State::Closed;
                    self.steps.push_back(Step::Close(rung));
                }
                State::Asking { times, again, .. } if again <= now => {
                    if times < MAX_ASKED {
                        self.ask(rung, times + 1, now);
                    } else {
                        self.close(rung, now);
                    }
                }
                State::Closed => {
                    let needed = trouble.is_some_and(|since| self.need(since, &mut tried) <= now);
                    let held = &self.rungs[rung];
                    let climbs = rung < self.current && held.again <= now;
                    if climbs || needed && held.in_need <= now {
                        let until = now + OPENING;
                        self.rungs[rung].state = State::Opening { until };
                        self.steps.push_back(Step::Open(rung));
                    }
                }
                _ => {}
            }
        }
        if self.moving.is_some() {
            return;
        }
        let Some(best) = self.rungs.iter().position(Standing::is_ready) else {
            return;
        };
        if trouble.is_some() || best < self.current {
            self.moving = Some(best);
            self.steps.push_back(Step::Move {
                to: best,
                dead: trouble.is_some(),
            });
        } else {
            // It was not needed after all.
            self.rungs[best].state = State::Closed;
            self.steps.push_back(Step::Close(best));
        }
    }

    /// Since when, or from when on, the present rung counts as dead.
    fn trouble(&self, unanswered_since: Option<Instant>, rtt: Option<Duration>) -> Option<Instant> {
        let patience = rtt.map_or(PATIENCE, |rtt| (3 * rtt).clamp(MIN_PATIENCE, MAX_PATIENCE));
        let silent = unanswered_since.map(|since| since + patience);
        self.broken.into_iter().chain(silent).min()
    }

    /// When the next rung is to be tried: each a moment after the one before.
    fn need(&self, trouble: Instant, tried: &mut u32) -> Instant {
        *tried += 1;
        trouble + PATIENCE * (*tried - 1)
    }

    fn ask(&mut self, rung: Rung, times: u32, now: Instant) {
        let id = match self.rungs[rung].state {
            State::Asking { id, .. } => id,
            _ => self.random.transaction_id(),
        };
        let mut message = Vec::with_capacity(32);
        Writer::new(&mut message, MessageClass::Request, BINDING, id).finish();
        let again = now + ASK_AGAIN;
        self.rungs[rung].state = State::Asking { id, times, again };
        self.steps.push_back(Step::Send(rung, message));
    }

    /// It did not work, or does not any more.
    fn close(&mut self, rung: Rung, now: Instant) {
        self.leave(rung, true, now);
        if self.moving == Some(rung) {
            // The allocation will say that it stays.
            self.moving = None;
        }
    }

    fn leave(&mut self, rung: Rung, closed: bool, now: Instant) {
        let Some(held) = self.rungs.get_mut(rung) else {
            return;
        };
        if let State::InUse { since } = held.state
            && now.saturating_duration_since(since) >= PROVEN
        {
            held.backoff = MIN_BACKOFF;
        }
        held.again = now + held.backoff;
        held.in_need = now + held.backoff.min(IN_NEED);
        held.backoff = (2 * held.backoff).min(MAX_BACKOFF);
        if closed {
            held.state = State::Closed;
            self.steps.push_back(Step::Close(rung));
        } else {
            let until = now + LINGER;
            held.state = State::Lingering { until };
        }
    }

    fn state(&self, rung: Rung) -> Option<State> {
        self.rungs.get(rung).map(|held| held.state)
    }
}

impl Standing {
    const fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready)
    }
}
