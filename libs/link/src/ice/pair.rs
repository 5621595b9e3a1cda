//! Candidate pairs: priorities, and one check each with its repetitions.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use stun_types::message::TransactionId;

use crate::candidate::CandidateKind;

/// First repetition of a check; each further one waits twice as long, up to `MAX_INTERVAL`. RFC 8445 §14.3 asks for
/// 500 ms; a check is 100 bytes, and a path that loses one should not cost the opening half a second.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
const MAX_INTERVAL: Duration = Duration::from_millis(800);
/// After about 5 s without an answer a pair is given up.
const MAX_ATTEMPTS: u32 = 9;

/// [RFC 8445 §5.1.2.2](https://www.rfc-editor.org/rfc/rfc8445#section-5.1.2.2)
const HOST: u32 = 126;
const PEER_REFLEXIVE: u32 = 110;
const SERVER_REFLEXIVE: u32 = 100;
const RELAYED: u32 = 0;

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
    pub(super) state: PairState,
    /// The controlling end wants it used.
    pub(super) nominated: bool,
    /// When something authentic last came in on it.
    pub(super) heard: Option<Instant>,
    /// As the last check found it that was answered at once.
    pub(super) rtt: Option<Duration>,
    check: Option<Transaction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PairState {
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
    begun: Instant,
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
            reflexive_priority: priority(PEER_REFLEXIVE, base.address.ip()),
            relayed: remote.relayed || base.kind == CandidateKind::Relayed,
            state: PairState::Checking,
            nominated: false,
            heard: None,
            rtt: None,
            check: None,
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
            begun: now,
            attempts: 0,
            due: now,
        });
        check.attempts += 1;
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
    pub(super) fn give_up(&mut self) -> bool {
        let exhausted = self.state == PairState::Checking
            && self
                .check
                .is_some_and(|check| check.attempts >= MAX_ATTEMPTS);
        if exhausted {
            self.state = PairState::Failed;
            self.check = None;
        }
        exhausted
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

    /// An answer came in; whether it was to the check under way.
    pub(super) fn on_success(&mut self, id: TransactionId, now: Instant) -> bool {
        let Some(check) = self.check.filter(|check| check.id == id) else {
            return false;
        };
        if check.attempts == 1 {
            self.rtt = Some(now.saturating_duration_since(check.begun));
        }
        self.state = PairState::Valid;
        self.on_heard(now);
        true
    }

    /// Starts over with a pair that failed: the peer just sent a check on it.
    pub(super) fn revive(&mut self) {
        if self.state == PairState::Failed {
            self.state = PairState::Checking;
        }
    }

    /// Nobody answers any more.
    pub(super) fn fail(&mut self) {
        self.state = PairState::Failed;
        self.check = None;
    }

    /// Forgets the check under way: its transaction must not be taken up again.
    pub(super) fn restart_check(&mut self) {
        self.check = None;
    }
}
