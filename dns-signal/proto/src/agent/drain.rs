//! What links bring: taking it out, acting on it, and their ends.

use std::time::Instant;

use link::{CloseReason, LinkEvent};
use model::NodeId;
use protocol::document::control::Body as ControlBody;
use protocol::document::document::Body;
use protocol::document::{Bye, Control};
use std::net::IpAddr;
use wire::frame::Frame;

use super::relays::SILENCE_PATIENCE;
use super::route::Routes;
use super::session::{Said, Session};
use super::{
    Agent, AgentConfig, AgentOutput, Failure, FailureKind, FrameDrop, LinkNotice, NameVerdict,
};

impl Agent {
    /// Takes out of a link what it has, and acts on it.
    pub(super) fn drain(&mut self, key: u64, now: Instant) {
        let Some(session) = self.links.get_mut(key) else {
            return;
        };
        let mut closed = None;
        let mut said = Vec::new();
        let mut flush = false;
        let (mut opened, mut silent) = (false, false);
        let mut learned = Vec::new();
        while let Some(event) = session.link.poll_event() {
            match event {
                LinkEvent::Step(step) => {
                    session.record_step(step, now);
                    if step == link::Step::Open {
                        self.relays.last_needed = session.uses(&self.relays);
                        session.opened = true;
                        (flush, opened) = (true, true);
                        self.stats.links_opened += 1;
                        self.outputs
                            .push_back(AgentOutput::Notice(LinkNotice::Opened {
                                link: key,
                                peer: session.node.clone(),
                                path: session.link.path(),
                                after: now.saturating_duration_since(session.wanted_at),
                            }));
                    }
                }
                LinkEvent::Silent => {
                    session.expect_path_by(now + SILENCE_PATIENCE);
                    silent = true;
                }
                LinkEvent::Path(link::Path::Direct) => session.record("direct", now),
                LinkEvent::Path(_) => session.set_leg(&self.relays, now),
                LinkEvent::Carrier(_) => {}
                LinkEvent::Frame(frame) => {
                    session.record("first_byte", now);
                    match admit(&self.config, &self.routes, session, &frame) {
                        Ok(()) => self.outputs.push_back(AgentOutput::ToTun(frame)),
                        Err(reason) => self.stats.count_drop(reason),
                    }
                }
                LinkEvent::Control(Control {
                    body: Some(ControlBody::Bound(bound)),
                }) => {
                    said.extend(session.on_results(&bound.results, now));
                    flush = true;
                }
                LinkEvent::Control(_) => self.stats.stray_controls += 1,
                LinkEvent::Closed(reason) => closed = Some(reason),
            }
        }
        while let Some(transmit) = session.link.poll_transmit() {
            if learned.last() != Some(&(transmit.local, transmit.remote)) {
                learned.push((transmit.local, transmit.remote));
            }
            self.outputs.push_back(AgentOutput::Transmit(transmit));
        }
        for (local, remote) in learned {
            self.links.learn(key, local, remote);
        }
        self.pass_on(key, said);
        if let Some(reason) = closed {
            return self.on_closed(key, &reason, now);
        }
        if opened {
            self.on_opened(key, now);
        }
        if silent {
            self.on_silent(key, now);
        }
        if flush {
            self.flush_waiting(key, now);
        }
    }

    /// The link is open, or a service was accepted: what waited goes out, or waits on for its own service.
    pub(super) fn flush_waiting(&mut self, key: u64, now: Instant) {
        let Some(session) = self.links.get(key) else {
            return;
        };
        let network = session.node.network.clone();
        let Some(remote) = self.remotes.get_mut(&network) else {
            return;
        };
        remote.failures = 0;
        remote.last_failed = None;
        remote.failure = None;
        let (aged, waiting) = (remote.waiting.expire(now), remote.waiting.take());
        self.on_aged(&aged);
        for waiting in waiting {
            let sent = self.send_or_wait(&waiting.destination, &waiting.frame, waiting.since, now);
            match sent {
                Ok(()) => {}
                Err(FrameDrop::ServiceRefused) => {
                    self.refuse_frame(&waiting.frame, FrameDrop::ServiceRefused);
                }
                Err(reason) => self.stats.count_drop(reason),
            }
        }
    }

    /// Tells others what an activator said of services.
    pub(super) fn pass_on(&mut self, key: u64, said: Vec<Said>) {
        let Some(session) = self.links.get(key) else {
            return;
        };
        let peer = &session.node;
        for Said {
            service,
            refused,
            absent,
        } in said
        {
            let verdict = match (refused, absent) {
                (None, _) => NameVerdict::Found,
                (Some(reason), Some(lasts)) => NameVerdict::Absent { lasts, reason },
                (Some(reason), None) => {
                    self.outputs
                        .push_back(AgentOutput::Notice(LinkNotice::ServiceRefused {
                            peer: peer.clone(),
                            service,
                            reason,
                        }));
                    continue;
                }
            };
            self.outputs.push_back(AgentOutput::Verdict {
                network: peer.network.clone(),
                service,
                verdict,
            });
        }
    }

    /// The links that wait for an answer of this node.
    pub(super) fn expecting_answer_of(&self, node: &NodeId) -> Vec<u64> {
        self.links
            .iter()
            .filter(|(_, session)| session.node == *node && session.answer_deadline.is_some())
            .map(|(key, _)| key)
            .collect()
    }

    pub(super) fn on_refused_unread(&mut self, from: &NodeId, reason: &str, now: Instant) {
        let reason: String = reason.chars().take(256).collect();
        for key in self.expecting_answer_of(from) {
            let why = format!("the activator refused: {reason}");
            self.fail(key, FailureKind::Refused, &why, now);
        }
    }

    /// Ends a link from this side for an ordinary reason.
    pub(super) fn close_link(&mut self, key: u64, reason: &str, now: Instant) {
        if let Some(session) = self.links.get_mut(key) {
            session.link.close(reason, now);
            self.drain(key, now);
        }
    }

    /// Ends a link that never opened, or that the peer ended through discovery.
    pub(super) fn fail(&mut self, key: u64, kind: FailureKind, why: &str, now: Instant) {
        self.end(key, kind, &CloseReason::LocalClosed(why.to_owned()), now);
    }

    pub(super) fn on_closed(&mut self, key: u64, reason: &CloseReason, now: Instant) {
        let kind = match reason {
            CloseReason::IceTimeout => FailureKind::NoPath,
            CloseReason::PeerClosed(_) => FailureKind::Ended,
            _ => FailureKind::NoSession,
        };
        self.end(key, kind, reason, now);
    }

    fn end(&mut self, key: u64, kind: FailureKind, reason: &CloseReason, now: Instant) {
        let Some(mut session) = self.links.remove(key) else {
            return;
        };
        let network = session.node.network.clone();
        for (relay, peer) in std::mem::take(&mut session.permitted) {
            self.outputs
                .push_back(AgentOutput::Unpermit { relay, peer });
        }
        self.stats.links_closed += 1;
        self.outputs
            .push_back(AgentOutput::Notice(LinkNotice::Closed {
                link: key,
                peer: session.node.clone(),
                opened: session.opened,
                reason: reason.to_string(),
                wanted_at: session.wanted_at,
                steps: session.steps.clone(),
            }));
        // The session itself cannot tell a peer that it does not trust, or cannot reach: discovery can.
        if !matches!(reason, CloseReason::PeerClosed(_)) {
            let bye = Bye {
                link: key,
                reason: reason.to_string(),
            };
            let to = session.node.clone();
            self.outputs.push_back(AgentOutput::Document {
                to,
                link: key,
                body: Body::Bye(bye),
            });
        }
        let Some(remote) = self.remotes.get_mut(&network) else {
            return;
        };
        if remote.next == Some(key) {
            remote.next = None;
            self.health.on_failed(&session.node, now);
            // The next of them, if the link that it should have replaced is still silent.
            return self.replace_if_silent(&network, now);
        }
        if remote.link == Some(key) {
            remote.link = None;
        } else if session.opened {
            return;
        }
        if remote.link.is_none() && self.take_over(&network, reason, now) {
            return self.send_again(session.link.take_kept(), now);
        }
        if session.opened {
            self.send_again(session.link.take_kept(), now);
            self.retry(&network, now);
        } else {
            let failure = Failure {
                kind,
                pairs: session.link.pairs(),
                node: Some(session.node),
                reason: match reason {
                    CloseReason::LocalClosed(why) => why.clone(),
                    reason => reason.to_string(),
                },
                at: now,
                steps: session.steps,
            };
            self.on_open_failed(&network, failure);
        }
    }
}

/// Whether a frame from a link may go to the workloads: from a service that link was bound to, to this device.
fn admit(
    config: &AgentConfig,
    routes: &Routes,
    session: &Session,
    frame: &[u8],
) -> Result<(), FrameDrop> {
    let packet = Frame::decode(frame)
        .map_err(|_| FrameDrop::Malformed)?
        .packet;
    let ours = match packet.destination() {
        IpAddr::V4(ip) => ip == config.device_ipv4,
        IpAddr::V6(ip) => ip == config.device_ipv6,
    };
    if !ours {
        return Err(FrameDrop::ForeignDestination);
    }
    match routes.find(packet.source()) {
        Some(destination) if session.may_speak_for(destination) => Ok(()),
        _ => Err(FrameDrop::ForeignSource),
    }
}
