//! The activator's links: from an accepted offer to the end.

use std::net::SocketAddr;
use std::time::Instant;

use activator_proto::forward::FromLink;
use activator_proto::{Input, LinkKey};
use link::{
    CandidateKind, CloseReason, Link, LinkConfig, LinkError, LinkEvent, LinkRole, LocalCandidate,
    Step, Transmit,
};
use model::{NodeId, RelayName, RelayedAddr};
use protocol::document::document::Body;
use protocol::document::{Answer, BindingResult, Bye, Candidates, Offer, Refusal, control};

use super::{Active, Gate, Wish};

impl Gate {
    pub(super) fn answer(
        &mut self,
        key: LinkKey,
        to: &NodeId,
        offer: &Offer,
        relays: &[RelayName],
        bindings: Vec<BindingResult>,
        now: Instant,
    ) {
        let mut link = match self.make_link(offer, relays, now) {
            Ok(link) => link,
            Err(error) => {
                let refusal = Refusal {
                    link: offer.link,
                    reason: error.to_string(),
                };
                self.wishes
                    .push(Wish::Post(to.clone(), Body::Refusal(refusal)));
                return self
                    .gateway
                    .handle_input(Input::LinkClosed { link: key }, now);
            }
        };
        let mut permitted = Vec::new();
        for relay in relays {
            for remote in link.remote_candidates() {
                if self
                    .standing(relay)
                    .is_some_and(|standing| standing.permit(remote, now))
                {
                    permitted.push((relay.clone(), remote));
                }
            }
        }
        let answer = Answer {
            link: offer.link,
            description: Some(link.local_description()),
            bindings,
        };
        let ufrag = link.local_ufrag().to_owned();
        let _ = link.poll_timeout();
        let active = Active {
            link,
            peer: to.clone(),
            offered_as: offer.link,
            permitted,
        };
        assert!(
            self.links.insert(key.0, &ufrag, active),
            "no room for link {key}"
        );
        self.wishes
            .push(Wish::Post(to.clone(), Body::Answer(answer)));
    }

    fn make_link(
        &self,
        offer: &Offer,
        relays: &[RelayName],
        now: Instant,
    ) -> Result<Link, LinkError> {
        let config = LinkConfig::default();
        let mut link = Link::new(LinkRole::Answerer, self.certificate.clone(), &config, now)?;
        let ours = self
            .allocations
            .iter()
            .filter(|standing| relays.contains(&standing.name));
        for relayed in ours.flat_map(|standing| &standing.relayed) {
            link.add_local_candidate(candidate(CandidateKind::Relayed, relayed.0), now)?;
        }
        for host in &self.hosts {
            link.add_local_candidate(candidate(CandidateKind::Host, *host), now)?;
        }
        let description = offer
            .description
            .as_ref()
            .ok_or(LinkError::BadDescription("there is none"))?;
        link.set_remote_description(description, now)?;
        Ok(link)
    }

    pub(super) fn retire(
        &mut self,
        key: LinkKey,
        relay: &RelayName,
        relayed: &[RelayedAddr],
        now: Instant,
    ) {
        let Some(active) = self.links.get_mut(key.0) else {
            return;
        };
        for address in relayed {
            active.link.retire_address(address.0, now);
        }
        let released: Vec<(RelayName, SocketAddr)> = active
            .permitted
            .extract_if(.., |(of, _)| of == relay)
            .collect();
        if let Some(standing) = self.standing(relay) {
            for (_, peer) in released {
                standing.release(peer);
            }
        }
    }

    pub(super) fn leave(&mut self, relay: RelayName, relayed: &[RelayedAddr], now: Instant) {
        let mut left = true;
        for (_, active) in self.links.iter_mut() {
            for address in relayed {
                left &= active.link.leave_address(address.0, now);
            }
        }
        if left {
            self.gateway.handle_input(Input::Left { relay }, now);
        }
    }

    pub(super) fn extend(
        &mut self,
        key: LinkKey,
        (to, offered_as): (&NodeId, u64),
        relay: &RelayName,
        relayed: &[RelayedAddr],
        now: Instant,
    ) {
        let Some(active) = self.links.get(key.0) else {
            return;
        };
        let remotes = active.link.remote_candidates();
        let mut permitted = Vec::new();
        if let Some(standing) = self.standing(relay) {
            for remote in remotes {
                if standing.permit(remote, now) {
                    permitted.push((relay.clone(), remote));
                }
            }
        }
        let Some(active) = self.links.get_mut(key.0) else {
            return;
        };
        active.permitted.extend(permitted);
        let mut candidates = Vec::new();
        for relayed in relayed {
            let candidate = candidate(CandidateKind::Relayed, relayed.0);
            if active.link.add_local_candidate(candidate, now).is_ok() {
                candidates.push(candidate.to_wire());
            }
        }
        let link = offered_as;
        let body = Body::Candidates(Candidates { link, candidates });
        self.wishes.push(Wish::Post(to.clone(), body));
    }

    /// The offerer is somewhere else, too.
    pub(super) fn on_candidates(&mut self, from: &NodeId, trickled: &Candidates, now: Instant) {
        let links = self.gateway.links();
        let key = links.by_offer(from, trickled.link);
        let Some((key, record)) = key.and_then(|key| Some((key, links.get(key)?))) else {
            return;
        };
        let relays = record.relays.clone();
        let Some(active) = self.links.get_mut(key.0) else {
            return;
        };
        for candidate in &trickled.candidates {
            let _ = active.link.add_remote_candidate(candidate, now);
        }
        let remotes = active.link.remote_candidates();
        let had = active.permitted.clone();
        let mut permitted = Vec::new();
        for relay in &relays {
            for remote in &remotes {
                let one = (relay.clone(), *remote);
                let standing = self.standing(relay);
                if !had.contains(&one) && standing.is_some_and(|it| it.permit(*remote, now)) {
                    permitted.push(one);
                }
            }
        }
        if let Some(active) = self.links.get_mut(key.0) {
            active.permitted.extend(permitted);
        }
    }

    pub(super) fn close_link(&mut self, key: LinkKey, reason: &str, now: Instant) {
        match self.links.get_mut(key.0) {
            Some(active) => active.link.close(reason, now),
            None => self
                .gateway
                .handle_input(Input::LinkClosed { link: key }, now),
        }
    }

    /// Takes everything a link has to say; whether that was anything.
    pub(super) fn drain(&mut self, key: LinkKey, now: Instant) -> bool {
        let (mut any, mut closed) = (false, None);
        while let Some(active) = self.links.get_mut(key.0)
            && let Some(event) = active.link.poll_event()
        {
            any = true;
            match event {
                LinkEvent::Frame(mut frame) => {
                    match self.gateway.forwarder.to_service(key, &mut frame, now) {
                        FromLink::ToService => self.wishes.push(Wish::ToService(key.0, frame)),
                        FromLink::Refused(answer) => drop(active.link.send_frame(answer, now)),
                        FromLink::Dropped(_) => {}
                    }
                }
                LinkEvent::Control(message) => {
                    if let Some(control::Body::Bind(bind)) = message.body {
                        let bindings = bind.bindings;
                        self.gateway.handle_input(
                            Input::Bind {
                                link: key,
                                bindings,
                            },
                            now,
                        );
                    }
                }
                LinkEvent::Step(Step::Open) => {
                    self.opened += 1;
                    self.gateway
                        .handle_input(Input::LinkOpened { link: key }, now);
                }
                LinkEvent::Step(_)
                | LinkEvent::Path(_)
                | LinkEvent::Silent
                | LinkEvent::Carrier(_) => {}
                LinkEvent::Closed(reason) => closed = Some(reason),
            }
        }
        any |= self.transmit(key);
        if let Some(reason) = closed {
            self.on_closed(key, &reason, now);
        }
        any
    }

    fn transmit(&mut self, key: LinkKey) -> bool {
        let mut pairs: Vec<(SocketAddr, SocketAddr)> = Vec::new();
        let mut any = false;
        while let Some(active) = self.links.get_mut(key.0)
            && let Some(Transmit {
                local,
                remote,
                payload,
                segment,
            }) = active.link.poll_transmit()
        {
            any = true;
            let relayed =
                |standing: &&mut super::Standing| standing.relayed.iter().any(|own| own.0 == local);
            let mut standing = self.allocations.iter_mut().find(relayed);
            for payload in payload.chunks(segment) {
                if let Some(standing) = &mut standing {
                    standing.send_to_peer(remote, payload);
                    super::send(standing, &mut self.wishes);
                } else if self.hosts.contains(&local) {
                    self.wishes
                        .push(Wish::Send(local, remote, payload.to_vec()));
                }
            }
            if !pairs.contains(&(local, remote)) {
                pairs.push((local, remote));
            }
        }
        for (local, remote) in pairs {
            self.links.learn(key.0, local, remote);
        }
        any
    }

    fn on_closed(&mut self, key: LinkKey, reason: &CloseReason, now: Instant) {
        let Some(active) = self.links.remove(key.0) else {
            return;
        };
        for (relay, peer) in &active.permitted {
            if let Some(standing) = self.standing(relay) {
                standing.release(*peer);
            }
        }
        self.gateway
            .handle_input(Input::LinkClosed { link: key }, now);
        self.closed.push(reason.to_string());
        if matches!(
            reason,
            CloseReason::FingerprintMismatch { .. } | CloseReason::DtlsFailed(_)
        ) {
            let bye = Bye {
                link: active.offered_as,
                reason: reason.to_string(),
            };
            self.wishes.push(Wish::Post(active.peer, Body::Bye(bye)));
        }
    }
}

const fn candidate(kind: CandidateKind, address: SocketAddr) -> LocalCandidate {
    LocalCandidate {
        kind,
        address,
        base: address,
    }
}
