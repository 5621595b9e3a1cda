//! The switchboard: what enters is handed to the part that knows about it.

use crate::allocation::Allocation;
use crate::allocation::table::AllocationTable;
use crate::auth::nonce::Nonces;
use crate::gate::Gate;
use crate::lookup::Lookups;
use crate::mobility::ticket::Tickets;
use crate::random::Random;
use crate::short_cut::Copies;
use crate::timer::{Reason, Timers};
use crate::{
    AllocationId, Burst, ConnectionId, DropReason, EndReason, Family, FiveTuple, Now, OpenError,
    Output, RelayId, ServerConfig, Stats, Verdict, request,
};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stun_types::message::MessageClass;
use wire::stun::Message;

/// The shortest lifetime that can be said.
const LEAST: Duration = Duration::from_secs(1);

/// How often an allocation's expired permissions and channels are freed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// A TURN server over UDP, or one shard of it: every five-tuple must always come to the same one.
///
/// After everything that enters: [`Server::poll_output`] until there is none. Then [`Server::poll_timeout`] says when to
/// call [`Server::handle_timeout`] at the latest; call it before datagrams that arrive later than that.
#[derive(Debug)]
pub struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) nonces: Nonces,
    pub(crate) random: Random,
    pub(crate) table: AllocationTable,
    pub(crate) timers: Timers,
    pub(crate) copies: Copies,
    pub(crate) stats: Stats,
    pub(crate) outputs: VecDeque<Output>,
    /// When it is over, if that is known.
    pub(crate) ends: Option<Instant>,
    /// Five-tuples whose allocations were asked for from other shards.
    pub(crate) resuming: Vec<FiveTuple>,
    pub(crate) shard: u16,
    pub(crate) tickets: Tickets,
    /// By realm.
    pub(crate) lookups: BTreeMap<Arc<str>, Lookups>,
    /// What clients asked for in their TLS handshake, where that leads to a realm.
    pub(crate) server_names: FxHashMap<ConnectionId, Box<str>>,
    pub(crate) gate: Gate,
    pub(crate) started: Instant,
}

impl Server {
    /// A server without allocations. `started` must not be after any other time it is told; shards of one process must
    /// be given the same.
    pub fn new(config: ServerConfig, started: Instant) -> Self {
        Self {
            nonces: Nonces::new(config.nonce_key, started, config.limits.nonce_lifetime),
            random: Random::new(config.seed),
            table: AllocationTable::default(),
            timers: Timers::default(),
            copies: Copies::default(),
            stats: Stats::default(),
            outputs: VecDeque::new(),
            ends: None,
            resuming: Vec::new(),
            shard: 0,
            tickets: Tickets::new(&config.nonce_key),
            lookups: BTreeMap::new(),
            server_names: FxHashMap::default(),
            gate: Gate::new(config.limits.answers, &config.seed),
            started,
            config,
        }
    }

    /// A datagram that came from a client to an address the server listens on.
    #[inline]
    pub fn handle_client_datagram<'a>(
        &mut self,
        now: Now,
        path: FiveTuple,
        datagram: &'a [u8],
    ) -> Verdict<'a> {
        self.handle_client_burst(now, path, Burst::one(datagram)).0
    }

    /// Datagrams that came from a client: what becomes of the first, and of how many it is true, at least 1.
    ///
    /// The payloads of the others are where the verdict's payload is in the first: [`Burst::payloads`].
    #[inline]
    pub fn handle_client_burst<'a>(
        &mut self,
        now: Now,
        path: FiveTuple,
        burst: Burst<'a>,
    ) -> (Verdict<'a>, usize) {
        let first = burst.first();
        let (verdict, count) = match first.first() {
            // Wider than RFC 7983's 64 to 79: RFC 5766 has channel numbers up to 0x7FFF.
            Some(0x40..=0x7F) => {
                // What has the same header and length has the same fate.
                let count = burst.alike::<{ wire::channel_data::HEADER_LEN }>();
                (self.relay_channel_data(now, path, first), count)
            }
            Some(0..=3) => (self.handle_stun(now, path, first), 1),
            _ => (Verdict::Dropped(DropReason::NotTurn), 1),
        };
        let (verdict, count) = self.meter(now, verdict, count);
        if self.counts_allocations() {
            self.count_sent(path, &verdict, count);
        }
        if let Verdict::ToClient { payload, .. } = &verdict {
            // By the short cut: out of one allocation and into the other.
            self.stats.to_peer.count(count, payload.len());
        }
        self.count(&verdict, count);
        (verdict, count)
    }

    /// A datagram that arrived on a relayed transport address. `relay` is what the shell opened the socket for.
    #[inline]
    pub fn handle_peer_datagram<'a>(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: model::PeerAddr,
        payload: &'a [u8],
    ) -> Verdict<'a> {
        self.handle_peer_burst(now, relay, peer, Burst::one(payload))
            .0
    }

    /// Datagrams that came from one peer; otherwise as [`Server::handle_client_burst`].
    #[inline]
    pub fn handle_peer_burst<'a>(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: model::PeerAddr,
        burst: Burst<'a>,
    ) -> (Verdict<'a>, usize) {
        let verdict = self.relay_to_client(now, relay, peer, burst.first());
        let count = match &verdict {
            // Each Data indication has a transaction of its own.
            Verdict::ToClient { prefix, .. } if !prefix.is_channel_data() => 1,
            _ => burst.of_equal_length(),
        };
        let (verdict, count) = self.meter_from_peer(now, relay, verdict, count);
        if self.counts_allocations() {
            self.count_usage(relay.allocation, &verdict, count);
        }
        self.count(&verdict, count);
        (verdict, count)
    }

    #[inline]
    pub(crate) fn count(&mut self, verdict: &Verdict<'_>, count: usize) {
        let stats = &mut self.stats;
        match verdict {
            Verdict::ToPeer { payload, .. } => stats.to_peer.count(count, payload.len()),
            Verdict::ToClient { payload, .. } => stats.to_client.count(count, payload.len()),
            Verdict::Handled => {}
            Verdict::Dropped(reason) => stats.on_dropped(*reason, count),
        }
    }

    fn handle_stun<'a>(&mut self, now: Now, path: FiveTuple, datagram: &'a [u8]) -> Verdict<'a> {
        let Ok(message) = Message::decode(datagram) else {
            return Verdict::Dropped(DropReason::MalformedStun);
        };
        match message.class() {
            MessageClass::Request => request::handle(self, now, path, &message),
            MessageClass::Indication => self.relay_indication(now, path, &message),
            MessageClass::Success | MessageClass::Error => {
                Verdict::Dropped(DropReason::UnexpectedResponse)
            }
        }
    }

    /// How [`Output::OpenRelay`] went.
    pub fn handle_relay_opened(&mut self, now: Now, relay: RelayId, result: Result<(), OpenError>) {
        request::allocate::on_relay_opened(self, now, relay, result);
    }

    /// Ends what is over. To be called at the time of [`Server::poll_timeout`], or at any other.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, reason)) = self.timers.pop(now) {
            match reason {
                Reason::Expiry(id) => self.on_expiry(id, at, now),
                Reason::Sweep(id) => self.on_sweep(id, now),
                Reason::Reservation(token) => self.on_reservation_over(token, now),
                Reason::PeerConnection(id, connection) => {
                    self.on_peer_connection_time(id, connection, now);
                }
            }
        }
    }

    /// When [`Server::handle_timeout`] is due; `None` while nothing can expire.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// What the shell is to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// It drains, and is gone at `ends`; or it does not. Meanwhile new allocations are refused: 300 with an alternate
    /// server, or 508 where there is none for the client. What exists goes on, and is granted no more than what is left:
    /// who refreshes sees that its allocation will not last.
    pub fn set_draining(&mut self, ends: Option<Instant>) {
        self.ends = ends;
    }

    /// What may be granted of a lifetime: not more than is left of a drain, and never none at all, which would mean that
    /// the allocation was deleted.
    pub(crate) fn within_drain(&self, lifetime: Duration, now: Instant) -> Duration {
        match self.ends {
            Some(ends) => lifetime.min(ends.saturating_duration_since(now).max(LEAST)),
            None => lifetime,
        }
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// For [`Stats::unsent`], which only the shell knows of.
    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    fn on_expiry(&mut self, id: AllocationId, at: Instant, now: Instant) {
        // Another timer has taken over.
        if self.table.get_mut(id).is_none_or(|a| a.expiry_timer != at) {
            return;
        }
        for family in Family::BOTH {
            let over = self
                .table
                .get_mut(id)
                .and_then(|a| a.relay(family))
                .is_some_and(|relay| relay.expires <= now);
            if over {
                self.close_relay(id, family, now);
            }
        }
        let Some(allocation) = self.table.get_mut(id) else {
            return;
        };
        match allocation.expires() {
            Some(expires) => {
                allocation.expiry_timer = expires;
                self.timers.schedule(expires, Reason::Expiry(id));
            }
            None => self.end(id, EndReason::Expired, now),
        }
    }

    fn on_sweep(&mut self, id: AllocationId, now: Instant) {
        let Some(allocation) = self.table.get_mut(id) else {
            return;
        };
        let held = (allocation.permissions.len(), allocation.channels.len());
        allocation.permissions.sweep(now);
        allocation.channels.sweep(now);
        let kept = (allocation.permissions.len(), allocation.channels.len());
        self.stats.permissions -= (held.0 - kept.0) as u64;
        self.stats.channels -= (held.1 - kept.1) as u64;
        self.timers
            .schedule(now + SWEEP_INTERVAL, Reason::Sweep(id));
        self.publish_ends(id, now);
    }

    fn on_reservation_over(&mut self, token: u64, now: Instant) {
        let shared = &self.config.shared;
        if let Some(reservation) = shared.take_reservation(token) {
            shared.release_port(reservation.port, now);
        }
    }

    /// Stores an allocation and starts its timers.
    pub(crate) fn insert(&mut self, allocation: Allocation, now: Instant) -> AllocationId {
        let expires = allocation.expiry_timer;
        let stats = &mut self.stats;
        stats.allocations += 1;
        stats.permissions += allocation.permissions.len() as u64;
        stats.channels += allocation.channels.len() as u64;
        let id = self.table.insert(allocation);
        self.timers.schedule(expires, Reason::Expiry(id));
        self.timers
            .schedule(now + SWEEP_INTERVAL, Reason::Sweep(id));
        id
    }

    /// After a change of lifetimes: a timer that comes too late is replaced.
    pub(crate) fn on_lifetime_changed(&mut self, id: AllocationId) {
        if let Some(allocation) = self.table.get_mut(id)
            && let Some(expires) = allocation.expires()
            && expires < allocation.expiry_timer
        {
            allocation.expiry_timer = expires;
            self.timers.schedule(expires, Reason::Expiry(id));
        }
    }

    /// Ends an allocation, with what it still has of relayed addresses.
    pub(crate) fn end(&mut self, id: AllocationId, reason: EndReason, now: Instant) {
        self.close_relays(id, now);
        let stats = &mut self.stats;
        match reason {
            EndReason::Deleted => stats.allocations_deleted += 1,
            EndReason::Expired => stats.allocations_expired += 1,
            EndReason::Disconnected => stats.allocations_disconnected += 1,
            EndReason::Revoked => stats.allocations_revoked += 1,
            EndReason::Stopped => {}
        }
        self.tell_ended(id, reason, now);
        self.remove(id);
    }

    pub(crate) fn close_relays(&mut self, id: AllocationId, now: Instant) {
        for family in Family::BOTH {
            self.close_relay(id, family, now);
        }
    }

    /// Forgets an allocation whose relayed addresses are closed.
    pub(crate) fn remove(&mut self, id: AllocationId) {
        if let Some(allocation) = self.take_out(id) {
            self.close_peer_connections(&allocation);
            allocation.realm.used.release(&allocation.user.name);
            self.forget_timers();
        }
    }

    /// The reverse of [`Server::insert`], but for the timers.
    pub(crate) fn take_out(&mut self, id: AllocationId) -> Option<Box<Allocation>> {
        let allocation = self.table.remove(id)?;
        let stats = &mut self.stats;
        stats.allocations -= 1;
        stats.permissions -= allocation.permissions.len() as u64;
        stats.channels -= allocation.channels.len() as u64;
        Some(allocation)
    }

    /// Of allocations that were given back before their time: whoever makes and ends many would leave as many.
    fn forget_timers(&mut self) {
        let table = &mut self.table;
        self.timers.forget(|at, reason| match reason {
            Reason::Expiry(id) => table.get_mut(id).is_some_and(|a| a.expiry_timer == at),
            Reason::Sweep(id) => table.get_mut(id).is_some(),
            // Of an allocation that is over, or of one that lives.
            Reason::PeerConnection(id, _) => table.get_mut(id).is_some(),
            Reason::Reservation(_) => true,
        });
    }

    /// Ends one relayed address: its socket, if the shell has one, and its port.
    pub(crate) fn close_relay(&mut self, id: AllocationId, family: Family, now: Instant) {
        let Some(allocation) = self.table.get_mut(id) else {
            return;
        };
        let Some(relay) = allocation.relays[family as usize].take() else {
            return;
        };
        if relay.open {
            let relay = RelayId {
                allocation: id,
                family,
            };
            self.outputs.push_back(Output::CloseRelay { relay });
        }
        self.config.shared.release_port(relay.port, now);
        self.publish_ends(id, now);
    }
}
