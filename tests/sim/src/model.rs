//! What the workload must see, whatever breaks: stated without a word of how it is done.
//!
//! - Every packet arrives intact at the service it was for, and so does its answer; by each link at most once. What nobody
//!   answered on one link may be sent again on the one that takes its place ([`Reference`](crate::Reference) sees to all that).
//! - A packet is *due* when a way has stood for [`HEAL`], and nothing was taken from it since; after a single loss, when all
//!   was well before and is calm, already after what that may take ([`Harm`]). What is due is answered within [`ANSWER`]; through a rough network, which breaks paths by itself, at least one in each [`ROUGH_STALL`].
//! - Where discovery is away, what works goes on; what broke meanwhile is due only once discovery is back.
//! - What is added (a relay, an activator, a cable) disturbs nothing, nor does a relay that drains beside another one, neither at the
//!   beginning nor at the end.
//! - Where there is no way, nothing arrives.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Within so long everything works again that can.
pub(crate) const HEAL: Duration = Duration::from_secs(15);
/// The longest round trip of what is due.
pub(crate) const ANSWER: Duration = Duration::from_secs(2);
/// The longest time in which nothing is answered, in the roughest network.
const ROUGH_STALL: Duration = Duration::from_secs(12);
/// What was on its way when the last way went arrives within this.
const ON_ITS_WAY: Duration = Duration::from_secs(3);

/// What there is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truth {
    /// There is a way between the sidecar and an activator, for whoever comes now.
    pub(crate) way: bool,
    /// There may be one, if only for those who have it.
    pub(crate) old_way: bool,
    /// Discovery is there.
    pub(crate) discovery: bool,
    /// The network loses packets.
    pub(crate) lossy: bool,
}

/// What an event took away that may have been in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Nothing.
    None,
    /// One thing; when all was well before, what can be works again within this.
    One(Duration),
    /// Perhaps everything.
    All,
}

#[derive(Debug)]
struct Expected {
    number: u64,
    sent: Instant,
    lossy: bool,
}

#[derive(Debug)]
pub(crate) struct Model {
    truth: Truth,
    /// From when on all works that can. `None`: something was taken away while discovery was away.
    whole_from: Option<Instant>,
    no_way_since: Option<Instant>,
    expected: VecDeque<Expected>,
    /// The first of those that were not answered one after the other.
    unanswered_since: Option<Instant>,
    /// How many packets were due.
    pub(crate) due: u64,
}

impl Model {
    pub(crate) fn new(truth: Truth, now: Instant) -> Self {
        Self {
            truth,
            whole_from: Some(now + HEAL),
            no_way_since: None,
            expected: VecDeque::new(),
            unanswered_since: None,
            due: 0,
        }
    }

    /// Something happened.
    pub(crate) fn on_event(&mut self, truth: Truth, harm: Harm, now: Instant) {
        let before = std::mem::replace(&mut self.truth, truth);
        let healed = self.is_due(before, now);
        let came = truth.way && !before.way;
        let back = truth.discovery && !before.discovery;
        let left = !truth.discovery && before.discovery;
        let harmed = harm != Harm::None;
        if harmed || came || (left && !healed) || (back && self.whole_from.is_none()) {
            let heal = match harm {
                Harm::One(heal) if healed && !truth.lossy && !came => heal,
                _ => HEAL,
            };
            self.whole_from = truth.discovery.then_some(now + heal);
            self.expected.clear();
            self.unanswered_since = None;
        }
        if !truth.way {
            self.expected.clear();
        }
        self.no_way_since = match truth.old_way {
            true => None,
            false => self.no_way_since.or(Some(now)),
        };
    }

    /// Whether all works that can.
    pub(crate) fn is_well(&self, now: Instant) -> bool {
        self.is_due(self.truth, now)
    }

    fn is_due(&self, truth: Truth, now: Instant) -> bool {
        truth.way && self.whole_from.is_some_and(|from| from <= now)
    }

    /// A packet was sent.
    pub(crate) fn on_sent(&mut self, number: u64, now: Instant) {
        if self.is_due(self.truth, now) {
            self.due += 1;
            self.expected.push_back(Expected {
                number,
                sent: now,
                lossy: self.truth.lossy,
            });
        }
    }

    /// Whether all is as it must be by now; otherwise what is not.
    pub(crate) fn check(
        &mut self,
        is_answered: impl Fn(u64) -> bool,
        last_arrival: Option<Instant>,
        now: Instant,
    ) -> Result<(), String> {
        while let Some(expected) = self.expected.front()
            && expected.sent + ANSWER <= now
        {
            let Some(expected) = self.expected.pop_front() else {
                break;
            };
            let Expected {
                number,
                sent,
                lossy,
            } = expected;
            if is_answered(number) {
                self.unanswered_since = None;
                continue;
            }
            if !lossy && !self.truth.lossy {
                return Err(format!("packet {number} was due and is not answered"));
            }
            if sent - *self.unanswered_since.get_or_insert(sent) >= ROUGH_STALL {
                return Err(format!("nothing was answered up to packet {number}"));
            }
        }
        match (self.no_way_since, last_arrival) {
            (Some(since), Some(last)) if last > since + ON_ITS_WAY => {
                Err("something arrived where there is no way".to_owned())
            }
            _ => Ok(()),
        }
    }
}
