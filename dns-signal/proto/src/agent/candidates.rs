//! Where this sidecar can be reached: its hosts' addresses, what NATs make of them, and relayed ones where it needs them; told to whoever has an offer
//! already when something is found later.

use std::net::SocketAddr;
use std::time::Instant;

use link::{CandidateKind, LocalCandidate};
use protocol::document::Candidates;
use protocol::document::document::Body;

use super::{Agent, AgentOutput};

/// Candidates in an offer: an activator takes 16 in all.
const MAX_RELAYED: usize = 4;
const MAX_HOST: usize = 8;
const MAX_REFLEXIVE: usize = 4;

impl Agent {
    /// Where STUN servers are, the preferred ones first.
    pub fn handle_stun_servers(&mut self, servers: &[SocketAddr], now: Instant) {
        self.reflexive.set_bases(&self.hosts, now);
        self.reflexive.set_servers(servers, now);
        self.ask_stun_servers(now);
    }

    /// This host has other addresses: links go on from those that there are now.
    pub fn handle_hosts(&mut self, hosts: Vec<SocketAddr>, now: Instant) {
        let stays = |host: &&SocketAddr| !hosts.contains(host);
        let gone: Vec<SocketAddr> = self.hosts.iter().filter(stays).copied().collect();
        self.hosts = hosts;
        self.reflexive.set_bases(&self.hosts, now);
        let candidates = self.candidates();
        let keys: Vec<u64> = self.links.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.trickle(key, &candidates, now);
            if let Some(session) = self.links.get_mut(key) {
                for address in &gone {
                    session.link.retire_address(*address, now);
                }
            }
            self.drain(key, now);
        }
        self.ask_stun_servers(now);
    }

    /// The addresses that STUN servers see of this host now.
    pub fn reflexive(&self) -> impl Iterator<Item = SocketAddr> {
        self.reflexive
            .candidates()
            .map(|candidate| candidate.address)
    }

    pub(super) fn candidates(&self) -> Vec<LocalCandidate> {
        let hosts = self.hosts.iter().take(MAX_HOST).map(|host| LocalCandidate {
            kind: CandidateKind::Host,
            address: *host,
            base: *host,
        });
        let reflexive = self.reflexive.candidates().take(MAX_REFLEXIVE);
        let relayed = self.relays.candidates().take(MAX_RELAYED);
        relayed.chain(hosts).chain(reflexive).collect()
    }

    /// Sends what is due, and tells every activator what changed.
    pub(super) fn ask_stun_servers(&mut self, now: Instant) {
        self.reflexive.handle_timeout(now);
        while let Some(request) = self.reflexive.poll_transmit(now) {
            self.outputs.push_back(AgentOutput::Transmit(request));
        }
        if !self.reflexive.take_changed() {
            return;
        }
        let candidates = self.candidates();
        let keys: Vec<u64> = self.links.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.trickle(key, &candidates, now);
        }
    }

    pub(super) fn trickle(&mut self, key: u64, candidates: &[LocalCandidate], now: Instant) {
        let Some(session) = self.links.get_mut(key) else {
            return;
        };
        let news: Vec<_> = candidates
            .iter()
            .filter(|one| session.link.add_local_candidate(**one, now) == Ok(true))
            .map(|one| one.to_wire())
            .collect();
        if news.is_empty() {
            return;
        }
        let body = Body::Candidates(Candidates {
            link: key,
            candidates: news,
        });
        self.outputs.push_back(AgentOutput::Document {
            to: session.node.clone(),
            link: key,
            body,
        });
        self.drain(key, now);
    }
}
