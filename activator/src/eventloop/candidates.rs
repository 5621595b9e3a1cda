//! Where this host can be reached without a relay: its addresses, and what NATs make of them; and what offerers find
//! later of theirs.

use std::{net::SocketAddr, time::Instant};

use link::{CandidateKind, LocalCandidate};
use model::NodeId;
use protocol::document::{Candidates, document::Body};

use super::EventLoop;

/// Of a host with many addresses, and of NATs; the other side takes 16 candidates in all, relayed ones first.
const MAX_HOST_CANDIDATES: usize = 8;
const MAX_REFLEXIVE_CANDIDATES: usize = 4;

impl EventLoop {
    pub(super) fn on_stun_servers(&mut self, servers: &[SocketAddr], now: Instant) {
        self.reflexive.set_bases(&self.hosts, now);
        self.reflexive.set_servers(servers, now);
        self.ask_stun_servers(now);
    }

    /// Sends what is due, and tells every offerer what changed.
    pub(super) fn ask_stun_servers(&mut self, now: Instant) {
        self.reflexive.handle_timeout(now);
        while let Some(request) = self.reflexive.poll_transmit(now) {
            let segment = request.segment;
            self.sockets
                .send(request.local, request.remote, &request.payload, segment);
        }
        if !self.reflexive.take_changed() {
            return;
        }
        let candidates = self.candidates();
        for key in self.links.keys() {
            let Some(active) = self.links.touch(key) else {
                continue;
            };
            let link = &mut active.link;
            let news: Vec<_> = candidates
                .iter()
                .filter(|one| link.add_local_candidate(**one, now) == Ok(true))
                .map(|one| one.to_wire())
                .collect();
            if !news.is_empty() {
                let body = Body::Candidates(Candidates {
                    link: active.offered_as,
                    candidates: news,
                });
                self.signaling.post(&active.peer, body);
            }
        }
    }

    pub(super) fn candidates(&self) -> Vec<LocalCandidate> {
        let hosts = self.hosts.iter().take(MAX_HOST_CANDIDATES);
        let hosts = hosts.map(|host| LocalCandidate {
            kind: CandidateKind::Host,
            address: *host,
            base: *host,
        });
        let reflexive = self.reflexive.candidates().take(MAX_REFLEXIVE_CANDIDATES);
        reflexive.chain(hosts).collect()
    }

    pub(super) fn on_candidates(&mut self, from: &NodeId, trickled: &Candidates, now: Instant) {
        let key = self.gateway.links().by_offer(from, trickled.link);
        let Some((key, record)) = key.and_then(|key| Some((key, self.gateway.links().get(key)?)))
        else {
            return;
        };
        let relays = record.relays.clone();
        let Some(active) = self.links.touch(key) else {
            return;
        };
        let candidates = trickled.candidates.iter();
        for candidate in candidates.take(activator_proto::answer::MAX_CANDIDATES) {
            let _ = active.link.add_remote_candidate(candidate, now);
        }
        active.permit(&mut self.allocations, &relays, now);
    }
}
