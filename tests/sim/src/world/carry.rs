//! What happens, and who is told.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use dns_signal_proto::agent::{AgentOutput, Peers};
use wire::frame::{HEADER_LEN, Header};

use super::{Happening, Sending, World};
use crate::allocation::Part;
use crate::gate::Wish;
use crate::packet::Packet;
use crate::picture::{GATES, GateSite, ROUTER, ip, is_on_cable, sidecar_node};
use crate::reference;
use crate::relay::Leaving;
use crate::signaling::{DELAY, Mail, POST_TIMEOUT};

/// A segment of TCP that was lost is sent again after this, doubling.
const RETRANSMIT: Duration = Duration::from_millis(200);
/// And for so long (as `net::Stream` has it).
const GIVEN_UP: Duration = Duration::from_secs(6);

impl World {
    pub(super) fn on_happening(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Datagram { from, to, payload } => self.arrive(from, to, &payload),
            Happening::Part {
                local,
                relay,
                to_relay,
                part,
            } => self.part_arrives(local, relay, to_relay, part),
            Happening::Retransmit(local, to_relay) => self.transmit(local, to_relay),
            Happening::Mail(mail) => self.signaling.keep(mail),
            Happening::Registered(gate) if !self.signaling.away => {
                self.signaling.registered[gate].clone_from(&self.signaling.wanted[gate]);
                self.timeline.push(now + DELAY, Happening::View);
            }
            Happening::LeaseOver(gate, run) if !self.signaling.away => {
                if self.runs[gate] == run && self.gates[gate].is_none() {
                    self.signaling.wanted[gate] = None;
                    self.signaling.registered[gate] = None;
                    self.timeline.push(now + DELAY, Happening::View);
                }
            }
            Happening::View if !self.signaling.away => {
                let registered = self.signaling.registered.clone();
                let known = GATES.iter().zip(registered);
                let known = known.filter_map(|(site, said)| Some((site.node(), said?)));
                self.agent.handle_peers(Peers::new(known), now);
            }
            // When it is back, everybody looks anew.
            Happening::Registered(_) | Happening::LeaseOver(..) | Happening::View => {}
            Happening::PostFailed(link) => {
                self.agent
                    .handle_post_failed(link, "discovery is not reachable", now);
            }
            Happening::Access(gate, relay, access) => {
                if let Some(gate) = &mut self.gates[gate] {
                    gate.handle_access(relay, access, now);
                }
            }
            Happening::Drained(relay, incarnation) => self.on_drained(relay, incarnation),
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
                    // Refusals that the sidecar itself says are of no service, and carry nothing.
                    if !reference::is_too_big(packet) && Packet::peek(packet).is_some() {
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
                // All names are services', and there; and it knows of no relays.
                AgentOutput::Verdict { .. }
                | AgentOutput::Reserve(_)
                | AgentOutput::Permit { .. }
                | AgentOutput::Unpermit { .. } => {}
            }
        }
        for at in 0..self.gates.len() {
            while let Some(gate) = &mut self.gates[at] {
                let wishes = gate.wishes();
                if wishes.is_empty() {
                    break;
                }
                for wish in wishes {
                    self.grant(at, wish);
                }
            }
        }
    }

    fn grant(&mut self, gate: usize, wish: Wish) {
        match wish {
            Wish::Send(from, to, payload) => {
                if is_on_cable(from.ip()) || is_on_cable(to.ip()) {
                    self.leave(from, to, &payload);
                } else if is_private(to.ip()) {
                    // It stays in east, and nobody is there but the services, who do not speak STUN.
                    self.nowhere += 1;
                } else if !self.nat.no_udp {
                    let mapped = self.nat.outbound(from, to, &mut self.random, self.now);
                    self.leave(mapped, to, &payload);
                }
            }
            Wish::Stream(local, relay, part) => self.part_leaves(local, relay, true, part),
            Wish::Post(to, body) if !self.signaling.away => {
                self.post(GATES[gate].node(), to, body);
            }
            Wish::Post(..) => {}
            Wish::Publish(registration) => {
                self.signaling.wanted[gate] = registration;
                self.timeline
                    .push(self.now + DELAY, Happening::Registered(gate));
            }
            Wish::FetchAccess(relay) => {
                let access = match self.signaling.away {
                    true => Err("discovery is not reachable".to_owned()),
                    false => Ok(self.access(gate, &relay)),
                };
                let happening = Happening::Access(gate, relay, access);
                self.timeline.push(self.now + 2 * DELAY, happening);
            }
            Wish::ToService(link, frame) => self.on_service((gate, link), &frame),
        }
    }

    /// The service answers at once, through the activator's kernel and TUN.
    fn on_service(&mut self, (gate, link): (usize, u64), frame: &BytesMut) {
        assert_eq!(frame.get(..HEADER_LEN), Some(&Header::PLAIN.encode()[..]));
        let packet = &frame[HEADER_LEN..];
        if reference::is_too_big(packet) {
            return;
        }
        let reply = self
            .reference
            .on_service(gate, (self.runs[gate], link), packet, self.now);
        let mut frame = [&Header::PLAIN.encode()[..], &reply.encode()].concat();
        if let Some(gate) = &mut self.gates[gate] {
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
        for (gate, site) in self.gates.iter_mut().zip(&GATES) {
            if let Some(gate) = gate {
                for mail in self.signaling.fetch(&site.node(), self.now) {
                    gate.handle_document(mail.from, mail.body, self.now);
                }
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

    pub(super) fn leave_relay(&mut self, relay: usize, leaving: Vec<Leaving>) {
        for (from, to, payload, stream) in leaving {
            if self.relays[relay].is_inside(from.ip()) {
                self.relay_sent_inside.count(payload.len());
            }
            if stream {
                let local = self.behind_router(to);
                // A stream is cut anywhere.
                let at = self.random.below(payload.len() as u64) as usize;
                for part in [&payload[..at], &payload[at..]] {
                    if !part.is_empty() {
                        self.part_leaves(local, from, false, Part::Bytes(part.to_vec()));
                    }
                }
            } else {
                self.leave(from, to, &payload);
            }
        }
    }

    /// The router leaves the ports of TCP as they are: those of the activators differ.
    fn behind_router(&self, seen: SocketAddr) -> SocketAddr {
        let site = GATES
            .iter()
            .rev()
            .find(|site| seen.port() >= site.ports)
            .expect("an activator's port");
        SocketAddr::new(ip(site.inside), seen.port())
    }

    /// A part of a stream leaves one end; it is sent again until it arrives, and nothing overtakes it.
    pub(super) fn part_leaves(
        &mut self,
        local: SocketAddr,
        relay: SocketAddr,
        to_relay: bool,
        part: Part,
    ) {
        let now = self.now;
        let sending = self.streams.entry((local, to_relay));
        let sending = sending.or_insert_with(|| Sending {
            last: now,
            waiting: VecDeque::new(),
            since: now,
            times: 0,
        });
        sending.waiting.push_back((relay, part));
        if sending.waiting.len() == 1 {
            sending.since = now;
            self.transmit(local, to_relay);
        }
    }

    /// Sends what waits, up to what is lost.
    fn transmit(&mut self, local: SocketAddr, to_relay: bool) {
        let (now, conditions) = (self.now, self.conditions);
        let Some(sending) = self.streams.get_mut(&(local, to_relay)) else {
            return;
        };
        while let Some((relay, _)) = sending.waiting.front() {
            let relay = *relay;
            if self.random.percent(conditions.loss) {
                if now.saturating_duration_since(sending.since) >= GIVEN_UP {
                    self.streams.remove(&(local, to_relay));
                    return self.break_off(local, relay, to_relay);
                }
                let again = now + (RETRANSMIT * (1 << sending.times.min(4)));
                sending.times += 1;
                let happening = Happening::Retransmit(local, to_relay);
                return self.timeline.push(again, happening);
            }
            let delay = conditions.latency + self.random.duration(conditions.jitter);
            sending.last = sending.last.max(now + delay);
            (sending.since, sending.times) = (now, 0);
            if let Some((relay, part)) = sending.waiting.pop_front() {
                let happening = Happening::Part {
                    local,
                    relay,
                    to_relay,
                    part,
                };
                self.timeline.push(sending.last, happening);
            }
        }
    }

    /// One end has waited in vain, and takes the connection for dead; the other end hears of it when it sends.
    fn break_off(&mut self, local: SocketAddr, relay: SocketAddr, by_gate: bool) {
        let happening = Happening::Part {
            local,
            relay,
            to_relay: !by_gate,
            part: Part::Reset,
        };
        self.timeline.push(self.now, happening);
    }

    fn part_arrives(&mut self, local: SocketAddr, relay: SocketAddr, to_relay: bool, part: Part) {
        if !to_relay {
            if matches!(part, Part::Reset) {
                self.streams.remove(&(local, true));
            }
            let gate = self
                .gates
                .iter_mut()
                .flatten()
                .find(|gate| ip(gate.site.inside) == local.ip());
            if let Some(gate) = gate {
                gate.handle_part(local, part, self.now);
            }
            return;
        }
        let (now, seen) = (self.relay_now(), SocketAddr::new(ip(ROUTER), local.port()));
        let at = self.relays.iter().position(|host| host.is_at(relay));
        let Some(at) = at.filter(|at| self.relays[*at].up) else {
            return;
        };
        let host = &mut self.relays[at];
        match part {
            Part::Open => {
                host.accept(seen);
                self.part_leaves(local, relay, false, Part::Opened);
            }
            Part::Opened => {}
            Part::Bytes(message) => match host.handle_message(seen, &message, now) {
                Some(leaving) => self.leave_relay(at, leaving),
                None => self.part_leaves(local, relay, false, Part::Reset),
            },
            Part::Reset => {
                let leaving = host.hang_up(seen, now);
                self.leave_relay(at, leaving);
            }
        }
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let now = self.now;
        if let Some(at) = self.relays.iter().position(|host| host.is_at(to)) {
            let relay_now = self.relay_now();
            let leaving = self.relays[at].handle(from, to, payload, relay_now);
            return self.leave_relay(at, leaving);
        }
        let by_cable = is_on_cable(from.ip()) && is_on_cable(to.ip()) && self.cable;
        let from_relay = self.relays.iter().any(|host| host.is_inside(from.ip()));
        if self.hosts.contains(&to) && (by_cable || from_relay) {
            if from_relay {
                self.from_relay.count(payload.len());
            }
            self.agent
                .handle_datagram(to, from, BytesMut::from(payload), now);
            return;
        }
        let inner = if by_cable {
            Some(to)
        } else if to.ip() == ip(ROUTER) && !self.nat.no_udp {
            self.nat.inbound(from, to, now)
        } else {
            self.nowhere += u64::from(to.ip() != ip(ROUTER));
            None
        };
        let is_at = |site: &GateSite, to: IpAddr| to == ip(site.inside) || to == ip(site.on_cable);
        if let Some(inner) = inner {
            let mut gates = self.gates.iter_mut().flatten();
            if let Some(gate) = gates.find(|gate| is_at(&gate.site, inner.ip())) {
                gate.handle_datagram(from, inner, payload, now);
            }
        }
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}
