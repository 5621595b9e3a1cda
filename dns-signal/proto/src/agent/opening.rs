//! Opening links: whom to ask, what to offer, when to try again.

use std::sync::Arc;
use std::time::Instant;

use link::{Link, LinkConfig, LinkRole, PathChoice};
use model::{NetworkName, NodeId};
use protocol::document::Offer;
use protocol::document::document::Body;

use super::route::Destination;
use super::session::Session;
use super::{Agent, AgentOutput, Failure, FailureKind, LinkNotice, MAX_BACKOFF, MIN_BACKOFF};

/// Services named in an offer, which discovery keeps for a while; the others are asked for over the link.
const MAX_OFFERED: usize = 64;

impl Agent {
    pub(super) fn open_link(
        &mut self,
        destination: &Arc<Destination>,
        since: Instant,
        now: Instant,
    ) {
        let network = &destination.network;
        let Some(remote) = self.remotes.get_mut(network) else {
            return;
        };
        if remote.retry_at.is_some_and(|retry_at| now < retry_at) {
            return;
        }
        let avoid = remote.last_failed.as_ref();
        let rank = |node: &NodeId| Some((Some(node) == avoid, self.health.rank(node, now)));
        let chosen = self.peers.choose(network, &self.config.network, rank);
        let Some((node, registration)) = chosen else {
            let why = "no activator of that network is registered".to_owned();
            let failure = Failure::before(FailureKind::NoActivator, None, why, now);
            return self.on_open_failed(network, failure);
        };
        let (node, instance) = (node.clone(), registration.instance);
        // What waits already is asked for in the same breath.
        let mut destinations = vec![destination.clone()];
        if let Some(remote) = self.remotes.get(network) {
            destinations.extend(remote.waiting.iter().map(|it| it.destination.clone()));
        }
        match self.make_offer(&node, instance, &destinations, since, now) {
            Ok(key) => {
                if let Some(remote) = self.remotes.get_mut(network) {
                    remote.link = Some(key);
                    remote.retry_at = None;
                }
            }
            Err(why) => {
                let failure = Failure::before(FailureKind::Local, Some(node), why, now);
                self.on_open_failed(network, failure);
            }
        }
    }

    pub(super) fn make_offer(
        &mut self,
        node: &NodeId,
        instance: u64,
        destinations: &[Arc<Destination>],
        since: Instant,
        now: Instant,
    ) -> Result<u64, String> {
        let choice = self.config.paths.get(&node.network).copied();
        let link_config = LinkConfig {
            path: choice.unwrap_or(self.config.link.path),
            ..self.config.link.clone()
        };
        let may_relay = link_config.path != PathChoice::DirectOnly;
        if may_relay && self.relays.last_needed {
            self.want_relays(node.network.clone(), now);
        }
        let mut link = Link::new(
            LinkRole::Offerer,
            self.certificate.clone(),
            &link_config,
            now,
        )
        .map_err(|error| error.to_string())?;
        for candidate in self.candidates() {
            link.add_local_candidate(candidate, now)
                .map_err(|error| error.to_string())?;
        }
        // 0 stands for "no link" in documents.
        let key = self.next_link.max(1);
        self.next_link = key.wrapping_add(1);
        let description = link.local_description();
        let ufrag = link.local_ufrag().to_owned();
        let mut session = Session::new(
            node.clone(),
            instance,
            link,
            since,
            now + self.config.answer_timeout,
        );
        session.may_relay = may_relay;
        let mut bindings = Vec::new();
        for destination in destinations {
            if bindings.len() >= MAX_OFFERED {
                break;
            }
            if session.binding(&destination.service).is_none() {
                bindings.push(session.bind(destination, now));
            }
        }
        session.record("dns_answer", since);
        session.record("offer_sent", now);
        if !self.links.insert(key, &ufrag, session) {
            return Err("too many links".to_owned());
        }
        let offer = Offer {
            link: key,
            instance,
            description: Some(description),
            bindings,
            traceparent: String::new(),
        };
        let body = Body::Offer(offer);
        self.outputs.push_back(AgentOutput::Document {
            to: node.clone(),
            link: key,
            body,
        });
        self.stats.links_offered += 1;
        Ok(key)
    }

    /// Tries a network again for which frames wait.
    pub(super) fn retry(&mut self, network: &NetworkName, now: Instant) {
        let Some(remote) = self.remotes.get_mut(network) else {
            return;
        };
        let aged = remote.waiting.expire(now);
        self.on_aged(&aged);
        let Some(remote) = self.remotes.get(network).filter(|it| it.link.is_none()) else {
            return;
        };
        let Some(oldest) = remote.waiting.front() else {
            return;
        };
        let (destination, since) = (oldest.destination.clone(), oldest.since);
        self.open_link(&destination, since, now);
    }

    pub(super) fn on_open_failed(&mut self, network: &NetworkName, failure: Failure) {
        let Some(remote) = self.remotes.get_mut(network) else {
            return;
        };
        let backoff = MIN_BACKOFF
            .saturating_mul(1 << remote.failures.min(4))
            .min(MAX_BACKOFF);
        remote.failures += 1;
        remote.retry_at = Some(failure.at + backoff);
        remote.last_failed.clone_from(&failure.node);
        self.stats.links_failed += 1;
        let notice = LinkNotice::OpenFailed {
            network: network.clone(),
            reason: failure.reason.clone(),
        };
        remote.attempts_failed += 1;
        remote.failure = Some(failure);
        self.outputs.push_back(AgentOutput::Notice(notice));
    }
}
