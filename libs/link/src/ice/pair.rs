//! Candidate pairs: priorities, and one check each with its repetitions.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun_types::message::TransactionId;

use crate::candidate::CandidateKind;

/// First repetition of a check; each further one waits twice as long, up to `MAX_INTERVAL`. RFC 8445 §14.3 asks for
/// 500 ms; a check is 100 bytes, and a path that loses one should not cost the opening half a second.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_millis(800);
/// After about 5 s without an answer a pair is given up; sooner when it was before.
const MAX_ATTEMPTS: u32 = 9;
const MAX_ATTEMPTS_AGAIN: u32 = 4;
/// A pair that failed is tried again after this, while the link is used; each time twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const MAX_RETRY: Duration = Duration::from_secs(60);
/// Another relay is not worth a change for less than this, and a quarter.
const CLEARLY: Duration = Duration::from_millis(5);

/// [RFC 8445 §5.1.2.2](https://www.rfc-editor.org/rfc/rfc8445#section-5.1.2.2)
const HOST: u32 = 126;
const PEER_REFLEXIVE: u32 = 110;
const SERVER_REFLEXIVE: u32 = 100;
const RELAYED: u32 = 0;
/// What a relayed address is to a peer that was not told of it: by this it knows that there is a relay between.
const RELAYED_REFLEXIVE: u32 = 1;

/// The priority of a candidate. [RFC 8445 §5.1.2.1]
///
/// [RFC 8445 §5.1.2.1]: https://www.rfc-editor.org/rfc/rfc8445#section-5.1.2.1
pub(crate) const fn candidate_priority(kind: CandidateKind, address: IpAddr) -> u32 {
    let preference = match kind {
        CandidateKind::Host => HOST,
        CandidateKind::ServerReflexive => SERVER_REFLEXIVE,
        CandidateKind::Relayed => RELAYED,
    };
    priority(preference, address)
}

/// Whether a peer-reflexive candidate with this priority is an address of a relay.
pub(super) const fn is_relayed(priority: u32) -> bool {
    priority >> 24 <= RELAYED_REFLEXIVE
}

/// IPv4 before IPv6: its headers leave a tunnel 20 bytes more in each packet.
const fn priority(type_preference: u32, address: IpAddr) -> u32 {
    let local_preference = if address.is_ipv4() { 65_535 } else { 65_534 };
    (type_preference << 24) | (local_preference << 8) | 255
}

/// What we send from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) kind: CandidateKind,
    pub(super) address: SocketAddr,
}

/// Where the peer can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) address: SocketAddr,
    pub(super) priority: u32,
    pub(super) relayed: bool,
}

impl Remote {
    /// Given by a NAT, which gives another as often as it likes; a host's and a relay's stay.
    pub(super) const fn is_reflexive(&self) -> bool {
        let preference = self.priority >> 24;
        RELAYED_REFLEXIVE < preference && preference < HOST
    }
}

/// A way between a base of ours and an address of the peer's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) base: SocketAddr,
    pub(super) remote: SocketAddr,
    /// [RFC 8445 §6.1.2.3](https://www.rfc-editor.org/rfc/rfc8445#section-6.1.2.3)
    pub(super) priority: u64,
    /// What our base would be to a peer that does not know it.
    pub(super) reflexive_priority: u32,
    pub(super) relayed: bool,
    /// Over an allocation of this end.
    pub(super) own_relay: bool,
    /// An address of it will soon be gone.
    pub(super) leaving: bool,
    pub(super) state: PairState,
    /// The controlling end wants it used.
    pub(super) nominated: bool,
    /// When something authentic last came in on it.
    pub(super) heard: Option<Instant>,
    /// As the last check found it that was answered at once.
    pub(super) rtt: Option<Duration>,
    check: Option<Transaction>,
    /// What the last check was and when it went out, if only once: its answer tells the round trip.
    measured: Option<(TransactionId, Instant)>,
    /// How often it failed since it was last valid, and when it did.
    failures: u32,
    failed: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairState {
    /// No check of ours before one of the peer's.
    Waiting,
    /// No answer to a check yet.
    Checking,
    /// A check was answered.
    Valid,
    /// Checks were not answered.
    Failed,
}

/// A check under way.
#[derive(Clone, Copy, Debug)]
struct Transaction {
    id: TransactionId,
    attempts: u32,
    due: Instant,
}

impl Pair {
    pub(super) fn new(base: &Base, remote: &Remote, controlling: bool) -> Self {
        let ours = u64::from(candidate_priority(base.kind, base.address.ip()));
        let theirs = u64::from(remote.priority);
        let (g, d) = if controlling {
            (ours, theirs)
        } else {
            (theirs, ours)
        };
        Self {
            base: base.address,
            remote: remote.address,
            priority: (g.min(d) << 32) + 2 * g.max(d) + u64::from(g > d),
            reflexive_priority: priority(
                match base.kind {
                    CandidateKind::Relayed => RELAYED_REFLEXIVE,
                    _ => PEER_REFLEXIVE,
                },
                base.address.ip(),
            ),
            relayed: remote.relayed || base.kind == CandidateKind::Relayed,
            own_relay: base.kind == CandidateKind::Relayed,
            leaving: false,
            state: PairState::Checking,
            nominated: false,
            heard: None,
            rtt: None,
            check: None,
            measured: None,
            failures: 0,
            failed: None,
        }
    }

    pub(super) fn is_valid(&self) -> bool {
        self.state == PairState::Valid
    }

    /// Whether the peer showed on this pair that it knows our password.
    pub(super) const fn is_trusted(&self) -> bool {
        self.heard.is_some()
    }

    /// Begins a check under `id`, or repeats the one under way at once; the id to send it with.
    pub(super) fn check_now(&mut self, id: TransactionId, now: Instant) -> TransactionId {
        let check = self.check.get_or_insert(Transaction {
            id,
            attempts: 0,
            due: now,
        });
        check.attempts += 1;
        self.measured = (check.attempts == 1).then_some((check.id, now));
        let wait = FIRST_INTERVAL * 2_u32.pow(check.attempts.min(8) - 1);
        check.due = now + wait.min(MAX_INTERVAL);
        check.id
    }

    /// When a check has to be sent, for the first time or again.
    pub(super) fn check_due(&self, now: Instant) -> Option<Instant> {
        match (self.state, self.check) {
            (PairState::Checking, None) => Some(now),
            (PairState::Checking | PairState::Valid, Some(check)) => Some(check.due),
            _ => None,
        }
    }

    /// Gives a pair up whose checks go unanswered; says whether it just was.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        let fresh = self.state == PairState::Checking && self.failures == 0;
        let most = if fresh {
            MAX_ATTEMPTS
        } else {
            MAX_ATTEMPTS_AGAIN
        };
        let exhausted = self.attempts() >= most;
        if exhausted {
            self.fail(now);
        }
        exhausted
    }

    /// Whether it is better for the end that chooses: there for longer, without a relay, without one on its own side, or
    /// clearly quicker.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.burden(), other.burden());
        ours < theirs || ours == theirs && self.relayed && self.is_quicker_than(other)
    }

    /// What a path costs beside its round trip: that it soon ends, a relay, and one more.
    pub(super) const fn burden(&self) -> (bool, bool, bool) {
        (self.leaving, self.relayed, self.own_relay)
    }

    /// Whether its round trip is clearly shorter.
    fn is_quicker_than(&self, other: &Self) -> bool {
        match (self.rtt, other.rtt) {
            (Some(ours), Some(theirs)) => ours + CLEARLY.max(ours / 4) < theirs,
            _ => false,
        }
    }

    /// Failed, and may be tried again when there is a use for it.
    pub(super) fn may_retry(&self, now: Instant) -> bool {
        let wait = FIRST_RETRY * 2_u32.pow(self.failures.clamp(1, 8) - 1);
        self.state == PairState::Failed
            && self
                .failed
                .is_none_or(|failed| now.saturating_duration_since(failed) >= wait.min(MAX_RETRY))
    }

    pub(super) const fn path(&self) -> (SocketAddr, SocketAddr) {
        (self.base, self.remote)
    }

    pub(super) fn is_checking(&self, id: TransactionId) -> bool {
        self.check.is_some_and(|check| check.id == id)
    }

    /// How often the check under way was sent.
    pub(super) fn attempts(&self) -> u32 {
        self.check.map_or(0, |check| check.attempts)
    }

    /// Something authentic came in: checks that are under way to find out whether it would are over.
    pub(super) fn on_heard(&mut self, now: Instant) {
        self.heard = Some(now);
        if self.is_valid() {
            self.check = None;
        }
    }

    /// An answer came in; whether it was to the last check. One that comes after other signs of life still is.
    pub(super) fn on_success(&mut self, id: TransactionId, now: Instant) -> bool {
        let measured = self.measured.take_if(|(measured, _)| *measured == id);
        if measured.is_none() && !self.is_checking(id) {
            return false;
        }
        if let Some((_, begun)) = measured {
            self.rtt = Some(now.saturating_duration_since(begun));
        }
        self.state = PairState::Valid;
        self.failures = 0;
        self.on_heard(now);
        true
    }

    /// The peer just sent a check on it: ours begin, or begin again.
    pub(super) fn start(&mut self) {
        if self.state == PairState::Waiting {
            self.state = PairState::Checking;
        }
        self.revive();
    }

    /// Starts over with a pair that failed and is needed.
    pub(super) fn revive(&mut self) {
        if self.state == PairState::Failed {
            self.state = PairState::Checking;
        }
    }

    /// Nobody answers any more.
    pub(super) fn fail(&mut self, now: Instant) {
        self.state = PairState::Failed;
        self.check = None;
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(now);
    }

    /// Forgets the check under way: its transaction must not be taken up again.
    pub(super) fn restart_check(&mut self) {
        self.check = None;
    }
}
