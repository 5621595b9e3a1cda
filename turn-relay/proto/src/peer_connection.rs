//! TCP connections between the relay and peers ([RFC 6062](https://www.rfc-editor.org/rfc/rfc6062)): who waits for whom,
//! and who is joined to whom. The bytes themselves are the shell's.
//!
//! A connection begins with a Connect request or with a peer that connects to a relayed address; then it waits for a
//! ConnectionBind request, which comes on a connection of its own, and so perhaps to another shard. All connections are
//! therefore in [`Shared`]; the allocation they belong to knows their numbers, and closes them when it ends.

use crate::account::Account;
use crate::allocation::Allocation;
use crate::auth::Signer;
use crate::random::Random;
use crate::request::Refusal;
use crate::request::answer::Answer;
use crate::timer::Reason;
use crate::{
    AllocationId, Direction, Now, Output, PeerPolicy, RealmUser, RelayId, Server, Shared, Traffic,
    Usage,
};
use model::PeerAddr;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use stun_types::message::TransactionId;
use turn_types::message::{CONNECT, CONNECTION_ATTEMPT};

/// How long a connection to a peer may take to come up, and how long it then waits for ConnectionBind
/// (RFC 6062 sections 5.2 and 5.3: 30 seconds).
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Names one TCP connection with a peer, in all shards: the value of CONNECTION-ID
/// ([RFC 6062 section 6.2.1](https://www.rfc-editor.org/rfc/rfc6062#section-6.2.1)). Cannot be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerConnectionId(pub(crate) u32);

impl PeerConnectionId {
    /// For the shell's tables: no other living connection has it.
    pub fn number(self) -> u32 {
        self.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until then it has to come up.
    Connecting(Instant),
    /// Until then somebody has to bind it.
    Waiting(Instant),
    /// A client's connection carries what it carries.
    Bound,
}

#[derive(Debug)]
struct PeerConnection {
    user: RealmUser,
    meter: JoinedMeter,
    peer: PeerAddr,
    /// The peer began it: its port is one of many that it has for connecting.
    is_incoming: bool,
    state: State,
}

impl PeerConnection {
    fn is_allowed(&self, policy: &PeerPolicy) -> bool {
        let allowed = if self.is_incoming {
            policy.check_host(self.peer.0.ip())
        } else {
            policy.check(self.peer)
        };
        allowed.is_ok()
    }
}

/// All of a process.
#[derive(Debug, Default)]
pub(crate) struct PeerConnections {
    by_id: FxHashMap<PeerConnectionId, PeerConnection>,
}

impl PeerConnections {
    fn insert(
        &mut self,
        connection: PeerConnection,
        most: usize,
        random: &mut Random,
    ) -> Option<PeerConnectionId> {
        if self.by_id.len() >= most {
            return None;
        }
        // Few of 2^32 are taken.
        let id = std::iter::repeat_with(|| PeerConnectionId(random.u64() as u32))
            .find(|id| !self.by_id.contains_key(id))?;
        self.by_id.insert(id, connection);
        Some(id)
    }

    /// Joins it to a connection of this user, if it waits for one.
    fn claim(
        &mut self,
        id: PeerConnectionId,
        user: &RealmUser,
        now: Instant,
    ) -> Result<JoinedMeter, Refusal> {
        let connection = self.by_id.get_mut(&id).ok_or(Refusal::BadRequest)?;
        if connection.user != *user {
            return Err(Refusal::WrongCredentials);
        }
        match connection.state {
            State::Waiting(until) if until > now => {
                connection.state = State::Bound;
                Ok(connection.meter.clone())
            }
            _ => Err(Refusal::BadRequest),
        }
    }
}

/// What joined connections are limited and recorded by: their bytes are the user's who began them, wherever they are moved.
#[derive(Clone, Debug)]
pub struct JoinedMeter {
    account: Arc<Account>,
    /// Of all connections of the allocation, since it was last asked: by direction.
    carried: Arc<[AtomicU64; 2]>,
    started: Instant,
}

impl PartialEq for JoinedMeter {
    /// Of the same allocation.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.carried, &other.carried)
    }
}

impl Eq for JoinedMeter {}

impl JoinedMeter {
    fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_nanos() as u64
    }

    /// How many bytes may be carried now, as far as the bounds of user, realm and relay go; any number where there are none.
    pub fn room(&self, direction: Direction, now: Instant) -> usize {
        self.account.room(direction, self.nanos(now))
    }

    /// So many bytes were carried.
    pub fn carried(&self, direction: Direction, bytes: usize, now: Instant) {
        self.account.pay(direction, bytes, self.nanos(now));
        self.carried[direction as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// What an allocation with TCP to peers knows of them.
#[derive(Debug, Default)]
pub(crate) struct TcpPeers {
    /// Bytes that its connections carried and that are not in its counters yet.
    carried: Arc<[AtomicU64; 2]>,
    /// Connections that it began; some may have ended elsewhere.
    connections: Vec<PeerConnectionId>,
    /// Connect requests that are not answered yet.
    attempts: Vec<Attempt>,
}

#[derive(Debug)]
struct Attempt {
    connection: PeerConnectionId,
    transaction: TransactionId,
    signer: Signer,
}

/// A Connect request, checked.
#[derive(Debug)]
pub(crate) struct Connecting {
    pub(crate) relay: RelayId,
    pub(crate) peer: PeerAddr,
    pub(crate) transaction: TransactionId,
    pub(crate) signer: Signer,
}

impl TcpPeers {
    /// What was carried since this was last asked. Packets are nobody's to count.
    pub(crate) fn take_carried(&self) -> Usage {
        let take = |direction: Direction| Traffic {
            packets: 0,
            bytes: self.carried[direction as usize].swap(0, Ordering::Relaxed),
        };
        Usage {
            to_peer: take(Direction::ToPeer),
            to_client: take(Direction::ToClient),
        }
    }

    /// Forgets those that have ended.
    fn prune(&mut self, shared: &Shared) {
        let all = shared.peer_connections();
        self.connections.retain(|id| all.by_id.contains_key(id));
    }

    fn has(&self, peer: PeerAddr, shared: &Shared) -> bool {
        let all = shared.peer_connections();
        let is_it = |id| all.by_id.get(id).is_some_and(|known| known.peer == peer);
        self.connections.iter().any(is_it)
    }
}

impl Server {
    /// Registers a connection of an allocation, if there is room, and starts its time.
    fn add_peer_connection(
        &mut self,
        id: AllocationId,
        peer: PeerAddr,
        state: impl Fn(Instant) -> State,
        now: Instant,
    ) -> Result<PeerConnectionId, Refusal> {
        let limits = self.config.limits;
        let shared = &self.config.shared;
        let allocation = self.table.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        let Some(peers) = &mut allocation.tcp else {
            return Err(Refusal::AllocationMismatch);
        };
        peers.prune(shared);
        if peers.has(peer, shared) {
            return Err(Refusal::ConnectionAlreadyExists);
        }
        if peers.connections.len() >= limits.peer_connections_per_allocation {
            return Err(Refusal::InsufficientCapacity);
        }
        let until = now + PATIENCE;
        let state = state(until);
        let connection = PeerConnection {
            // Who connects to a peer waits for it; who comes is there.
            is_incoming: matches!(state, State::Waiting(_)),
            user: allocation.user.clone(),
            meter: JoinedMeter {
                account: allocation.account.clone(),
                carried: peers.carried.clone(),
                started: self.started,
            },
            peer,
            state,
        };
        let most = limits.peer_connections;
        let connection = shared
            .peer_connections()
            .insert(connection, most, &mut self.random)
            .ok_or(Refusal::InsufficientCapacity)?;
        peers.connections.push(connection);
        self.timers
            .schedule(until, Reason::PeerConnection(id, connection));
        Ok(connection)
    }

    /// Asks the shell to connect; answers later.
    pub(crate) fn connect(&mut self, now: Instant, connecting: &Connecting) -> Result<(), Refusal> {
        let Connecting { relay, peer, .. } = *connecting;
        let id = relay.allocation;
        let connection = self.add_peer_connection(id, peer, State::Connecting, now)?;
        let Some(allocation) = self.table.get_mut(id) else {
            return Err(Refusal::AllocationMismatch);
        };
        let (Some(peers), Some(from)) = (
            &mut allocation.tcp,
            allocation.relays[relay.family as usize],
        ) else {
            return Err(Refusal::AllocationMismatch);
        };
        peers.attempts.push(Attempt {
            connection,
            transaction: connecting.transaction,
            signer: connecting.signer,
        });
        self.outputs.push_back(Output::Connect {
            connection,
            relay,
            from: self.config.shared.bind_address(from.port),
            peer,
        });
        Ok(())
    }

    /// How [`Output::Connect`] went; whether the connection is still wanted.
    pub fn handle_peer_connected(
        &mut self,
        now: Now,
        relay: RelayId,
        connection: PeerConnectionId,
        is_connected: bool,
    ) -> bool {
        let Some((path, attempt)) = self.take_attempt(relay.allocation, connection) else {
            return false;
        };
        if !is_connected {
            self.refuse_connect(path, &attempt, Refusal::ConnectionTimeoutOrFailure);
            return false;
        }
        let until = now.instant + PATIENCE;
        if let Some(known) = self
            .config
            .shared
            .peer_connections()
            .by_id
            .get_mut(&connection)
        {
            known.state = State::Waiting(until);
        }
        self.timers
            .schedule(until, Reason::PeerConnection(relay.allocation, connection));
        self.stats.peer_connections_made += 1;
        let mut answer = Answer::success(CONNECT, attempt.transaction);
        answer.add_connection_id(connection.0);
        self.answer_signed(path, answer, &attempt.signer);
        true
    }

    /// A peer has connected to a relayed address: the name of the connection, or nothing if it is to be closed at once
    /// ([RFC 6062 section 5.3](https://www.rfc-editor.org/rfc/rfc6062#section-5.3)). `peer` must be where it comes from.
    pub fn handle_peer_accepted(
        &mut self,
        now: Now,
        relay: RelayId,
        peer: PeerAddr,
    ) -> Option<PeerConnectionId> {
        let allocation = self.table.get(relay.allocation);
        let permitted = allocation.and_then(|allocation| {
            let is_permitted = allocation.tcp.is_some()
                && allocation.relay(relay.family).is_some()
                && allocation
                    .permissions
                    .is_permitted(peer.0.ip(), now.instant)
                // Its port is one of many that it has for connecting.
                && allocation.realm.peer_policy.check_host(peer.0.ip()).is_ok();
            is_permitted.then_some(allocation.path)
        });
        let Some(path) = permitted else {
            self.stats.peer_connections_refused += 1;
            return None;
        };
        let id = relay.allocation;
        let Ok(connection) = self.add_peer_connection(id, peer, State::Waiting, now.instant) else {
            self.stats.peer_connections_refused += 1;
            return None;
        };
        self.stats.peer_connections_made += 1;
        let transaction = TransactionId::from(u128::from(self.random.u64()));
        let mut indication = Answer::indication(CONNECTION_ATTEMPT, transaction);
        indication.add_peer(peer.0);
        indication.add_connection_id(connection.0);
        self.answer(path, indication.unsigned_within(usize::MAX));
        Some(connection)
    }

    /// A connection with a peer has ended, in whichever state; also to be told of one that was bound on this shard.
    pub fn handle_peer_connection_closed(&mut self, connection: PeerConnectionId) {
        self.end_peer_connection(connection);
    }

    /// A client's connection shall carry what a peer connection carries.
    pub(crate) fn claim_peer_connection(
        &mut self,
        connection: PeerConnectionId,
        user: &RealmUser,
        now: Instant,
    ) -> Result<JoinedMeter, Refusal> {
        let shared = &self.config.shared;
        let meter = shared.peer_connections().claim(connection, user, now)?;
        self.stats.peer_connections_bound += 1;
        Ok(meter)
    }

    /// The time of an attempt, or of a connection that nobody bound, may be over.
    pub(crate) fn on_peer_connection_time(
        &mut self,
        id: AllocationId,
        connection: PeerConnectionId,
        now: Instant,
    ) {
        let shared = &self.config.shared;
        let state = shared
            .peer_connections()
            .by_id
            .get(&connection)
            .map(|known| known.state);
        match state {
            Some(State::Connecting(until)) if until <= now => {
                if let Some((path, attempt)) = self.take_attempt(id, connection) {
                    self.refuse_connect(path, &attempt, Refusal::ConnectionTimeoutOrFailure);
                }
                self.outputs.push_back(Output::ClosePeer { connection });
            }
            Some(State::Waiting(until)) if until <= now => {
                self.stats.peer_connections_unbound += 1;
                self.end_peer_connection(connection);
                self.outputs.push_back(Output::ClosePeer { connection });
            }
            _ => {}
        }
    }

    /// The allocation has ended, and with it all that it began (RFC 6062 section 5.5).
    pub(crate) fn close_peer_connections(&mut self, allocation: &Allocation) {
        let Some(peers) = &allocation.tcp else {
            return;
        };
        for connection in &peers.connections {
            if self.end_peer_connection(*connection) {
                let connection = *connection;
                self.outputs.push_back(Output::ClosePeer { connection });
            }
        }
    }

    /// Ends those of an allocation whose peers are no longer allowed; how many.
    pub(crate) fn end_denied_connections(&mut self, id: AllocationId) -> usize {
        let Some(allocation) = self.table.get(id) else {
            return 0;
        };
        let Some(peers) = &allocation.tcp else {
            return 0;
        };
        let policy = &allocation.realm.peer_policy;
        let all = self.config.shared.peer_connections();
        let is_denied = |connection: &PeerConnectionId| {
            let known = all.by_id.get(connection);
            known.is_some_and(|known| !known.is_allowed(policy))
        };
        let connections = peers.connections.iter().copied();
        let denied: Vec<_> = connections.filter(is_denied).collect();
        drop(all);
        for connection in &denied {
            let connection = *connection;
            match self.take_attempt(id, connection) {
                Some((path, attempt)) => self.refuse_connect(path, &attempt, Refusal::Forbidden),
                None => drop(self.end_peer_connection(connection)),
            }
            self.outputs.push_back(Output::ClosePeer { connection });
        }
        denied.len()
    }

    fn end_peer_connection(&mut self, connection: PeerConnectionId) -> bool {
        let mut all = self.config.shared.peer_connections();
        all.by_id.remove(&connection).is_some()
    }

    fn take_attempt(
        &mut self,
        id: AllocationId,
        connection: PeerConnectionId,
    ) -> Option<(crate::FiveTuple, Attempt)> {
        let allocation = self.table.get_mut(id)?;
        let attempts = &mut allocation.tcp.as_mut()?.attempts;
        let at = attempts.iter().position(|a| a.connection == connection)?;
        let attempt = attempts.swap_remove(at);
        Some((allocation.path, attempt))
    }

    fn refuse_connect(&mut self, path: crate::FiveTuple, attempt: &Attempt, why: Refusal) {
        self.end_peer_connection(attempt.connection);
        self.refuse_later(path, (CONNECT, attempt.transaction), why, &attempt.signer);
    }

    /// How many there are now, of all shards.
    pub fn peer_connections(&self) -> usize {
        self.config.shared.peer_connections().by_id.len()
    }
}
