//! What a test does to the world, and what it can see.

use std::time::Duration;

use super::{Happening, World, agent};
use crate::gate::Gate;
use crate::picture::{RELAY_OUTSIDE, address};
use crate::relay::Counts;
use crate::signaling::DELAY;

impl World {
    /// The relay is killed: what is sent to it is lost.
    pub const fn stop_relay(&mut self) {
        self.relay.up = false;
    }

    /// The relay starts, with nothing left of what it knew.
    pub fn start_relay(&mut self) {
        self.incarnation += 1;
        self.relay.restart(self.incarnation, self.now);
    }

    /// The activator is killed. Its registration stays as long as a lease does, that is, until it is back.
    pub fn stop_gate(&mut self) {
        let before = self.data_at_gate();
        self.earlier_from_peers = before;
        self.gate = None;
    }

    /// Another activator process starts, under the same name.
    pub fn start_gate(&mut self) {
        self.stop_gate();
        self.reference.on_gate_started();
        self.gate = Some(Gate::start(self.random.next(), self.now));
        self.carry_out();
        self.fetch_mail();
        self.carry_out();
    }

    /// The sidecar is killed and another starts, under the same name, with the port given or the same.
    pub fn restart_sidecar(&mut self, port: u16) {
        self.agent = agent(self.idle_timeout, port, self.random.next());
        self.timeline.push(self.now + DELAY, Happening::View);
    }

    /// Discovery is gone.
    pub const fn stop_signaling(&mut self) {
        self.signaling.away = true;
    }

    /// Discovery is back: everybody publishes, looks and fetches anew.
    pub fn start_signaling(&mut self) {
        self.signaling.away = false;
        self.timeline.push(self.now + DELAY, Happening::Registered);
    }

    /// East's router forgets all mappings.
    pub fn forget_nat(&mut self) {
        self.nat.forget();
    }

    /// The relay is to be watched for this.
    pub fn watch_for(&mut self, marker: &[u8]) {
        self.relay.marker = marker.to_vec();
    }

    /// How often what is watched for crossed the relay, and how many datagrams were looked through.
    #[must_use]
    pub const fn seen_at_relay(&self) -> (u64, u64) {
        (self.relay.marker_seen, self.relay.inspected)
    }

    /// Somebody unknown sends the relay something.
    pub fn send_to_relay(&mut self, payload: &[u8]) {
        let from = address("198.51.100.9:9");
        let payload = payload.to_vec();
        let to = address(RELAY_OUTSIDE);
        self.timeline
            .push(self.now, Happening::Datagram { from, to, payload });
    }

    /// Whether the activator holds an allocation in west.
    #[must_use]
    pub fn has_foothold(&self) -> bool {
        let west = "west".parse().expect("a name");
        self.gate
            .as_ref()
            .is_some_and(|gate| gate.gateway.has_foothold_in(&west))
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
        self.gate.as_ref().map(Gate::open_links).unwrap_or_default()
    }

    /// Links of the activator that found a direct way, where there is none.
    #[must_use]
    pub fn direct_at_gate(&self) -> usize {
        self.gate.as_ref().map_or(0, Gate::direct_links)
    }

    /// Links that opened, as the activator counts.
    #[must_use]
    pub fn opened_at_gate(&self) -> u64 {
        self.gate.as_ref().map_or(0, |gate| gate.opened)
    }

    /// Links that opened, as the sidecar counts.
    #[must_use]
    pub const fn opened_at_sidecar(&self) -> u64 {
        self.agent.stats().links_opened
    }

    /// Why links of the activator ended.
    #[must_use]
    pub fn closed_at_gate(&self) -> Vec<String> {
        self.gate
            .as_ref()
            .map(|gate| gate.closed.clone())
            .unwrap_or_default()
    }

    /// What the relay's core says it relayed: to peers, to clients.
    #[must_use]
    pub fn relayed(&self) -> [Counts; 2] {
        let stats = self.relay.stats();
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
        let allocations = self.gate.iter().flat_map(|gate| &gate.allocations);
        for standing in allocations {
            counts.packets += standing.from_peers.packets;
            counts.bytes += standing.from_peers.bytes;
        }
        counts
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
