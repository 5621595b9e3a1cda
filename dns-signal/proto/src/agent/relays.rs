//! Relayed addresses of this sidecar's own, for links that find no path without one: where UDP is blocked, a relay is
//! still reached over TCP or TLS.
//!
//! ```text
//!   a link without a path for a moment ──▶ allocations on a few relays ──▶ the activators are told ──▶ links use them
//!   no link that uses one, for long    ──▶ released
//! ```
//!
//! The next link asks for them at once where the last one needed them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use link::{CandidateKind, LocalCandidate, Path};
use model::{NetworkName, RelayAccess, RelayName, RelayTransport, RelayedAddr};
use protocol::directory::Relay;
use turn_client::{LostReason, ReservationStatus, Reservations};

use super::session::Session;
use super::{Agent, AgentOutput};

/// From the answer to a path without them; punching takes less.
pub(super) const OPENING_PATIENCE: Duration = Duration::from_secs(1);
/// A link that was open and fell silent: it ends soon after.
pub(super) const SILENCE_PATIENCE: Duration = Duration::from_millis(300);
/// They are kept for so long after the last link needed them.
const HELD_FOR: Duration = Duration::from_secs(120);
/// Relays that there are allocations on.
const MAX_RELAYS: usize = 2;

#[derive(Debug)]
pub(super) struct OwnRelays {
    network: NetworkName,
    /// Those of the mesh.
    known: BTreeMap<RelayName, Relay>,
    pub(super) reservations: Reservations,
    /// How the relays are reached that something is held on.
    legs: BTreeMap<RelayName, Path>,
    /// Where links lead to that need one.
    needed_for: BTreeSet<NetworkName>,
    pub(super) until: Option<Instant>,
    /// The link that opened last went over one.
    pub(super) last_needed: bool,
}

impl OwnRelays {
    pub(super) fn new(network: NetworkName, seed: u64) -> Self {
        Self {
            network,
            known: BTreeMap::new(),
            reservations: Reservations::new(seed),
            legs: BTreeMap::new(),
            needed_for: BTreeSet::new(),
            until: None,
            last_needed: false,
        }
    }

    /// The addresses that are held now; those on relays that drain only where there are no others.
    pub(super) fn candidates(&self) -> impl Iterator<Item = LocalCandidate> {
        let lasts = |status: &ReservationStatus<'_>| !status.ending && !status.relayed.is_empty();
        let none_lasts = !self.reservations.status().any(|status| lasts(&status));
        let held = self.reservations.status();
        let held = held.filter(move |status| lasts(status) || none_lasts);
        let held = held.flat_map(|status| status.relayed);
        held.map(|relayed| LocalCandidate {
            kind: CandidateKind::Relayed,
            address: relayed.0,
            base: relayed.0,
        })
    }

    /// How the relay is reached whose address this is; none: it is none of ours.
    pub(super) fn leg_of(&self, address: SocketAddr) -> Option<Path> {
        let holds = |relayed: &[RelayedAddr]| relayed.iter().any(|held| held.0 == address);
        let mut all = self.reservations.status();
        let found = all.find(|status| holds(status.relayed))?;
        self.legs.get(found.relay).copied()
    }

    /// Whether what is held on a relay will soon be gone; none: nothing is held there.
    fn held(&self, relay: &RelayName) -> Option<bool> {
        let mut all = self.reservations.status();
        let found = all.find(|status| status.relay == relay)?;
        (!found.relayed.is_empty()).then_some(found.ending)
    }

    /// Those of this network: activators have allocations there. If it has none, those of the networks that links lead to:
    /// activators are reached from there without.
    fn wanted(&self) -> Vec<(&RelayName, &Relay)> {
        if self.until.is_none() {
            return Vec::new();
        }
        let in_own = |relay: &Relay| relay.network == self.network.as_str();
        let needed = |relay: &Relay| {
            let mut networks = self.needed_for.iter();
            networks.any(|network| relay.network == network.as_str())
        };
        let without = !self.known.values().any(in_own);
        let wanted = |relay: &Relay| in_own(relay) || without && needed(relay);
        let all = self.known.iter().filter(|(_, relay)| wanted(relay));
        // Those that drain until they are given back, and as many others as ever; what is held rather than what is not.
        let rank = |name: &RelayName| match self.held(name) {
            Some(true) => 0,
            Some(false) => 1,
            None => 2,
        };
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(name, _)| rank(name));
        let ending = all.iter().filter(|(name, _)| rank(name) == 0).count();
        all.truncate(MAX_RELAYS + ending);
        all
    }
}

impl Agent {
    /// The relays of the mesh are these now.
    pub fn handle_relays(
        &mut self,
        relays: impl IntoIterator<Item = (RelayName, Relay)>,
        now: Instant,
    ) {
        self.relays.known = relays.into_iter().collect();
        self.reserve(now);
    }

    /// What an allocation needs came, or cannot be had.
    pub fn handle_access(
        &mut self,
        relay: &RelayName,
        access: Result<RelayAccess, String>,
        now: Instant,
    ) {
        let reservations = &mut self.relays.reservations;
        let gone = reservations.handle_access(relay, access, now, &mut self.outputs);
        self.retire_relayed(relay, &gone, now);
    }

    /// There can be no socket for an allocation.
    pub fn handle_not_started(&mut self, relay: &RelayName, now: Instant) {
        self.relays.reservations.handle_not_started(relay, now);
    }

    /// The relay no longer takes the credential.
    pub fn handle_credential_refused(&mut self, relay: &RelayName, now: Instant) {
        let reservations = &mut self.relays.reservations;
        reservations.handle_credential_refused(relay, now, &mut self.outputs);
    }

    /// There is an allocation: links may use it, and their activators are told.
    pub fn handle_allocated(
        &mut self,
        relay: RelayName,
        relayed: Vec<RelayedAddr>,
        transport: RelayTransport,
        now: Instant,
    ) {
        let news = self.relays.reservations.handle_allocated(&relay, relayed);
        self.relays.legs.insert(relay, Path::over(transport));
        if !news {
            return;
        }
        let candidates: Vec<LocalCandidate> = self.relays.candidates().collect();
        for key in self.keys() {
            self.permit(key);
            self.trickle(key, &candidates, now);
        }
    }

    /// An allocation is reached another way now.
    pub fn handle_moved(&mut self, relay: RelayName, transport: RelayTransport, now: Instant) {
        self.relays.legs.insert(relay, Path::over(transport));
        for key in self.keys() {
            let Some(session) = self.links.get_mut(key) else {
                continue;
            };
            session.set_leg(&self.relays, now);
            self.drain(key, now);
        }
    }

    /// An allocation will soon be gone, because the relay drains: another is asked for, and links go over to it.
    pub fn handle_ending(&mut self, relay: &RelayName, now: Instant) {
        self.relays.reservations.handle_ending(relay, now);
        self.reserve(now);
    }

    /// Takes links off relays that drain, and gives back what none uses any more.
    fn leave_relays(&mut self, now: Instant) {
        for (relay, relayed) in self.relays.reservations.poll_leave(now) {
            let mut left = true;
            for key in self.keys() {
                let Some(session) = self.links.get_mut(key) else {
                    continue;
                };
                for address in &relayed {
                    left &= session.link.leave_address(address.0, now);
                }
                self.drain(key, now);
            }
            if left {
                let reservations = &self.relays.reservations;
                reservations.give_back(&relay, &mut self.outputs);
            }
        }
    }

    /// An allocation is gone; links look for another way.
    pub fn handle_lost(&mut self, relay: &RelayName, reason: &LostReason, now: Instant) {
        let reservations = &mut self.relays.reservations;
        let gone = reservations.handle_lost(relay, reason.trouble());
        self.retire_relayed(relay, &gone, now);
    }

    /// Asks for what links need that have no path, and gives back what none needs any more.
    pub(super) fn look_after_relays(&mut self, now: Instant) {
        let mut needy = Vec::new();
        for (_, session) in self.links.iter_mut() {
            let due = session.relay_due.take_if(|due| *due <= now);
            if due.is_some() && session.has_no_path() {
                needy.push(session.node.network.clone());
            }
        }
        for network in needy {
            self.want_relays(network, now);
        }
        if self.relays.until.is_some_and(|until| until <= now) {
            let relays = &self.relays;
            let needs = |session: &Session| session.has_no_path() || session.uses(relays);
            let needed = self.links.iter().any(|(_, session)| needs(session));
            self.relays.until = needed.then_some(now + HELD_FOR);
            self.reserve(now);
        }
        let reservations = &mut self.relays.reservations;
        reservations.handle_timeout(now, &mut self.outputs);
        self.leave_relays(now);
    }

    /// A link to this network needs one.
    pub(super) fn want_relays(&mut self, network: NetworkName, now: Instant) {
        let first = self.relays.until.replace(now + HELD_FOR).is_none();
        if self.relays.needed_for.insert(network) || first {
            self.reserve(now);
        }
    }

    /// Nobody needs one any more.
    pub(super) fn release_relays(&mut self, now: Instant) {
        self.relays.until = None;
        self.reserve(now);
    }

    fn reserve(&mut self, now: Instant) {
        if self.relays.until.is_none() {
            self.relays.needed_for.clear();
        }
        let wanted = self.relays.wanted();
        let wanted: Vec<(RelayName, Relay)> = wanted
            .into_iter()
            .map(|(name, relay)| (name.clone(), relay.clone()))
            .collect();
        let wanted = wanted.iter().map(|(name, relay)| (name, relay));
        let reservations = &mut self.relays.reservations;
        let lost = reservations.handle_relays(wanted, now, &mut self.outputs);
        for (relay, gone) in lost {
            self.retire_relayed(&relay, &gone, now);
        }
    }

    fn retire_relayed(&mut self, relay: &RelayName, gone: &[RelayedAddr], now: Instant) {
        if gone.is_empty() {
            return;
        }
        for key in self.keys() {
            let Some(session) = self.links.get_mut(key) else {
                continue;
            };
            session.permitted.retain(|(of, _)| of != relay);
            for address in gone {
                session.link.retire_address(address.0, now);
            }
            self.drain(key, now);
        }
    }

    /// Has the relays let through what an activator said of itself, and no longer what it said long ago.
    pub(super) fn permit(&mut self, key: u64) {
        let Some(session) = self.links.get_mut(key) else {
            return;
        };
        let said = session.link.remote_candidates();
        let is_past = |(_, peer): &mut (RelayName, SocketAddr)| !said.contains(peer);
        for (relay, peer) in session.permitted.extract_if(.., is_past) {
            self.outputs
                .push_back(AgentOutput::Unpermit { relay, peer });
        }
        for status in self.relays.reservations.status() {
            for peer in &said {
                let family = |held: &RelayedAddr| held.0.is_ipv4() == peer.is_ipv4();
                let permitted = (status.relay.clone(), *peer);
                if status.relayed.iter().any(family) && !session.permitted.contains(&permitted) {
                    session.permitted.push(permitted);
                    self.outputs.push_back(AgentOutput::Permit {
                        relay: status.relay.clone(),
                        peer: *peer,
                    });
                }
            }
        }
    }

    fn keys(&self) -> Vec<u64> {
        self.links.iter().map(|(key, _)| key).collect()
    }
}
