//! What the gateway wants done, and what allocations and links have to say.

use std::time::Instant;

use activator_proto::{Input, LinkKey, Output, forward::FromLink, stats::DropReason};
use link::{
    CandidateKind, CloseReason, Link, LinkError, LinkEvent, LinkRole, LocalCandidate, Path, Step,
    Transmit,
};
use model::{NodeId, RelayName};
use protocol::document::{
    Answer, BindingResult, Bound, Bye, Candidates, Control, Offer, Refusal, control, document::Body,
};

use super::EventLoop;
use crate::{allocations::AllocationEvent, links::ActiveLink};

/// Of a host with many addresses; the other side takes 16 candidates in all.
const MAX_HOST_CANDIDATES: usize = 12;

impl EventLoop {
    /// Until nothing is left to do; then sends.
    pub(super) fn carry_out(&mut self, now: Instant) {
        loop {
            let mut idle = true;
            while let Some(output) = self.gateway.poll_output() {
                self.on_output(output, now);
                idle = false;
            }
            while let Some(event) = self.allocations.poll_event() {
                self.on_allocation(event, now);
                idle = false;
            }
            idle &= !self.drain_all(now);
            if idle {
                break;
            }
        }
        self.allocations.flush();
        self.stats.datagrams_refused += self.sockets.flush().refused as u64;
    }

    fn on_output(&mut self, output: Output, now: Instant) {
        match output {
            Output::FetchAccess { relay, uri } => self.fetcher.fetch(relay, uri),
            Output::AccessFailed {
                relay,
                reason,
                retry_in,
            } => {
                tracing::warn!(%relay, %reason, ?retry_in, "no access to the relay yet");
            }
            Output::RelayIgnored { relay, reason } => {
                tracing::warn!(%relay, %reason, "the relay cannot be used");
            }
            Output::Allocate { relay, access } => {
                let seed = random();
                if let Err(error) = self.allocations.start(relay.clone(), &access, seed, now) {
                    tracing::error!(%relay, %error, "no socket for the allocation");
                    self.gateway.handle_input(Input::NotStarted { relay }, now);
                }
            }
            Output::RenewCredential { relay, access } => {
                self.allocations.renew(&relay, &access, now);
            }
            Output::Release { relay } => {
                tracing::info!(%relay, "allocation released");
                // Links that were closed before say good-bye through it.
                self.drain_all(now);
                self.allocations.close(&relay, now);
            }
            Output::Publish(registration) => self.publisher.publish(registration, now),
            Output::Answer {
                link,
                to,
                offer,
                relays,
                bindings,
            } => {
                self.answer(link, &to, &offer, &relays, bindings, now);
            }
            Output::Refuse {
                to,
                offered_as,
                reason,
            } => {
                tracing::warn!(peer = %to, offered_as, %reason, "offer refused");
                let refusal = Refusal {
                    link: offered_as,
                    reason: reason.to_string(),
                };
                self.signaling.post(&to, Body::Refusal(refusal));
            }
            Output::Bound { link, results } => {
                if let Some(active) = self.links.touch(link) {
                    for result in results.iter().filter(|result| !result.accepted) {
                        let BindingResult {
                            service, reason, ..
                        } = result;
                        tracing::warn!(%link, peer = %active.peer, service, reason, "binding refused");
                    }
                    let bound = control::Body::Bound(Bound { results });
                    // Not open any more: the other side will ask again on its next link.
                    let _ = active
                        .link
                        .send_control(&Control { body: Some(bound) }, now);
                }
            }
            Output::Close { link, reason } => self.close_link(link, &reason, now),
            Output::CloseUnlessDirect { link, reason } => {
                let direct = self
                    .links
                    .get(link)
                    .is_some_and(|active| active.link.path() == Some(Path::Direct));
                if !direct {
                    self.close_link(link, &reason, now);
                }
            }
        }
    }

    fn close_link(&mut self, key: LinkKey, reason: &str, now: Instant) {
        match self.links.touch(key) {
            Some(active) => active.link.close(reason, now),
            // The gateway knows a link that never came to be.
            None => self
                .gateway
                .handle_input(Input::LinkClosed { link: key }, now),
        }
    }

    fn on_allocation(&mut self, event: AllocationEvent, now: Instant) {
        match event {
            AllocationEvent::Allocated { relay, relayed } => {
                let addresses: Vec<String> = relayed.iter().map(ToString::to_string).collect();
                tracing::info!(%relay, relayed = %addresses.join(" "), "allocation gained");
                if let Some(task) = self.allocated.take() {
                    task.done();
                }
                self.gateway
                    .handle_input(Input::Allocated { relay, relayed }, now);
            }
            AllocationEvent::Lost {
                relay,
                reason,
                held,
            } => {
                let what = if held {
                    "allocation lost"
                } else {
                    "no allocation yet"
                };
                tracing::warn!(%relay, %reason, "{what}");
                self.gateway
                    .handle_input(Input::AllocationLost { relay, reason }, now);
            }
            AllocationEvent::NeedCredential { relay } => {
                tracing::debug!(%relay, "the relay wants another credential");
                self.gateway
                    .handle_input(Input::CredentialRefused { relay }, now);
            }
        }
    }

    fn answer(
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
        for relay in relays {
            for remote in active.link.remote_candidates() {
                if self.allocations.permit(relay, *remote, now) {
                    active.permitted.push((relay.clone(), *remote));
                }
            }
        }
        let answer = Answer {
            link: offer.link,
            description: Some(active.link.local_description()),
            bindings,
        };
        if self.links.insert(active) {
            tracing::debug!(%key, peer = %to, "offer answered");
            self.signaling.post(to, Body::Answer(answer));
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
        let mut link = Link::new(LinkRole::Answerer, certificate, &self.link_config, now)?;
        for relay in relays {
            for relayed in self.allocations.relayed(relay) {
                let candidate = LocalCandidate {
                    kind: CandidateKind::Relayed,
                    address: relayed.0,
                    base: relayed.0,
                };
                link.add_local_candidate(candidate, now)?;
            }
        }
        for &address in self.hosts.iter().take(MAX_HOST_CANDIDATES) {
            let kind = CandidateKind::Host;
            link.add_local_candidate(
                LocalCandidate {
                    kind,
                    address,
                    base: address,
                },
                now,
            )?;
        }
        let description = offer
            .description
            .as_ref()
            .ok_or(LinkError::BadDescription("there is none"))?;
        link.set_remote_description(description, now)?;
        Ok(ActiveLink::new(link, key, to.clone(), offer.link, now))
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
        for candidate in trickled
            .candidates
            .iter()
            .take(activator_proto::answer::MAX_CANDIDATES)
        {
            let known = active.link.remote_candidates().len();
            if active.link.add_remote_candidate(candidate, now).is_err() {
                continue;
            }
            for remote in active
                .link
                .remote_candidates()
                .get(known..)
                .unwrap_or_default()
            {
                for relay in &relays {
                    if self.allocations.permit(relay, *remote, now) {
                        active.permitted.push((relay.clone(), *remote));
                    }
                }
            }
        }
    }

    /// Takes what the links have to say; whether any had.
    fn drain_all(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(key) = self.links.pop_dirty() {
            self.drain(key, now);
            any = true;
        }
        any
    }

    /// Takes everything a link has to say.
    fn drain(&mut self, key: LinkKey, now: Instant) {
        let mut closed = None;
        while let Some(active) = self.links.touch_quietly(key)
            && let Some(event) = active.link.poll_event()
        {
            match event {
                LinkEvent::Frame(mut frame) => {
                    let device = &self.device;
                    let forwarder = &mut self.gateway.forwarder;
                    let refused = match forwarder.to_service(key, &mut frame) {
                        FromLink::ToService => device.try_send(&frame).is_err(),
                        FromLink::Refused(answer) => {
                            let _ = active.link.send_frame(answer, now);
                            false
                        }
                        FromLink::Dropped(reason) => {
                            tracing::trace!(%key, reason = reason.as_str(), "frame dropped");
                            false
                        }
                    };
                    if refused {
                        forwarder.count_drop(DropReason::TunCongested);
                    }
                }
                LinkEvent::Control(message) => {
                    if let Some(control::Body::Bind(bind)) = message.body {
                        let input = Input::Bind {
                            link: key,
                            bindings: bind.bindings,
                        };
                        self.gateway.handle_input(input, now);
                    }
                }
                LinkEvent::Step(step) => {
                    active.reached(step, now);
                    if step == Step::Open {
                        self.stats.links_opened += 1;
                        let path = active.link.path().map(|path| path.to_string());
                        let record = self.gateway.links().get(key);
                        let serial = record.map(|record| record.serial.to_string());
                        tracing::info!(
                            link = %key,
                            peer = %active.peer,
                            certificate = serial.as_deref().unwrap_or("?"),
                            path = path.as_deref().unwrap_or("?"),
                            ms = now.saturating_duration_since(active.created).as_millis() as u64,
                            "link opened"
                        );
                    }
                }
                LinkEvent::Path(path) => {
                    tracing::debug!(link = %key, %path, "path");
                }
                LinkEvent::Closed(reason) => closed = Some(reason),
            }
        }
        self.transmit(key);
        match closed {
            Some(reason) => self.on_closed(key, &reason, now),
            None => self.links.reschedule(key),
        }
    }

    fn transmit(&mut self, key: LinkKey) {
        let Self {
            links,
            allocations,
            sockets,
            stats,
            ..
        } = self;
        let mut known = None;
        while let Some(active) = links.touch_quietly(key) {
            let mut learned = None;
            while let Some(Transmit {
                local,
                remote,
                payload,
            }) = active.link.poll_transmit()
            {
                if allocations.push(local, remote, &payload) {
                    stats.relayed_bytes_sent += payload.len() as u64;
                } else if !sockets.push(local, remote, &payload) {
                    stats.datagrams_refused += sockets.flush().refused as u64;
                    let sent = sockets.push(local, remote, &payload);
                    stats.datagrams_refused += u64::from(!sent);
                }
                if known != Some((local, remote)) {
                    learned = Some((local, remote));
                    break;
                }
            }
            // Once per run of equal pairs: what comes back on them is this link's.
            let Some((local, remote)) = learned else {
                break;
            };
            links.learn(key, local, remote);
            known = learned;
        }
    }

    fn on_closed(&mut self, key: LinkKey, reason: &CloseReason, now: Instant) {
        let Some(active) = self.links.remove(key) else {
            return;
        };
        for (relay, peer) in &active.permitted {
            self.allocations.release(relay, *peer);
        }
        self.gateway
            .handle_input(Input::LinkClosed { link: key }, now);
        self.stats.links_closed += 1;
        let opened = active.steps.iter().any(|(step, _)| *step == "open");
        let stats = active.link.stats();
        let seconds = now.saturating_duration_since(active.created).as_secs();
        let peer = &active.peer;
        if opened {
            let path = active
                .link
                .path()
                .map(|path| path.to_string())
                .unwrap_or_default();
            tracing::info!(
                link = %key, %peer, path, %reason, seconds,
                bytes_received = stats.bytes_received, bytes_sent = stats.bytes_sent,
                "link closed"
            );
        } else {
            self.stats.links_failed += 1;
            tracing::warn!(link = %key, %peer, %reason, seconds, "link did not open");
        }
        // What DTLS did not let through cannot be said over DTLS.
        if matches!(
            reason,
            CloseReason::FingerprintMismatch { .. } | CloseReason::DtlsFailed(_)
        ) {
            let bye = Bye {
                link: active.offered_as,
                reason: reason.to_string(),
            };
            self.signaling.post(peer, Body::Bye(bye));
        }
    }
}

/// From the operating system; a fallback that is merely different each time is good enough for a seed.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()) << 32 | 0x9e37_79b9)
}
