//! The live links: each with its session, its timing, and what it holds on relays.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use activator_proto::LinkKey;
use allocations::Allocations;
use link::{Link, LinkTable, Step};
use model::{NodeId, RelayName};
use traces::Context;

/// One link.
#[derive(Debug)]
pub(crate) struct ActiveLink {
    pub(crate) link: Link,
    pub(crate) key: LinkKey,
    pub(crate) peer: NodeId,
    /// The offerer's name for it.
    pub(crate) offered_as: u64,
    /// Peers that relays let through for it; given back at the end.
    pub(crate) permitted: Vec<(RelayName, SocketAddr)>,
    pub(crate) created: Instant,
    /// When each step was reached, since the offer came.
    pub(crate) steps: Vec<(&'static str, Duration)>,
    /// For what is told of its opening, until it is told.
    pub(crate) trace: Option<LinkTrace>,
    dirty: bool,
    scheduled: Option<Instant>,
}

/// What a link's steps do not say of its opening.
#[derive(Debug)]
pub(crate) struct LinkTrace {
    pub(crate) context: Context,
    /// When the answer was handed over to be posted.
    pub(crate) answered: Instant,
}

impl ActiveLink {
    pub(crate) fn new(
        link: Link,
        key: LinkKey,
        peer: NodeId,
        offered_as: u64,
        now: Instant,
    ) -> Self {
        Self {
            link,
            key,
            peer,
            offered_as,
            permitted: Vec::new(),
            created: now,
            steps: Vec::new(),
            trace: None,
            dirty: false,
            scheduled: None,
        }
    }

    /// Has these relays let through what the peer said of itself, and all of them no longer what it said long ago.
    pub(crate) fn permit(
        &mut self,
        allocations: &mut Allocations,
        relays: &[RelayName],
        now: Instant,
    ) {
        let said = self.link.remote_candidates();
        let is_past = |(_, peer): &mut (RelayName, SocketAddr)| !said.contains(peer);
        for (relay, peer) in self.permitted.extract_if(.., is_past) {
            allocations.release(&relay, peer);
        }
        for relay in relays {
            for peer in &said {
                let permitted = (relay.clone(), *peer);
                if !self.permitted.contains(&permitted) && allocations.permit(relay, *peer, now) {
                    self.permitted.push(permitted);
                }
            }
        }
    }

    /// Notes a step.
    pub(crate) fn reached(&mut self, step: Step, now: Instant) {
        let name = match step {
            Step::IceConnected => "ice-connected",
            Step::DtlsConnected => "dtls-connected",
            Step::Open => "open",
        };
        self.steps
            .push((name, now.saturating_duration_since(self.created)));
    }
}

/// All live links, with their timers and which of them have to be drained.
#[derive(Debug)]
pub(crate) struct ActiveLinks {
    table: LinkTable<ActiveLink>,
    timers: BTreeSet<(Instant, u64)>,
    dirty: Vec<u64>,
}

impl ActiveLinks {
    /// Room for `limit` links.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            table: LinkTable::new(limit),
            timers: BTreeSet::new(),
            dirty: Vec::new(),
        }
    }

    /// Takes a link in; it has to be drained. `false`: there is no room.
    pub(crate) fn insert(&mut self, active: ActiveLink) -> bool {
        let key = active.key.0;
        let ufrag = active.link.local_ufrag().to_owned();
        let inserted = self.table.insert(key, &ufrag, active);
        if inserted {
            self.touch(LinkKey(key));
        }
        inserted
    }

    /// Takes a link out.
    pub(crate) fn remove(&mut self, key: LinkKey) -> Option<ActiveLink> {
        let active = self.table.remove(key.0)?;
        if let Some(at) = active.scheduled {
            self.timers.remove(&(at, key.0));
        }
        Some(active)
    }

    /// The link, for something that may make it have output.
    pub(crate) fn touch(&mut self, key: LinkKey) -> Option<&mut ActiveLink> {
        Some(mark(&mut self.dirty, self.table.get_mut(key.0)?))
    }

    /// The link, while it is being drained.
    pub(crate) fn touch_quietly(&mut self, key: LinkKey) -> Option<&mut ActiveLink> {
        self.table.get_mut(key.0)
    }

    /// The link that a datagram is for; it has to be drained afterwards.
    pub(crate) fn route(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
    ) -> Option<&mut ActiveLink> {
        let key = self.table.route(local, remote, payload)?;
        Some(mark(&mut self.dirty, self.table.get_mut(key)?))
    }

    /// Remembers a pair that the link sends to, so that what comes back finds it.
    pub(crate) fn learn(&mut self, key: LinkKey, local: SocketAddr, remote: SocketAddr) {
        self.table.learn(key.0, local, remote);
    }

    /// The next link to drain.
    pub(crate) fn pop_dirty(&mut self) -> Option<LinkKey> {
        while let Some(key) = self.dirty.pop() {
            if let Some(active) = self.table.get_mut(key) {
                active.dirty = false;
                return Some(LinkKey(key));
            }
        }
        None
    }

    /// Asks a drained link when it wants to be woken.
    ///
    /// A timer that moved to later is left where it is: it fires early, once, and is then set anew. That is much
    /// cheaper than moving it with every packet.
    pub(crate) fn reschedule(&mut self, key: LinkKey) {
        let Some(active) = self.table.get_mut(key.0) else {
            return;
        };
        let Some(wanted) = active.link.poll_timeout() else {
            return;
        };
        if active
            .scheduled
            .is_some_and(|scheduled| scheduled <= wanted)
        {
            return;
        }
        if let Some(scheduled) = active.scheduled.replace(wanted) {
            self.timers.remove(&(scheduled, key.0));
        }
        self.timers.insert((wanted, key.0));
    }

    /// When the first link wants to be woken.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Wakes the links whose time has come; they have to be drained afterwards.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, key)) = self.timers.first()
            && at <= now
        {
            self.timers.pop_first();
            if let Some(active) = self.table.get_mut(key) {
                active.scheduled = None;
                if active.link.poll_timeout().is_some_and(|due| due <= now) {
                    active.link.handle_timeout(now);
                }
                mark(&mut self.dirty, active);
            }
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The keys of all of them, in no order.
    pub(crate) fn keys(&self) -> Vec<LinkKey> {
        self.table.iter().map(|(key, _)| LinkKey(key)).collect()
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ActiveLink> {
        self.table.iter().map(|(_, active)| active)
    }
}

/// Notes that a link has to be drained.
fn mark<'a>(dirty: &mut Vec<u64>, active: &'a mut ActiveLink) -> &'a mut ActiveLink {
    if !std::mem::replace(&mut active.dirty, true) {
        dirty.push(active.key.0);
    }
    active
}
