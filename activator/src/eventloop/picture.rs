//! What `/status` and `/metrics` show.

use std::{collections::BTreeMap, sync::Arc};

use service_kit::status::{LinkStatus, StepStatus, milliseconds};

use super::EventLoop;
use crate::{
    metrics::Picture,
    status::{AllocationStatus, NameStatus, Status},
};

/// Of [`Status::names`].
const MAX_NAMES_SHOWN: usize = 256;

impl EventLoop {
    pub(super) fn status(&self) -> Status {
        let registration = self.gateway.registration();
        let relays: BTreeMap<_, _> = self
            .allocations
            .stats()
            .map(|(name, stats, peers, way)| (name, (stats, peers, way)))
            .collect();
        let allocations = self
            .gateway
            .reservations()
            .status()
            .map(|held| {
                let (stats, peers, way) = relays.get(held.relay).copied().unwrap_or_default();
                AllocationStatus {
                    relay: held.relay.to_string(),
                    network: held.network.to_string(),
                    server: way.map(|way| way.server.to_string()),
                    transport: way.map(|way| way.transport.to_string()),
                    relayed: held.relayed.iter().map(ToString::to_string).collect(),
                    state: match (held.ways, held.relayed) {
                        ([], _) => "waiting",
                        (_, []) => "allocating",
                        _ if held.ending => "ending",
                        _ => "allocated",
                    },
                    peers,
                    bytes_sent: stats.bytes_sent,
                    bytes_received: stats.bytes_received,
                }
            })
            .collect();
        let mut links: Vec<LinkStatus> = self
            .links
            .iter()
            .map(|active| {
                let stats = active.link.stats();
                LinkStatus {
                    link: active.key.0,
                    peer: active.peer.to_string(),
                    state: LinkStatus::state(active.link.is_open()),
                    path: active.link.path().map(|path| path.to_string()),
                    carrier: active
                        .link
                        .is_open()
                        .then(|| active.link.carrier().to_string()),
                    rtt_ms: active.link.rtt().map(milliseconds),
                    steps: active
                        .steps
                        .iter()
                        .map(|(step, after)| StepStatus::new(step, *after))
                        .collect(),
                    frames_sent: stats.frames_sent,
                    bytes_sent: stats.bytes_sent,
                    frames_received: stats.frames_received,
                    bytes_received: stats.bytes_received,
                    frames_refused: stats.frames_refused,
                    queue_dropped: stats.queue_dropped,
                    queue_marked: stats.queue_marked,
                }
            })
            .collect();
        links.sort_by_key(|link| link.link);
        Status {
            node: self.directory.identity().node_id().to_string(),
            instance: format!("{:016x}", registration.instance),
            discovery_connected: self.directory.view().connected,
            reflexive: self
                .reflexive
                .candidates()
                .map(|seen| seen.address.to_string())
                .collect(),
            allocations,
            links,
            services: registration
                .services
                .iter()
                .map(|service| service.name.clone())
                .collect(),
            names: self.names(),
        }
    }

    fn names(&self) -> Vec<NameStatus> {
        let all = self.gateway.names().status().map(|known| NameStatus {
            name: known.name.to_string(),
            addresses: known.addresses.iter().map(ToString::to_string).collect(),
            problem: known.problem,
            links: known.links,
        });
        let mut names: Vec<NameStatus> = all.collect();
        names.sort_by(|one, other| one.name.cmp(&other.name));
        names.truncate(MAX_NAMES_SHOWN);
        names
    }

    pub(super) fn publish_picture(&self) {
        let mut shell = self.stats;
        for (_, stats, ..) in self.allocations.stats() {
            shell.relay_messages_dropped += stats.dropped;
            shell.datagrams_refused += stats.refused;
        }
        let reservations = self.gateway.reservations();
        self.board.store(Arc::new(Picture {
            forward: *self.gateway.forwarder.stats(),
            gateway: *self.gateway.stats(),
            name_stats: *self.gateway.names().stats(),
            names: self.gateway.names().len(),
            shell,
            links: self.links.len(),
            links_open: self
                .links
                .iter()
                .filter(|active| active.link.is_open())
                .count(),
            allocations: reservations
                .status()
                .filter(|held| !held.relayed.is_empty())
                .count(),
            allocations_wanted: reservations.status().count(),
            clients: self.gateway.forwarder.nat().clients(),
            discovery_connected: self.directory.view().connected,
        }));
    }
}
