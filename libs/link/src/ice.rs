//! Finding a path and keeping it: an ICE agent for one component. [RFC 8445](https://www.rfc-editor.org/rfc/rfc8445)
//!
//! Checks go out on all pairs at once (a burst of [`BURST`], then one each [`PACE`]) and, from the controlling end,
//! nominate: the first answered check selects its pair, one round trip after the descriptions are known. A pair that
//! needs no relay takes over from one that does, one without a relay of the offerer's own from one with, and of two
//! relays the clearly quicker one; any takes over from one whose address will soon be gone ([`leaving`]). What was selected is
//! watched
//! ([`liveness`]): what is sent and not answered leads to a check within moments, and soon after to another pair
//! ([`choice`]); a link that is not used costs one check in [`LinkConfig::keepalive`].
//!
//! Done: RFC 8445 as a full agent, peer-reflexive candidates, triggered checks, role conflicts, consent by checks and
//! by authentic traffic ([RFC 7675](https://www.rfc-editor.org/rfc/rfc7675)). Not done: restarts, several components,
//! freezing (there is one check list with one component: nothing to freeze).

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use protocol::document::SessionDescription;
use stun_types::message::TransactionId;

mod choice;
mod leaving;
mod liveness;
mod message;
mod pair;
mod remotes;
#[cfg(test)]
mod tests;

use crate::candidate::{CandidateKind, LocalCandidate, Reach, reach};
use crate::certificate::DtlsCertificate;
use crate::config::{LinkConfig, LinkRole, MAX_LOCAL_CANDIDATES, PathChoice};
use crate::output::{LinkError, PairOutcome, PairStatus, Path, Transmit};
use crate::stun::{random, random_id};
use liveness::Liveness;
use message::{Check, Credentials, Incoming};
pub(crate) use pair::candidate_priority;
use pair::{Base, Pair, PairState, Remote};

/// Checks that may go out at once, and how often one more after that.
/// [RFC 8445 §14.2](https://www.rfc-editor.org/rfc/rfc8445#section-14.2)
const BURST: u32 = 8;
const PACE: Duration = Duration::from_millis(5);
/// Pairs of one link. [RFC 8445 §6.1.2.5](https://www.rfc-editor.org/rfc/rfc8445#section-6.1.2.5)
const MAX_PAIRS: usize = 64;
/// Addresses that an offer can make the answerer send checks to from its host sockets, before anybody there showed that
/// it wants them; only such that mean the same to everybody. What else an offer names is checked when the first check
/// came from there, or from a relayed address, where the relay decides who may be reached.
const MAX_PUNCHED: usize = 8;
/// Bounds of credentials. [RFC 8839 §5.4](https://www.rfc-editor.org/rfc/rfc8839#section-5.4)
const UFRAG_LEN: std::ops::RangeInclusive<usize> = 4..=256;
const PWD_LEN: std::ops::RangeInclusive<usize> = 22..=256;

pub(crate) enum IceEvent {
    /// The peer's checks come in this way: its answer to ours will too, most likely. Only before any is selected.
    Promising {
        local: SocketAddr,
        remote: SocketAddr,
    },
    Selected {
        local: SocketAddr,
        remote: SocketAddr,
        path: Path,
    },
    /// Nothing answers, on no pair; it is looked for one that does.
    Silent,
    Failed,
}

pub(crate) struct Ice {
    role: LinkRole,
    controlling: bool,
    tie_breaker: u64,
    local: Credentials,
    /// There once checks have begun.
    remote: Option<Credentials>,
    locals: Vec<LocalCandidate>,
    bases: Vec<Base>,
    remotes: Vec<Remote>,
    /// What the peer said of itself, for those who have to let it through.
    described: Vec<Remote>,
    /// By priority, the highest first.
    pairs: Vec<Pair>,
    selected: Option<(SocketAddr, SocketAddr)>,
    leaving: Vec<leaving::Leaving>,
    liveness: Liveness,
    /// Used: when the pairs that are not are looked after.
    upkeep_at: Option<Instant>,
    /// Without a pair: until when one is looked for.
    give_up_at: Option<Instant>,
    check_timeout: Duration,
    choice: PathChoice,
    /// Checks that may be sent now, and since when that is counted.
    budget: (u32, Instant),
    certificate: Arc<DtlsCertificate>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<IceEvent>,
    over: bool,
}

impl Ice {
    pub(crate) fn new(
        role: LinkRole,
        certificate: &Arc<DtlsCertificate>,
        config: &LinkConfig,
        now: Instant,
    ) -> Result<Self, LinkError> {
        let controlling = role == LinkRole::Offerer;
        Ok(Self {
            role,
            controlling,
            tie_breaker: u64::from_be_bytes(random(certificate)?),
            local: Credentials {
                ufrag: text(&random::<8>(certificate)?),
                pwd: text(&random::<24>(certificate)?),
            },
            remote: None,
            locals: Vec::new(),
            bases: Vec::new(),
            remotes: Vec::new(),
            described: Vec::new(),
            pairs: Vec::new(),
            selected: None,
            leaving: Vec::new(),
            liveness: Liveness::new(config, now),
            upkeep_at: None,
            give_up_at: None,
            check_timeout: config.check_timeout,
            choice: config.path,
            budget: (BURST, now),
            certificate: Arc::clone(certificate),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            over: false,
        })
    }

    pub(crate) fn ufrag(&self) -> &str {
        &self.local.ufrag
    }

    pub(crate) fn describe(&self, description: &mut SessionDescription) {
        description.ice_ufrag.clone_from(&self.local.ufrag);
        description.ice_pwd.clone_from(&self.local.pwd);
        description.candidates = self.locals.iter().map(|local| local.to_wire()).collect();
    }

    /// Whether it was not known yet.
    pub(crate) fn add_local(&mut self, candidate: LocalCandidate) -> bool {
        let relayed = candidate.kind == CandidateKind::Relayed;
        // An offerer's own addresses are what it reaches relays from: those have to let them through.
        let shown = match self.choice {
            PathChoice::RelayOnly => relayed || self.role == LinkRole::Offerer,
            PathChoice::DirectOnly => !relayed,
            PathChoice::Auto => true,
        };
        if !shown || self.locals.contains(&candidate) {
            return false;
        }
        if self.locals.len() >= MAX_LOCAL_CANDIDATES {
            let reflexive = |known: &LocalCandidate| known.kind == CandidateKind::ServerReflexive;
            match self.locals.iter().position(reflexive) {
                Some(oldest) => drop(self.locals.remove(oldest)),
                None => return false,
            }
        }
        self.locals.push(candidate);
        if candidate.kind == CandidateKind::ServerReflexive {
            // It is for the peer to know; checks go out from its base, which is a host candidate already (RFC 8445
            // §6.1.2.4 prunes the pair). The peer's begin now, and ours again: they meet in the NATs.
            let of = |pair: &&mut Pair| pair.base == candidate.base;
            self.pairs.iter_mut().filter(of).for_each(Pair::revive);
            return true;
        }
        let base = Base {
            kind: candidate.kind,
            address: candidate.base,
        };
        if !self.bases.contains(&base) {
            self.bases.push(base);
            self.pair_up();
        }
        true
    }

    pub(crate) fn start(&mut self, ufrag: &str, pwd: &str, now: Instant) -> Result<(), LinkError> {
        if !UFRAG_LEN.contains(&ufrag.len()) || !PWD_LEN.contains(&pwd.len()) {
            return Err(LinkError::BadDescription("ICE credentials are missing"));
        }
        self.remote = Some(Credentials {
            ufrag: ufrag.to_owned(),
            pwd: pwd.to_owned(),
        });
        self.give_up_at = Some(now + self.check_timeout);
        self.handle_timeout(now);
        if let Some(pair) = self.pairs.iter().find(|pair| pair.is_trusted()) {
            self.promise(pair.path());
        }
        Ok(())
    }

    /// Whether it was a message of this session.
    pub(crate) fn handle_stun(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) -> bool {
        match message::decode(payload, &self.local, self.remote.as_ref()) {
            Some(Incoming::Check(check)) => self.on_check((local, remote), &check, now),
            Some(Incoming::Success(id)) => self.on_success((local, remote), id, now),
            Some(Incoming::RoleConflict(id)) => self.on_role_conflict((local, remote), id),
            None => false,
        }
    }

    /// Whether a datagram that is not STUN may be looked at: the peer showed itself on this path.
    pub(crate) fn accepts(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        self.pair((local, remote)).is_some_and(Pair::is_trusted)
    }

    /// Something authentic that is not STUN came in.
    pub(crate) fn heard(&mut self, local: SocketAddr, remote: SocketAddr, now: Instant) {
        if let Some(pair) = self.pair_mut((local, remote)) {
            pair.on_heard(now);
        }
        if self.selected == Some((local, remote)) {
            self.liveness.on_heard(now);
        } else {
            self.follow((local, remote), now);
        }
    }

    /// Something that wants an answer sooner or later went out on the selected pair.
    pub(crate) fn sent(&mut self, now: Instant) {
        if self.selected.is_some() {
            self.liveness.on_sent(now);
            self.upkeep_at.get_or_insert(now + choice::UPKEEP);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.over || self.remote.is_none() {
            return;
        }
        self.watch_selected(now);
        self.look_after_others(now);
        for at in 0..self.pairs.len() {
            let selected = self.selected == Some(self.pairs[at].path());
            // When nothing answers, the first pair that comes back is wanted: none is given up before the link is.
            let kept = selected || self.liveness.is_doubted();
            if self.pairs[at].check_due(now).is_some_and(|due| due <= now)
                && (kept || !self.pairs[at].give_up(now))
            {
                if !self.spend(now) {
                    break;
                }
                self.check(at, now);
                if selected {
                    self.on_check_repeated(at, now);
                }
            }
        }
        if self.selected.is_none() && self.give_up_at.is_some_and(|at| at <= now) {
            self.fail();
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if self.over || self.remote.is_none() {
            return None;
        }
        let (left, since) = self.budget;
        let earliest = if left == 0 { since + PACE } else { since };
        let checks = self.pairs.iter().filter_map(|pair| pair.check_due(since));
        let checks = checks.min().map(|due| due.max(earliest));
        let watch = match self.selected.and_then(|selected| self.pair(selected)) {
            Some(pair) => Some(self.liveness.due(pair, self.controlling)),
            None => self.give_up_at,
        };
        [checks, watch, self.upkeep_at].into_iter().flatten().min()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<IceEvent> {
        self.events.pop_front()
    }

    /// Every pair and what became of it, the likeliest first.
    pub(crate) fn pairs(&self) -> Vec<PairStatus> {
        let of = |pair: &Pair| PairStatus {
            local: pair.base,
            remote: pair.remote,
            relayed: pair.relayed,
            outcome: match pair.state {
                _ if self.selected == Some(pair.path()) => PairOutcome::Selected,
                PairState::Valid => PairOutcome::Answered,
                PairState::Waiting => PairOutcome::Unchecked,
                PairState::Checking if !self.over => PairOutcome::Checking,
                PairState::Checking | PairState::Failed => PairOutcome::Unanswered,
            },
            rtt: pair.rtt,
        };
        self.pairs.iter().map(of).collect()
    }

    /// Round trip of the selected pair, by its checks.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.pair(self.selected?)?.rtt
    }

    fn on_check(&mut self, path: (SocketAddr, SocketAddr), check: &Check, now: Instant) -> bool {
        let (local, remote) = path;
        if !self.bases.iter().any(|base| base.address == local) {
            return false;
        }
        if check.controlling == self.controlling {
            // RFC 8445 §7.3.1.1: the larger tie-breaker controls.
            if (self.tie_breaker >= check.tie_breaker) == self.controlling {
                let answer = message::encode_role_conflict(check.id, &self.local);
                self.transmit(path, answer);
                return true;
            }
            self.switch_role();
        }
        let base = self.bases.iter().find(|base| base.address == local);
        let relayed = pair::is_relayed(check.priority)
            || base.is_some_and(|base| base.kind == CandidateKind::Relayed)
            || self
                .remotes
                .iter()
                .any(|known| known.address == remote && known.relayed);
        if !self.choice.allows(relayed) {
            // An answer would let the peer use it.
            return true;
        }
        let Some(at) = self.admit(path, check.priority) else {
            // An answer would let the peer use what is not known here.
            return true;
        };
        let answer = message::encode_success(check.id, remote, &self.local);
        self.transmit(path, answer);
        let (started, controlled) = (self.remote.is_some(), !self.controlling);
        let pair = &mut self.pairs[at];
        pair.nominated |= check.nominate && controlled;
        pair.start();
        pair.on_heard(now);
        let valid = pair.is_valid();
        if self.selected == Some(path) {
            self.liveness.on_heard(now);
        }
        if valid {
            self.consider(at, now);
        } else if started {
            // RFC 8445 §7.3.1.4: a triggered check.
            self.check(at, now);
            self.promise(path);
        }
        true
    }

    fn promise(&mut self, (local, remote): (SocketAddr, SocketAddr)) {
        if self.selected.is_none() {
            self.events.push_back(IceEvent::Promising { local, remote });
        }
    }

    fn on_success(
        &mut self,
        path: (SocketAddr, SocketAddr),
        id: TransactionId,
        now: Instant,
    ) -> bool {
        // RFC 8445 §7.2.5.2.1: an answer that comes another way than the check went is none.
        let Some(at) = self.position(path) else {
            return false;
        };
        if !self.pairs[at].on_success(id, now) {
            return false;
        }
        self.pairs[at].nominated |= self.controlling;
        if self.selected == Some(path) {
            self.liveness.on_heard(now);
        }
        self.consider(at, now);
        true
    }

    fn on_role_conflict(&mut self, path: (SocketAddr, SocketAddr), id: TransactionId) -> bool {
        let ours = self.pair(path).is_some_and(|pair| pair.is_checking(id));
        if ours {
            self.switch_role();
        }
        ours
    }

    /// RFC 8445 §7.2.5.1: checks begin anew in the other role.
    fn switch_role(&mut self) {
        self.controlling = !self.controlling;
        for pair in &mut self.pairs {
            pair.restart_check();
        }
    }

    fn check(&mut self, at: usize, now: Instant) {
        let (Some(remote), Ok(id)) = (&self.remote, random_id(&self.certificate)) else {
            return;
        };
        let pair = &mut self.pairs[at];
        let check = Check {
            id: pair.check_now(id, now),
            priority: pair.reflexive_priority,
            controlling: self.controlling,
            tie_breaker: self.tie_breaker,
            nominate: self.controlling,
        };
        let path = (pair.base, pair.remote);
        let payload = message::encode_check(&check, &self.local, remote);
        self.transmit(path, payload);
    }

    /// Whether one more check may go out.
    fn spend(&mut self, now: Instant) -> bool {
        let (left, since) = self.budget;
        let earned = now.saturating_duration_since(since).as_micros() / PACE.as_micros();
        let left = u32::try_from(earned)
            .unwrap_or(BURST)
            .saturating_add(left)
            .min(BURST);
        let since = if earned > 0 { now } else { since };
        self.budget = (left.saturating_sub(1), since);
        left > 0
    }

    /// Forms the pairs there are not yet.
    fn pair_up(&mut self) {
        let punched = |remote: &&Remote| reach(remote.address.ip()) == Reach::Anywhere;
        let punched: Vec<SocketAddr> = self
            .remotes
            .iter()
            .filter(punched)
            .map(|remote| remote.address)
            .take(MAX_PUNCHED)
            .collect();
        for base in &self.bases {
            for remote in &self.remotes {
                let path = (base.address, remote.address);
                let known = self.pairs.iter().any(|pair| pair.path() == path);
                let relayed = remote.relayed || base.kind == CandidateKind::Relayed;
                let allowed = may_pair(base, remote) && self.choice.allows(relayed);
                if allowed && !known && self.pairs.len() < MAX_PAIRS {
                    let mut pair = Pair::new(base, remote, self.controlling);
                    pair.leaving = self.is_leaving(base.address) || self.is_leaving(remote.address);
                    let unasked = self.role == LinkRole::Answerer
                        && base.kind == CandidateKind::Host
                        && !punched.contains(&remote.address);
                    if unasked {
                        pair.state = PairState::Waiting;
                    }
                    self.pairs.push(pair);
                }
            }
        }
        self.pairs
            .sort_by_key(|pair| std::cmp::Reverse(pair.priority));
    }

    fn position(&self, path: (SocketAddr, SocketAddr)) -> Option<usize> {
        self.pairs.iter().position(|pair| pair.path() == path)
    }

    fn pair(&self, path: (SocketAddr, SocketAddr)) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.path() == path)
    }

    fn pair_mut(&mut self, path: (SocketAddr, SocketAddr)) -> Option<&mut Pair> {
        self.pairs.iter_mut().find(|pair| pair.path() == path)
    }

    fn transmit(&mut self, (local, remote): (SocketAddr, SocketAddr), payload: BytesMut) {
        self.transmits
            .push_back(Transmit::one(local, remote, payload));
    }

    fn fail(&mut self) {
        self.over = true;
        self.events.push_back(IceEvent::Failed);
    }
}

impl fmt::Debug for Ice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ice")
            .field("controlling", &self.controlling)
            .field("pairs", &self.pairs)
            .field("selected", &self.selected)
            .finish_non_exhaustive()
    }
}

fn may_pair(base: &Base, remote: &Remote) -> bool {
    let loopback = |address: SocketAddr| address.ip().is_loopback();
    base.address.is_ipv4() == remote.address.is_ipv4()
        && loopback(base.address) == loopback(remote.address)
}

/// Six random bits a character. [RFC 8839 §5.4](https://www.rfc-editor.org/rfc/rfc8839#section-5.4)
fn text(random: &[u8]) -> String {
    const ICE_CHARS: &[u8; 64] =
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    random
        .iter()
        .map(|byte| char::from(ICE_CHARS[usize::from(byte & 63)]))
        .collect()
}
