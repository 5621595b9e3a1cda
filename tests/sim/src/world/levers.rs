//! What a test does to the world, and what it can see.

use std::time::Duration;

use super::{Happening, World, agent, hosts};
use crate::allocation::Part;
use crate::gate::Gate;
use crate::picture::{GATES, RELAYS, address};
use crate::relay::{Counts, RelayHost};
use crate::signaling::{DELAY, LEASE};

/// A relay that drains ends after this.
const DRAIN: Duration = Duration::from_secs(20);

impl World {
    /// The relay is killed: what is sent to it is lost.
    pub fn stop_relay(&mut self) {
        self.stop_relay_at(0);
    }

    /// As [`World::stop_relay`], for any of them.
    pub fn stop_relay_at(&mut self, relay: usize) {
        self.relays[relay].up = false;
    }

    /// The relay starts, with nothing left of what it knew.
    pub fn start_relay(&mut self) {
        self.start_relay_at(0);
    }

    /// As [`World::start_relay`], for any of them.
    pub fn start_relay_at(&mut self, relay: usize) {
        self.incarnation = self.incarnation.wrapping_add(1);
        self.relays[relay].restart(self.incarnation, self.now);
    }

    /// The relay is told to stop: it takes nothing new, and is gone after 20 s.
    pub fn drain_relay_at(&mut self, relay: usize) {
        let host = &mut self.relays[relay];
        host.server.set_draining(Some(self.now + DRAIN));
        let drained = Happening::Drained(relay, host.incarnation);
        self.timeline.push(self.now + DRAIN, drained);
    }

    pub(super) fn on_drained(&mut self, relay: usize, incarnation: u8) {
        if self.relays[relay].incarnation == incarnation {
            self.stop_relay_at(relay);
        }
    }

    /// The activator is killed. Its registration stays as long as a lease does.
    pub fn stop_gate(&mut self) {
        self.stop_gate_at(0);
    }

    /// As [`World::stop_gate`], for any of them.
    pub fn stop_gate_at(&mut self, gate: usize) {
        let Some(ended) = self.gates[gate].take() else {
            return;
        };
        for standing in &ended.allocations {
            self.earlier_from_peers.packets += standing.from_peers.packets;
            self.earlier_from_peers.bytes += standing.from_peers.bytes;
        }
        for (local, relay) in ended.streams() {
            self.part_leaves(local, relay, true, Part::Reset);
        }
        let over = Happening::LeaseOver(gate, self.runs[gate]);
        self.timeline.push(self.now + LEASE, over);
    }

    /// The activator is told to stop: it withdraws, says good-bye, gives its allocations back.
    pub fn shut_gate_at(&mut self, gate: usize) {
        if let Some(open) = &mut self.gates[gate] {
            open.shut_down(self.now);
            self.carry_out();
        }
        self.stop_gate_at(gate);
    }

    /// Another activator process starts, under the same name.
    pub fn start_gate(&mut self) {
        self.start_gate_at(0);
    }

    /// As [`World::start_gate`], for any of them.
    pub fn start_gate_at(&mut self, gate: usize) {
        self.stop_gate_at(gate);
        self.runs[gate] += 1;
        self.reference.on_gate_started(gate);
        let (site, seed) = (GATES[gate], self.random.next());
        self.gates[gate] = Some(Gate::start(site, self.extent, seed, self.now));
        self.carry_out();
        self.fetch_mail();
        self.carry_out();
    }

    /// The cable between the networks is cut, or mended.
    pub const fn set_cable(&mut self, whole: bool) {
        self.cable = whole;
    }

    /// East's router lets nothing but TCP pass, or everything.
    pub const fn set_udp_blocked(&mut self, blocked: bool) {
        self.nat.no_udp = blocked;
    }

    /// The sidecar's host gets another address, and loses the one it had.
    pub fn move_sidecar(&mut self) {
        self.place = 1 - self.place;
        let port = self.hosts[0].port();
        self.hosts = hosts(self.extent, self.place, port);
        self.agent.handle_hosts(self.hosts.clone(), self.now);
        self.carry_out();
    }

    /// The sidecar is killed and another starts, under the same name, with the port given or the same.
    pub fn restart_sidecar(&mut self, port: u16) {
        self.hosts = hosts(self.extent, self.place, port);
        let seed = self.random.next();
        self.agent = agent(self.idle_timeout, self.extent, self.hosts.clone(), seed);
        self.timeline.push(self.now + DELAY, Happening::View);
    }

    /// Discovery is gone.
    pub const fn stop_signaling(&mut self) {
        self.signaling.away = true;
    }

    /// Discovery is back: everybody publishes, looks and fetches anew.
    pub fn start_signaling(&mut self) {
        self.signaling.away = false;
        for (gate, held) in self.gates.iter().enumerate() {
            let (after, happening) = match held {
                Some(_) => (DELAY, Happening::Registered(gate)),
                None => (LEASE, Happening::LeaseOver(gate, self.runs[gate])),
            };
            self.timeline.push(self.now + after, happening);
        }
        self.timeline.push(self.now + DELAY, Happening::View);
    }

    /// East's router forgets all mappings: connections through it are over.
    pub fn forget_nat(&mut self) {
        self.nat.forget();
        let gates = self.gates.iter().flatten();
        let streams: Vec<_> = gates.flat_map(Gate::streams).collect();
        for (local, relay) in streams {
            self.part_leaves(local, relay, true, Part::Reset);
            self.part_leaves(local, relay, false, Part::Reset);
        }
    }

    /// The relay is to be watched for this.
    pub fn watch_for(&mut self, marker: &[u8]) {
        for relay in &mut self.relays {
            relay.marker = marker.to_vec();
        }
    }

    /// How often what is watched for crossed the relay, and how many datagrams were looked through.
    #[must_use]
    pub fn seen_at_relay(&self) -> (u64, u64) {
        let sum = |what: fn(&RelayHost) -> u64| self.relays.iter().map(what).sum();
        (sum(|relay| relay.marker_seen), sum(|relay| relay.inspected))
    }

    /// Somebody unknown sends the relay something.
    pub fn send_to_relay(&mut self, payload: &[u8]) {
        let from = address("198.51.100.9:9");
        let payload = payload.to_vec();
        let to = address(RELAYS[0].outside);
        self.timeline
            .push(self.now, Happening::Datagram { from, to, payload });
    }

    /// Whether every activator holds an allocation in west.
    #[must_use]
    pub fn has_foothold(&self) -> bool {
        let west = "west".parse().expect("a name");
        let mut gates = self.gates.iter();
        gates.all(|gate| {
            gate.as_ref()
                .is_some_and(|gate| gate.gateway.has_foothold_in(&west))
        })
    }

    /// The links that are open for the sidecar.
    #[must_use]
    pub fn open_at_sidecar(&self) -> Vec<u64> {
        let status = self.agent.status();
        status
            .iter()
            .filter(|link| link.open)
            .map(|link| link.link)
            .collect()
    }

    /// The links that are open for the activator, by the sidecar's names.
    #[must_use]
    pub fn open_at_gate(&self) -> Vec<u64> {
        let gates = self.gates.iter().flatten();
        gates.flat_map(Gate::open_links).collect()
    }

    /// Links of the activator that found a direct way, where there is none.
    #[must_use]
    pub fn direct_at_gate(&self) -> usize {
        self.gates.iter().flatten().map(Gate::direct_links).sum()
    }

    /// Links that opened, as the activator counts.
    #[must_use]
    pub fn opened_at_gate(&self) -> u64 {
        self.gates.iter().flatten().map(|gate| gate.opened).sum()
    }

    /// Links that opened, as the sidecar counts.
    #[must_use]
    pub const fn opened_at_sidecar(&self) -> u64 {
        self.agent.stats().links_opened
    }

    /// Why links of the activator ended.
    #[must_use]
    pub fn closed_at_gate(&self) -> Vec<String> {
        let gates = self.gates.iter().flatten();
        gates.flat_map(|gate| gate.closed.clone()).collect()
    }

    /// What the relay's core says it relayed: to peers, to clients.
    #[must_use]
    pub fn relayed(&self) -> [Counts; 2] {
        let stats = self.relays[0].stats();
        [stats.to_peer, stats.to_client].map(|traffic| Counts {
            packets: traffic.packets,
            bytes: traffic.bytes,
        })
    }

    /// Data that left the relay on its inside leg.
    #[must_use]
    pub const fn relay_sent_inside(&self) -> Counts {
        self.relay_sent_inside
    }

    /// Data of peers that reached activators through allocations.
    #[must_use]
    pub fn data_at_gate(&self) -> Counts {
        let mut counts = self.earlier_from_peers;
        let gates = self.gates.iter().flatten();
        let allocations = gates.flat_map(|gate| &gate.allocations);
        for standing in allocations {
            counts.packets += standing.from_peers.packets;
            counts.bytes += standing.from_peers.bytes;
        }
        counts
    }

    /// Datagrams that a relay relayed, as its core counts.
    #[must_use]
    pub fn relayed_by(&self, relay: usize) -> u64 {
        let stats = self.relays[relay].stats();
        stats.to_peer.packets + stats.to_client.packets
    }

    /// Allocations on a relay, as its core counts.
    #[must_use]
    pub fn allocations_at(&self, relay: usize) -> u64 {
        self.relays[relay].stats().allocations
    }

    /// Whether no datagram is on its way.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        !self
            .timeline
            .iter()
            .any(|happening| matches!(happening, Happening::Datagram { .. }))
    }

    /// What the router refused to let in.
    #[must_use]
    pub const fn refused_by_nat(&self) -> u64 {
        self.nat.refused
    }

    /// Sends pings until one sent from now on is answered; how long that took, if it was within `limit`.
    pub fn until_served(&mut self, service: &crate::Service, limit: Duration) -> Option<Duration> {
        let start = self.now;
        let mut pings = Vec::new();
        while self.now - start <= limit {
            pings.push(self.ping(service));
            let every = Duration::from_millis(200);
            if self.run_until(every, |world| {
                pings.iter().any(|ping| world.reference.is_replied(*ping))
            }) {
                return Some(self.now - start);
            }
        }
        None
    }
}
