//! How much every mind holds, to be compared with what it held before.

use crate::world::World;

/// Sizes of all tables that links fill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Links of the sidecar, in whatever state.
    pub sidecar_links: usize,
    /// Links of the activator's shell.
    pub gate_links: usize,
    /// Links the gateway knows.
    pub gateway_links: usize,
    /// Links with virtual IPs.
    pub nat_links: usize,
    /// Client addresses in use.
    pub clients: usize,
    /// Peers that links hold on allocations.
    pub held_peers: usize,
    /// Peers the allocations keep.
    pub allocation_peers: usize,
    /// Requests of allocations without an answer.
    pub requests_waiting: usize,
    /// The relay's, as its counters say.
    pub relay_allocations: u64,
    /// See `relay_allocations`.
    pub relay_permissions: u64,
    /// See `relay_allocations`.
    pub relay_channels: u64,
    /// The relay's sockets.
    pub relay_sockets: usize,
    /// What the router remembers.
    pub nat_mappings: usize,
    /// Documents that wait.
    pub mails: usize,
}

impl Tables {
    /// Without what relays and NATs forget by themselves, minutes after it was last used.
    pub(crate) const fn without_relays(self) -> Self {
        Self {
            relay_allocations: 0,
            relay_permissions: 0,
            relay_channels: 0,
            relay_sockets: 0,
            nat_mappings: 0,
            ..self
        }
    }
}

impl World {
    /// How full everything is now.
    #[must_use]
    pub fn tables(&self) -> Tables {
        let mut tables = Tables {
            sidecar_links: self.agent().status().len(),
            nat_mappings: self.nat.mappings(),
            mails: self.signaling.mails(),
            ..Tables::default()
        };
        for relay in &self.relays {
            let stats = relay.stats();
            tables.relay_allocations += stats.allocations;
            tables.relay_permissions += stats.permissions;
            tables.relay_channels += stats.channels;
            tables.relay_sockets += relay.sockets();
        }
        for gate in self.gates.iter().flatten() {
            let nat = gate.gateway.forwarder.nat();
            tables.gate_links += gate.links();
            tables.gateway_links += gate.gateway.links().len();
            tables.nat_links += nat.links();
            tables.clients += nat.clients();
            for standing in &gate.allocations {
                tables.held_peers += standing.peers();
                tables.allocation_peers += standing.mind.peers();
                tables.requests_waiting += standing.mind.requests_waiting();
            }
        }
        tables
    }
}
