//! From an accepted offer to a link that looks for its path.

use std::{slice, time::Instant};

use activator_proto::{Input, LinkKey};
use link::{CandidateKind, Link, LinkConfig, LinkError, LinkRole, LocalCandidate};
use model::{NodeId, RelayName, RelayedAddr};
use protocol::document::{Answer, BindingResult, Candidates, Offer, Refusal, document::Body};

use super::EventLoop;
use crate::links::ActiveLink;

impl EventLoop {
    pub(super) fn answer(
        &mut self,
        key: LinkKey,
        to: &NodeId,
        offer: &Offer,
        relays: &[RelayName],
        bindings: Vec<BindingResult>,
        now: Instant,
    ) {
        let mut active = match self.make_link(key, to, offer, relays, now) {
            Ok(active) => active,
            Err(error) => {
                tracing::warn!(%key, peer = %to, %error, "offer refused");
                let refusal = Refusal {
                    link: offer.link,
                    reason: error.to_string(),
                };
                self.signaling.post(to, Body::Refusal(refusal));
                self.gateway
                    .handle_input(Input::LinkClosed { link: key }, now);
                return;
            }
        };
        active.permit(&mut self.allocations, relays, now);
        let answer = Answer {
            link: offer.link,
            description: Some(active.link.local_description()),
            bindings,
        };
        let traceparent = self.begin_trace(&mut active, offer);
        if self.links.insert(active) {
            tracing::debug!(%key, peer = %to, "offer answered");
            self.signaling
                .post_traced(to, Body::Answer(answer), traceparent);
        } else {
            // The gateway's bound is not above the table's; only a clash of ICE fragments leads here.
            let reason = "no room for the link; try again".to_owned();
            self.signaling.post(
                to,
                Body::Refusal(Refusal {
                    link: offer.link,
                    reason,
                }),
            );
            self.gateway
                .handle_input(Input::LinkClosed { link: key }, now);
        }
    }

    fn make_link(
        &self,
        key: LinkKey,
        to: &NodeId,
        offer: &Offer,
        relays: &[RelayName],
        now: Instant,
    ) -> Result<ActiveLink, LinkError> {
        let certificate = self.certificate.clone();
        let choice = self.paths.get(&to.network).copied();
        let config = LinkConfig {
            path: choice.unwrap_or(self.link_config.path),
            ..self.link_config.clone()
        };
        let mut link = Link::new(LinkRole::Answerer, certificate, &config, now)?;
        for relay in relays {
            for relayed in self.allocations.relayed(relay) {
                link.add_local_candidate(relayed_candidate(*relayed), now)?;
            }
        }
        for candidate in self.candidates() {
            link.add_local_candidate(candidate, now)?;
        }
        let description = offer
            .description
            .as_ref()
            .ok_or(LinkError::BadDescription("there is none"))?;
        link.set_remote_description(description, now)?;
        Ok(ActiveLink::new(link, key, to.clone(), offer.link, now))
    }

    /// An allocation that a link could use is gone.
    pub(super) fn retire(
        &mut self,
        key: LinkKey,
        relay: &RelayName,
        relayed: &[RelayedAddr],
        now: Instant,
    ) {
        let Some(active) = self.links.touch(key) else {
            return;
        };
        for address in relayed {
            active.link.retire_address(address.0, now);
        }
        for (_, peer) in active.permitted.extract_if(.., |(of, _)| of == relay) {
            self.allocations.release(relay, peer);
        }
    }

    /// A relay drains: links go over to others, which takes a round trip; it is given back when none is on it.
    pub(super) fn leave(&mut self, relay: RelayName, relayed: &[RelayedAddr], now: Instant) {
        let mut left = true;
        for key in self.links.keys() {
            let Some(active) = self.links.touch(key) else {
                continue;
            };
            for address in relayed {
                left &= active.link.leave_address(address.0, now);
            }
        }
        if left {
            self.gateway.handle_input(Input::Left { relay }, now);
        }
    }

    /// An allocation is there that a link can use. The other end hears of it through discovery, or, when that is away,
    /// by the checks that come from there.
    pub(super) fn extend(
        &mut self,
        key: LinkKey,
        (to, offered_as): (&NodeId, u64),
        relay: &RelayName,
        relayed: &[RelayedAddr],
        now: Instant,
    ) {
        let Some(active) = self.links.touch(key) else {
            return;
        };
        active.permit(&mut self.allocations, slice::from_ref(relay), now);
        let mut candidates = Vec::new();
        for candidate in relayed.iter().map(|relayed| relayed_candidate(*relayed)) {
            if active.link.add_local_candidate(candidate, now).is_ok() {
                candidates.push(candidate.to_wire());
            }
        }
        tracing::debug!(link = %key, %relay, "another allocation for the link");
        let link = offered_as;
        let body = Body::Candidates(Candidates { link, candidates });
        self.signaling.post(to, body);
    }
}

const fn relayed_candidate(relayed: RelayedAddr) -> LocalCandidate {
    LocalCandidate {
        kind: CandidateKind::Relayed,
        address: relayed.0,
        base: relayed.0,
    }
}
