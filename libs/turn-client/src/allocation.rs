//! One standing allocation: a switchboard over its parts.
//!
//! ```text
//!            no answer, refused          set_credential
//!          +------> Waiting ---+      +---------------- NeedCredential
//!          |                   v      v                       ^
//!   new -> Attempting <--------+------+                       | 401
//!          |  ^   +-------------------------------------------+
//!  success v  | silent, 437, expired, 441
//!          Active ---- close ----> Closed
//! ```
//!
//! An attempt is an Allocate; after silence it is first a Refresh of the old allocation, which a short outage
//! leaves alive. An Allocate that meets an old allocation on our five-tuple (437) deletes that first.

mod answers;
mod moving;
mod packets;
mod upkeep;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use model::{MappedAddr, PeerAddr, RelayTransport, RelayedAddr};
use stun_types::attribute::AttributeStaticType;
use stun_types::message::MessageClass;
use turn_types::attribute::{
    AdditionalAddressFamily, ChannelNumber, Lifetime, RequestedAddressFamily, RequestedTransport,
    XorPeerAddress,
};
use wire::channel_data::FIRST_CHANNEL;

pub use moving::Moving;

use crate::credential::Authenticator;
use crate::input::{AllocationConfig, Credential, Families};
use crate::output::{Event, LostReason, State};
use crate::peers::Peers;
use crate::random::Random;
use crate::stats::Stats;
use crate::timer::{Due, Timers};
use crate::transaction::{Request, Transaction, Transactions};
use wire::stun::write::Writer;

/// Wanted, in seconds. Short, so that the relay soon forgets an allocation whose owner died.
const LIFETIME: u32 = 600;
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const UDP: u8 = 17;

#[derive(Debug)]
enum Phase {
    /// A request is on its way.
    Attempting,
    /// Until the next attempt.
    Waiting {
        until: Instant,
    },
    NeedCredential {
        say_again: Instant,
    },
    Active,
    Closed,
}

/// What the relay gave us.
#[derive(Debug, Clone)]
struct Grant {
    relayed: Vec<RelayedAddr>,
    mapped: MappedAddr,
    expires: Instant,
    refresh: Instant,
    /// The longest lifetime that was granted for it, in seconds.
    most: u32,
    /// Less was granted since.
    ending: bool,
}

/// Since when the relay is quiet, and how often we asked since.
#[derive(Debug)]
struct Liveness {
    quiet_since: Instant,
    probes: u32,
    /// Something was sent to a peer since: an answer may be expected.
    used: bool,
    /// The first request since that has no answer.
    asked: Option<Instant>,
}

/// A standing allocation on one relay. See the crate's documentation.
#[derive(Debug)]
pub struct Allocation {
    config: AllocationConfig,
    phase: Phase,
    /// The present allocation; after a loss the last one.
    grant: Option<Grant>,
    /// The relay may still have the last one.
    resumable: bool,
    /// This attempt has tried already to delete what is in its way.
    deleted: bool,
    /// What was said last, so that it is not said for every attempt.
    said: Option<LostReason>,
    /// Active, but the relay refuses the credential: say so (again) then.
    wants_credential: Option<Instant>,
    authenticator: Authenticator,
    transactions: Transactions,
    peers: Peers,
    timers: Timers,
    liveness: Liveness,
    /// Of the last request that was answered.
    rtt: Option<Duration>,
    /// Whether a ticket is asked for, and the present one (RFC 8016).
    mobile: bool,
    ticket: Option<Vec<u8>>,
    moving: Option<moving::Move>,
    random: Random,
    transmits: VecDeque<Vec<u8>>,
    /// Those for where it is to move.
    ahead: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    stats: Stats,
}

impl Allocation {
    /// Begins to allocate.
    pub fn new(config: AllocationConfig, credential: Credential, now: Instant) -> Self {
        let mut allocation = Self {
            phase: Phase::Attempting,
            grant: None,
            resumable: false,
            deleted: false,
            said: None,
            wants_credential: None,
            authenticator: Authenticator::new(credential),
            transactions: Transactions::default(),
            peers: Peers::default(),
            timers: Timers::default(),
            liveness: Liveness {
                quiet_since: now,
                probes: 0,
                used: false,
                asked: None,
            },
            rtt: None,
            mobile: config.mobile,
            ticket: None,
            moving: None,
            random: Random::new(config.seed),
            transmits: VecDeque::new(),
            ahead: VecDeque::new(),
            events: VecDeque::new(),
            stats: Stats::default(),
            config,
        };
        allocation.attempt(now);
        allocation
    }

    /// What it was made with, and where it is now.
    pub fn config(&self) -> &AllocationConfig {
        &self.config
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Attempting | Phase::Waiting { .. } => State::Allocating,
            Phase::NeedCredential { .. } => State::NeedCredential,
            Phase::Active => State::Allocated,
            Phase::Closed => State::Closed,
        }
    }

    /// The relayed addresses: one or two of different families; none without an allocation.
    pub fn relayed(&self) -> &[RelayedAddr] {
        match (&self.phase, &self.grant) {
            (Phase::Active, Some(grant)) => &grant.relayed,
            _ => &[],
        }
    }

    /// Where the relay sees us.
    pub fn mapped(&self) -> Option<MappedAddr> {
        let grant = self.grant.as_ref()?;
        matches!(self.phase, Phase::Active).then_some(grant.mapped)
    }

    /// What happened so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Peers permitted and not released.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// The next datagram to send to the relay.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.transmits.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Another credential: used for the next allocation, or at once when the present one is refused. The present
    /// allocation goes on with the credential that it was made with, as RFC 8656 section 5 wants.
    pub fn set_credential(&mut self, credential: Credential, now: Instant) {
        let news = self.authenticator.set_next(credential);
        match self.phase {
            Phase::NeedCredential { .. } if news => self.attempt(now),
            // The one that was refused: it may work later, but not at once.
            Phase::NeedCredential { .. } => self.wait(now, Duration::from_secs(5)),
            Phase::Active if self.wants_credential.take().is_some() => {
                self.authenticator.adopt_next();
                self.send(Request::Refresh, 0, now);
            }
            _ => {}
        }
    }

    /// Lets a peer through the relay and binds a channel for it. False when it cannot be: there is no allocation,
    /// none of the peer's family, or 4 096 peers are there. A peer that is there already stays.
    ///
    /// [`Event::PeerReady`] follows when the relay has agreed.
    pub fn permit(&mut self, peer: PeerAddr, now: Instant) -> bool {
        let same_family = |relayed: &RelayedAddr| relayed.0.is_ipv4() == peer.0.is_ipv4();
        let added = if self.relayed().iter().any(same_family) {
            self.peers.add(peer, now)
        } else {
            None
        };
        let Some(added) = added else {
            self.stats.not_permitted += 1;
            return false;
        };
        if added.ask_permission {
            self.send(Request::Permission(peer.0.ip()), 0, now);
        }
        if added.bind_channel {
            self.bind(added.index, peer, now);
        }
        if added.ready {
            self.events.push_back(Event::PeerReady(peer));
        }
        true
    }

    /// Nobody needs this peer any more. The relay forgets it within ten minutes.
    pub fn release_peer(&mut self, peer: PeerAddr) {
        self.peers.release(peer);
    }

    /// Gives back what nobody needs any more, of a relay that will soon be gone ([`Event::Ending`]); after a while it is
    /// asked for anew, as perhaps the relay is there again.
    pub fn give_back(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Active) {
            self.send(Request::Delete, 0, now);
            self.lose(LostReason::GivenBack, now);
        }
    }

    /// Gives the allocation back: one last message is to be sent, and nothing happens after.
    pub fn close(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        let active = matches!(self.phase, Phase::Active);
        self.phase = Phase::Closed;
        self.transactions.clear();
        self.timers.clear();
        self.peers.clear();
        self.events.clear();
        if active {
            self.send(Request::Delete, 0, now);
        }
        self.transactions.clear();
        self.timers.clear();
    }

    fn bind(&mut self, index: u16, peer: PeerAddr, now: Instant) {
        self.peers.on_bind_sent(index, now);
        self.send(Request::Channel(index, peer), 0, now);
    }

    /// Begins to get an allocation, whatever was before.
    fn attempt(&mut self, now: Instant) {
        self.moving = None;
        self.ahead.clear();
        self.transactions.clear();
        self.timers.clear();
        self.deleted = false;
        self.phase = Phase::Attempting;
        let alive = self.grant.as_ref().is_some_and(|grant| grant.expires > now);
        self.resumable &= alive;
        if !self.resumable {
            self.authenticator.adopt_next();
            self.ticket = None;
        }
        let request = if self.resumable {
            Request::Resume
        } else {
            Request::Allocate
        };
        self.send(request, 0, now);
    }

    /// There is no allocation any more.
    fn lose(&mut self, reason: LostReason, now: Instant) {
        self.stats.lost += 1;
        self.resumable = reason == LostReason::Silent;
        self.wants_credential = None;
        if self.moving.take().is_some() {
            self.events.push_back(Event::NotMoved);
        }
        self.peers.on_lost();
        let patient = reason.needs_new_port() || reason == LostReason::GivenBack;
        self.say_lost(reason);
        if patient {
            self.wait(now, Duration::from_secs(5));
        } else {
            self.attempt(now);
        }
    }

    fn say_lost(&mut self, reason: LostReason) {
        if self.said.as_ref() != Some(&reason) {
            self.said = Some(reason.clone());
            self.events.push_back(Event::Lost { reason });
        }
    }

    /// Waits `at_least`, and up to 500 ms more, so that many clients do not come back at once.
    fn wait(&mut self, now: Instant, at_least: Duration) {
        self.transactions.clear();
        self.timers.clear();
        let pause = self
            .random
            .duration(at_least, at_least + Duration::from_millis(500));
        self.phase = Phase::Waiting { until: now + pause };
    }

    /// Writes a request, signs it as the relay wants, and puts it among those that wait for an answer.
    fn send(&mut self, request: Request, challenges: u8, now: Instant) {
        let id = self.random.transaction_id();
        let mut bytes = Vec::with_capacity(256);
        let mut writer = Writer::new(&mut bytes, MessageClass::Request, request.method(), id);
        match request {
            Request::Allocate => self.add_wishes(&mut writer),
            Request::Delete => writer.add(Lifetime::TYPE, &0u32.to_be_bytes()),
            Request::Refresh | Request::Probe | Request::Fence => {
                writer.add(Lifetime::TYPE, &LIFETIME.to_be_bytes());
            }
            Request::Resume | Request::Move => {
                writer.add(Lifetime::TYPE, &LIFETIME.to_be_bytes());
                if let Some(ticket) = &self.ticket {
                    writer.add(moving::MOBILITY_TICKET, ticket);
                }
            }
            Request::Permission(ip) => {
                writer.add_address(XorPeerAddress::TYPE, std::net::SocketAddr::new(ip, 0));
            }
            Request::Channel(index, peer) => {
                let [high, low] = (FIRST_CHANNEL + index).to_be_bytes();
                writer.add(ChannelNumber::TYPE, &[high, low, 0, 0]);
                writer.add_address(XorPeerAddress::TYPE, peer.0);
            }
        }
        let generation = self.authenticator.generation();
        let signed = self
            .authenticator
            .sign(&mut writer)
            .map(|key| (generation, key));
        writer.finish();
        let stream = self.queue(request, bytes.clone());
        self.liveness.asked.get_or_insert(now);
        self.stats.requests += 1;
        let sent = Transaction::new(request, challenges, signed, bytes, stream, now);
        let due = self.transactions.insert(id, sent);
        self.timers.set(due, Due::Transaction(id));
    }

    /// Puts a message where it goes; whether that is a stream.
    fn queue(&mut self, request: Request, message: Vec<u8>) -> bool {
        let ahead = self
            .moving
            .filter(|to| request == Request::Move && !to.is_where(&self.config));
        let (queue, transport) = match ahead {
            Some(to) => (&mut self.ahead, to.transport()),
            None => (&mut self.transmits, self.config.transport),
        };
        queue.push_back(message);
        transport != RelayTransport::Udp
    }

    fn add_wishes(&self, writer: &mut Writer<'_>) {
        writer.add(RequestedTransport::TYPE, &[UDP, 0, 0, 0]);
        writer.add(Lifetime::TYPE, &LIFETIME.to_be_bytes());
        if self.mobile {
            writer.add(moving::MOBILITY_TICKET, &[]);
        }
        match self.config.families {
            Families::V4 => writer.add(RequestedAddressFamily::TYPE, &[IPV4, 0, 0, 0]),
            Families::V6 => writer.add(RequestedAddressFamily::TYPE, &[IPV6, 0, 0, 0]),
            // Must not stand beside REQUESTED-ADDRESS-FAMILY; the other one is IPv4.
            Families::Both => writer.add(AdditionalAddressFamily::TYPE, &[IPV6, 0, 0, 0]),
        }
    }
}
