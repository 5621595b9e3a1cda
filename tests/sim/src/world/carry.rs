//! What happens, and who is told.

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use dns_signal_proto::agent::{AgentOutput, Peers};
use wire::frame::{HEADER_LEN, Header};

use super::{Happening, World};
use crate::gate::Wish;
use crate::picture::{
    GATE, RELAY_INSIDE, RELAY_OUTSIDE, ROUTER, SIDECAR, address, gate_node, ip, sidecar_node,
};
use crate::reference;
use crate::relay::Leaving;
use crate::signaling::{DELAY, Mail, POST_TIMEOUT};

impl World {
    pub(super) fn on_happening(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Datagram { from, to, payload } => self.arrive(from, to, &payload),
            Happening::Mail(mail) => self.signaling.keep(mail),
            Happening::Registered if !self.signaling.away => {
                self.signaling.registered.clone_from(&self.signaling.wanted);
                self.timeline.push(now + DELAY, Happening::View);
            }
            Happening::View if !self.signaling.away => {
                let registered = self.signaling.registered.clone();
                let peers = Peers::new(registered.map(|registration| (gate_node(), registration)));
                self.agent.handle_peers(peers, now);
            }
            // When it is back, everybody looks anew.
            Happening::Registered | Happening::View => {}
            Happening::PostFailed(link) => {
                self.agent
                    .handle_post_failed(link, "discovery is not reachable", now);
            }
            Happening::Access(relay, access) => {
                if let Some(gate) = &mut self.gate {
                    gate.handle_access(relay, access, now);
                }
            }
        }
        self.fetch_mail();
    }

    /// Does what the minds want done.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                AgentOutput::Transmit(transmit) => {
                    for payload in transmit.datagrams() {
                        self.leave(transmit.local, transmit.remote, payload);
                    }
                }
                AgentOutput::ToTun(frame) => {
                    assert_eq!(frame.get(..HEADER_LEN), Some(&Header::PLAIN.encode()[..]));
                    let packet = &frame[HEADER_LEN..];
                    if !reference::is_too_big(packet) {
                        self.reference.on_workload(packet, self.now);
                    }
                }
                AgentOutput::Document { to, link, body } => {
                    if self.signaling.away {
                        let patience = self.random.duration(POST_TIMEOUT);
                        self.timeline
                            .push(self.now + patience, Happening::PostFailed(link));
                    } else {
                        self.post(sidecar_node(), to, body);
                    }
                }
                AgentOutput::Notice(notice) => self.notices.push(notice),
            }
        }
        while let Some(gate) = &mut self.gate {
            let wishes = gate.wishes();
            if wishes.is_empty() {
                break;
            }
            for wish in wishes {
                self.grant(wish);
            }
        }
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Send(from, to, payload) => {
                // What is private stays in east, and nobody is there but the services, who do not speak STUN.
                if is_private(to.ip()) {
                    self.nowhere += 1;
                } else {
                    let mapped = self.nat.outbound(from, to, &mut self.random, self.now);
                    self.leave(mapped, to, &payload);
                }
            }
            Wish::Post(to, body) if !self.signaling.away => self.post(gate_node(), to, body),
            Wish::Post(..) => {}
            Wish::Publish(registration) => {
                self.signaling.wanted = registration;
                self.timeline.push(self.now + DELAY, Happening::Registered);
            }
            Wish::FetchAccess(relay) => {
                let access = match self.signaling.away {
                    true => Err("discovery is not reachable".to_owned()),
                    false => Ok(self.access()),
                };
                self.timeline
                    .push(self.now + 2 * DELAY, Happening::Access(relay, access));
            }
            Wish::ToService(frame) => self.on_service(&frame),
        }
    }

    /// The service answers at once, through the activator's kernel and TUN.
    fn on_service(&mut self, frame: &BytesMut) {
        assert_eq!(frame.get(..HEADER_LEN), Some(&Header::PLAIN.encode()[..]));
        let packet = &frame[HEADER_LEN..];
        if reference::is_too_big(packet) {
            return;
        }
        let reply = self.reference.on_service(packet, self.now);
        let mut frame = [&Header::PLAIN.encode()[..], &reply.encode()].concat();
        if let Some(gate) = &mut self.gate {
            gate.handle_frame(&mut frame, self.now);
        }
    }

    fn post(
        &mut self,
        from: model::NodeId,
        to: model::NodeId,
        body: protocol::document::document::Body,
    ) {
        let mail = Mail {
            from,
            to,
            body,
            posted: self.now,
        };
        self.timeline.push(self.now + DELAY, Happening::Mail(mail));
    }

    pub(super) fn fetch_mail(&mut self) {
        if self.signaling.away {
            return;
        }
        for mail in self.signaling.fetch(&sidecar_node(), self.now) {
            self.agent.handle_document(&mail.from, mail.body, self.now);
        }
        if let Some(gate) = &mut self.gate {
            for mail in self.signaling.fetch(&gate_node(), self.now) {
                gate.handle_document(mail.from, mail.body, self.now);
            }
        }
    }

    /// A datagram leaves somebody; the network does with it what it does.
    fn leave(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let conditions = self.conditions;
        if self.random.percent(conditions.loss) {
            return;
        }
        let copies = 1 + u64::from(self.random.percent(conditions.duplication));
        for _ in 0..copies {
            let arrives = self.now + conditions.latency + self.random.duration(conditions.jitter);
            let payload = payload.to_vec();
            self.timeline
                .push(arrives, Happening::Datagram { from, to, payload });
        }
    }

    pub(super) fn leave_relay(&mut self, leaving: Vec<Leaving>) {
        for (from, to, payload) in leaving {
            if RELAY_INSIDE.map(ip).contains(&from.ip()) {
                self.relay_sent_inside.count(payload.len());
            }
            self.leave(from, to, &payload);
        }
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let now = self.now;
        if to == address(RELAY_OUTSIDE) || RELAY_INSIDE.map(ip).contains(&to.ip()) {
            let leaving = self.relay.handle(from, to, payload, self.relay_now());
            self.leave_relay(leaving);
        } else if SIDECAR.map(ip).contains(&to.ip()) && RELAY_INSIDE.map(ip).contains(&from.ip()) {
            self.from_relay.count(payload.len());
            self.agent
                .handle_datagram(to, from, BytesMut::from(payload), now);
        } else if to.ip() == ip(ROUTER) {
            let inner = self.nat.inbound(from, to, now);
            if let (Some(inner), Some(gate)) = (inner, &mut self.gate) {
                assert_eq!(inner.ip(), ip(GATE));
                gate.handle_datagram(from, inner, payload, now);
            }
        } else {
            self.nowhere += 1;
        }
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}
