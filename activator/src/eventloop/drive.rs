//! What the gateway wants done, and what allocations and links have to say.

use std::time::Instant;

use activator_proto::{
    Input, LinkKey, Output,
    forward::{FromLink, fit_mss},
    names::Resolved,
    stats::DropReason,
};
use allocations::{AllocationEvent, Allocations};
use link::{CloseReason, Link, LinkEvent, Path, Step};
use protocol::document::{BindingResult, Bound, Bye, Control, Refusal, control, document::Body};
use turn_client::Reserve;

use super::{EventLoop, openings};
use crate::names::Answered;

impl EventLoop {
    /// Until nothing is left to do; then sends.
    pub(super) fn carry_out(&mut self, now: Instant) {
        loop {
            let mut idle = true;
            while let Some(output) = self.gateway.poll_output() {
                self.on_output(output, now);
                idle = false;
            }
            while let Some(event) = self.allocations.poll_event(now) {
                self.on_allocation(event, now);
                idle = false;
            }
            idle &= !self.drain_all(now);
            if idle {
                break;
            }
        }
        self.tell_flows(None);
        self.allocations.flush(&self.poller);
        self.stats.datagrams_refused += self.sockets.flush(&self.poller).refused as u64;
    }

    /// To the flow log. `closed`: a link that is there no more, and its last path.
    pub(super) fn tell_flows(&mut self, closed: Option<(LinkKey, Option<Path>)>) {
        while let Some(flow) = self.gateway.forwarder.poll_flow() {
            let path = match closed {
                Some((link, path)) if link == flow.link => path,
                _ => self
                    .links
                    .touch_quietly(flow.link)
                    .and_then(|active| active.link.path()),
            };
            if let Some(log) = &self.flow_log {
                log.tell(flow, path);
            }
        }
    }

    fn on_output(&mut self, output: Output, now: Instant) {
        match output {
            Output::Reserve(wish) => self.reserve(wish, now),
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
                            service,
                            reason,
                            absent_seconds,
                            ..
                        } = result;
                        if *absent_seconds > 0 {
                            // Nobody did anything wrong.
                            tracing::debug!(%link, peer = %active.peer, service, reason, "no such name");
                        } else {
                            tracing::warn!(%link, peer = %active.peer, service, reason, "binding refused");
                        }
                    }
                    let bound = control::Body::Bound(Bound { results });
                    // Not open any more: the other side will ask again on its next link.
                    let _ = active
                        .link
                        .send_control(&Control { body: Some(bound) }, now);
                }
            }
            Output::Resolve {
                name,
                domain,
                ipv4,
                ipv6,
            } => self.name_servers.ask(name, &domain, (ipv4, ipv6)),
            Output::Outside { name, addresses } => {
                let addresses: Vec<String> =
                    addresses.iter().take(4).map(ToString::to_string).collect();
                tracing::warn!(
                    %name, addresses = %addresses.join(" "),
                    "DNS leads to addresses that are not `within` what the export allows, or are this host's own; refused"
                );
            }
            Output::Close { link, reason } => self.close_link(link, &reason, now),
            Output::Retire {
                link,
                relay,
                relayed,
            } => self.retire(link, &relay, &relayed, now),
            Output::Leave { relay, relayed } => self.leave(relay, &relayed, now),
            Output::Extend {
                link,
                to,
                offered_as,
                relay,
                relayed,
            } => self.extend(link, (&to, offered_as), &relay, &relayed, now),
        }
    }

    /// This network's DNS said what a name is.
    pub(super) fn on_answered(&mut self, answered: Answered, now: Instant) {
        let Answered { name, resolved } = answered;
        // Asked of the kernel each time: an address may be new.
        let (own, resolved) = match net::own_addresses() {
            Ok(own) => (own, resolved),
            Err(error) => {
                let why = format!("this host's own addresses cannot be listed: {error}");
                (Vec::new(), Resolved::Failed(why))
            }
        };
        tracing::debug!(%name, ?resolved, "name resolved");
        let own = &own;
        let input = Input::Resolved {
            name,
            resolved,
            own,
        };
        self.gateway.handle_input(input, now);
    }

    fn reserve(&mut self, wish: Reserve, now: Instant) {
        if matches!(wish, Reserve::Release { .. }) {
            // Links that were closed before say good-bye through it.
            self.drain_all(now);
        }
        let Self {
            allocations,
            fetcher,
            poller,
            ..
        } = self;
        if let Err(relay) = allocations.reserve(wish, fetcher, poller, now) {
            self.gateway.handle_input(Input::NotStarted { relay }, now);
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
        event.log();
        match event {
            AllocationEvent::Allocated { relay, relayed, .. } => {
                if let Some(task) = self.allocated.take() {
                    task.done();
                }
                self.gateway
                    .handle_input(Input::Allocated { relay, relayed }, now);
            }
            AllocationEvent::Moved { .. } => {
                let keys: Vec<LinkKey> = self.links.iter().map(|active| active.key).collect();
                for key in keys {
                    if let Some(active) = self.links.touch(key) {
                        set_leg(&mut active.link, &self.allocations, now);
                    }
                }
            }
            AllocationEvent::Ending { relay, .. } => {
                self.gateway
                    .handle_input(Input::AllocationEnding { relay }, now);
            }
            AllocationEvent::Lost { relay, reason, .. } => {
                let trouble = reason.trouble();
                let lost = Input::AllocationLost { relay, trouble };
                self.gateway.handle_input(lost, now);
            }
            AllocationEvent::NeedCredential { relay } => {
                self.gateway
                    .handle_input(Input::CredentialRefused { relay }, now);
            }
        }
    }

    /// Takes what the links have to say; whether any had.
    pub(super) fn drain_all(&mut self, now: Instant) -> bool {
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
                    let refused = match forwarder.to_service(key, &mut frame, now) {
                        FromLink::ToService => {
                            fit_mss(&mut frame, active.link.frame_mtu());
                            device.try_send(&frame).is_err()
                        }
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
                    set_leg(&mut active.link, &self.allocations, now);
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
                        openings::tell(&self.traces, active, None, now);
                        self.gateway
                            .handle_input(Input::LinkOpened { link: key }, now);
                    }
                }
                LinkEvent::Path(path) => {
                    set_leg(&mut active.link, &self.allocations, now);
                    tracing::debug!(link = %key, %path, "path");
                }
                LinkEvent::Silent => {
                    tracing::debug!(link = %key, "nothing answers on any path");
                }
                LinkEvent::Carrier(carrier) => {
                    tracing::debug!(link = %key, %carrier, "carrier");
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

    fn on_closed(&mut self, key: LinkKey, reason: &CloseReason, now: Instant) {
        let Some(mut active) = self.links.remove(key) else {
            return;
        };
        openings::tell(&self.traces, &mut active, Some(reason), now);
        for (relay, peer) in &active.permitted {
            self.allocations.release(relay, *peer);
        }
        self.gateway
            .handle_input(Input::LinkClosed { link: key }, now);
        self.tell_flows(Some((key, active.link.path())));
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

/// Tells a link how the relay of its present path is reached.
fn set_leg(link: &mut Link, allocations: &Allocations, now: Instant) {
    let local = link.pair().map(|(local, _)| local);
    if let Some(transport) = local.and_then(|local| allocations.transport_of(local)) {
        link.set_leg(Path::over(transport), now);
    }
}
