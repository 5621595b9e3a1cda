//! An agent and an activator of the test's own, in virtual time, with a wire between them that loses nothing.
#![allow(dead_code, unreachable_pub)]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dns_signal_proto::agent::{
    Agent, AgentConfig, AgentOutput, Destination, FrameDrop, LinkNotice, NameVerdict, Peers,
};
use link::{CandidateKind, DtlsCertificate, Link, LinkConfig, LinkEvent, LinkRole, LocalCandidate};
use model::NodeId;
use protocol::document::control::Body as ControlBody;
use protocol::document::document::Body;
use protocol::document::{
    Answer, Binding, BindingResult, Bound, Control, Foothold, Offer, Registration, Service,
};

pub const SECOND: Duration = Duration::from_secs(1);
pub const DEVICE: &str = "198.18.0.1";
pub const ORDERS: &str = "198.18.7.7";
pub const STOCK: &str = "198.18.8.8";

pub struct World {
    pub now: Instant,
    pub agent: Agent,
    pub node: NodeId,
    pub certificate: Arc<DtlsCertificate>,
    pub activator: Option<Link>,
    pub offer: Option<Offer>,
    pub offers: usize,
    pub to_tun: Vec<BytesMut>,
    pub received: Vec<BytesMut>,
    pub notices: Vec<LinkNotice>,
    pub verdicts: Vec<(String, NameVerdict)>,
    /// Bindings that were asked for over the link.
    pub binds: Vec<Binding>,
    pub documents: Vec<Body>,
    /// Whether the activator answers at all, and what it says of each binding.
    pub answers: bool,
    pub accepts: fn(&str) -> bool,
    /// Names of which the activator does not say at once what they are.
    pub unsaid: fn(&str) -> bool,
    /// For how long it says that a refused service is not there, in seconds.
    pub absent_seconds: u32,
    /// Changes an answer's fingerprint, as somebody in between would.
    pub forge_fingerprint: bool,
    wire: VecDeque<(bool, SocketAddr, SocketAddr, BytesMut)>,
    /// Nothing comes or goes at the host's own address.
    pub blocked: bool,
    /// What the agent wants of relays.
    pub of_relays: Vec<AgentOutput>,
}

pub fn host() -> SocketAddr {
    "10.0.0.10:4000".parse().expect("an address")
}

pub fn relayed() -> SocketAddr {
    "10.0.0.2:50000".parse().expect("an address")
}

pub fn destination(service: &str, address: &str) -> Destination {
    Destination {
        network: "east".parse().expect("a name"),
        service: service.parse().expect("a name"),
        ipv4: address.parse().ok(),
        ipv6: None,
    }
}

/// A frame with an IPv4 packet (protocol 253, for experiments) between two addresses.
pub fn frame(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; wire::frame::HEADER_LEN];
    frame[0] = wire::frame::VERSION << 4;
    let total = 20 + payload.len() as u16;
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 253, 0, 0];
    header[2..4].copy_from_slice(&total.to_be_bytes());
    for address in [from, to] {
        let IpAddr::V4(ip) = address.parse().expect("an address") else {
            panic!("IPv4 only")
        };
        header.extend(ip.octets());
    }
    let sum: u32 = header
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    frame.extend(header);
    frame.extend(payload);
    frame
}

impl World {
    pub fn new() -> Self {
        let now = Instant::now();
        let config = AgentConfig {
            network: "west".parse().expect("a name"),
            device_ipv4: DEVICE.parse().expect("an address"),
            device_ipv6: "fd74::1".parse().expect("an address"),
            idle_timeout: 60 * SECOND,
            answer_timeout: 3 * SECOND,
            standby: false,
            link: LinkConfig::default(),
            paths: Default::default(),
        };
        let certificate = DtlsCertificate::generate().expect("a certificate");
        let agent = Agent::new(config, certificate.clone(), vec![host()], 77);
        Self {
            now,
            agent,
            node: "east/activator/gate".parse().expect("an id"),
            certificate,
            activator: None,
            offer: None,
            offers: 0,
            to_tun: Vec::new(),
            received: Vec::new(),
            notices: Vec::new(),
            verdicts: Vec::new(),
            binds: Vec::new(),
            documents: Vec::new(),
            answers: true,
            accepts: |_| true,
            unsaid: |_| false,
            absent_seconds: 0,
            forge_fingerprint: false,
            wire: VecDeque::new(),
            blocked: false,
            of_relays: Vec::new(),
        }
    }

    pub fn register(&mut self, instance: u64, relayed: SocketAddr) {
        self.register_all(&["gate"], instance, relayed);
    }

    /// Several activators of one network.
    pub fn register_all(&mut self, names: &[&str], instance: u64, relayed: SocketAddr) {
        let service = |name: &str| Service {
            name: name.to_owned(),
            ipv4: true,
            ..Service::default()
        };
        let registration = |name: &str| Registration {
            network: "east".to_owned(),
            node: name.to_owned(),
            instance,
            footholds: vec![Foothold {
                relay: "west-1".to_owned(),
                network: "west".to_owned(),
                relayed_addresses: vec![relayed.to_string()],
            }],
            services: vec![service("orders"), service("stock"), service("*.prod")],
            troubles: Vec::new(),
        };
        let peers = Peers::new(names.iter().map(|name| {
            let node = format!("east/activator/{name}").parse();
            (node.expect("an id"), registration(name))
        }));
        self.agent.handle_peers(peers, self.now);
        self.carry_out();
    }

    pub fn want(&mut self, service: &str, address: &str) {
        self.agent
            .handle_wanted(destination(service, address), self.now, self.now);
        self.carry_out();
    }

    pub fn send(&mut self, to: &str, payload: &[u8]) -> Result<(), FrameDrop> {
        let address = to.parse().expect("an address");
        let sent = self
            .agent
            .handle_frame(&frame(DEVICE, to, payload), address, self.now);
        self.carry_out();
        sent
    }

    /// The activator says what became of a binding.
    pub fn say(&mut self, service: &str, accepted: bool, absent_seconds: u32) {
        let result = BindingResult {
            service: service.to_owned(),
            accepted,
            reason: "because".to_owned(),
            absent_seconds,
        };
        let results = vec![result];
        let body = Some(ControlBody::Bound(Bound { results }));
        let now = self.now;
        let activator = self.activator.as_mut().expect("a link");
        activator
            .send_control(&Control { body }, now)
            .expect("room");
        self.carry_out();
        self.settle();
    }

    /// The activator sends a frame over the link.
    pub fn reply(&mut self, frame: &[u8]) {
        let now = self.now;
        self.activator
            .as_mut()
            .expect("a link")
            .send_frame(frame, now)
            .expect("room");
        self.carry_out();
        self.settle();
    }

    /// Lets everything arrive that is on the wire, without time passing.
    pub fn settle(&mut self) {
        while let Some((to_agent, local, remote, payload)) = self.wire.pop_front() {
            if self.blocked && (local == host() || remote == host()) {
                continue;
            }
            if to_agent {
                self.agent.handle_datagram(local, remote, payload, self.now);
            } else if let Some(activator) = &mut self.activator {
                activator.handle_datagram(local, remote, payload, self.now);
            }
            self.carry_out();
        }
    }

    /// Lets time pass, in steps of the timers.
    pub fn advance(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.carry_out();
            self.settle();
            let timers = [
                self.agent.poll_timeout(),
                self.activator.as_mut().and_then(Link::poll_timeout),
            ];
            let Some(next) = timers
                .into_iter()
                .flatten()
                .min()
                .filter(|next| *next <= end)
            else {
                break;
            };
            self.now = self.now.max(next);
            self.agent.handle_timeout(self.now);
            if let Some(activator) = &mut self.activator {
                activator.handle_timeout(self.now);
            }
            self.carry_out();
        }
        self.now = end;
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                AgentOutput::Transmit(transmit) => {
                    for payload in transmit.datagrams() {
                        self.wire.push_back((
                            false,
                            transmit.remote,
                            transmit.local,
                            BytesMut::from(payload),
                        ));
                    }
                }
                AgentOutput::Reserve(_)
                | AgentOutput::Permit { .. }
                | AgentOutput::Unpermit { .. } => self.of_relays.push(output),
                AgentOutput::ToTun(frame) => self.to_tun.push(frame),
                AgentOutput::Notice(notice) => self.notices.push(notice),
                AgentOutput::Verdict {
                    service, verdict, ..
                } => self.verdicts.push((service.to_string(), verdict)),
                AgentOutput::Document {
                    to,
                    body: Body::Offer(offer),
                    ..
                } => {
                    self.node = to;
                    self.on_offer(offer);
                }
                AgentOutput::Document { body, .. } => self.documents.push(body),
            }
        }
        self.drain_activator();
    }

    fn on_offer(&mut self, offer: Offer) {
        self.offers += 1;
        self.offer = Some(offer.clone());
        if !self.answers {
            return;
        }
        let mut link = Link::new(
            LinkRole::Answerer,
            DtlsCertificate::generate().expect("a certificate"),
            &LinkConfig::default(),
            self.now,
        )
        .expect("a link");
        let candidate = LocalCandidate {
            kind: CandidateKind::Relayed,
            address: relayed(),
            base: relayed(),
        };
        link.add_local_candidate(candidate, self.now)
            .expect("a candidate");
        let description = offer.description.expect("a description");
        link.set_remote_description(&description, self.now)
            .expect("usable");
        let mut description = link.local_description();
        if self.forge_fingerprint {
            description.dtls_fingerprint[0] ^= 1;
        }
        let answer = Answer {
            link: offer.link,
            description: Some(description),
            bindings: offer
                .bindings
                .iter()
                .filter(|b| !(self.unsaid)(&b.service))
                .map(|b| self.result(&b.service))
                .collect(),
        };
        self.activator = Some(link);
        self.document(Body::Answer(answer));
    }

    fn result(&self, service: &str) -> BindingResult {
        let accepted = (self.accepts)(service);
        BindingResult {
            service: service.to_owned(),
            accepted,
            reason: "policy".to_owned(),
            absent_seconds: if accepted { 0 } else { self.absent_seconds },
        }
    }

    /// A document from the activator arrives.
    pub fn document(&mut self, body: Body) {
        let node = self.node.clone();
        self.agent.handle_document(&node, body, self.now);
        self.carry_out();
    }

    fn drain_activator(&mut self) {
        let (accepts, unsaid) = (self.accepts, self.unsaid);
        let Some(link) = &mut self.activator else {
            return;
        };
        while let Some(event) = link.poll_event() {
            match event {
                LinkEvent::Frame(frame) => self.received.push(frame),
                LinkEvent::Control(Control {
                    body: Some(ControlBody::Bind(bind)),
                }) => {
                    self.binds.extend(bind.bindings.iter().cloned());
                    let results = bind
                        .bindings
                        .iter()
                        .filter(|binding| !unsaid(&binding.service))
                        .map(|binding| BindingResult {
                            service: binding.service.clone(),
                            accepted: accepts(&binding.service),
                            reason: "policy".to_owned(),
                            absent_seconds: 0,
                        })
                        .collect();
                    let bound = Control {
                        body: Some(ControlBody::Bound(Bound { results })),
                    };
                    link.send_control(&bound, self.now).expect("room");
                }
                _ => {}
            }
        }
        while let Some(transmit) = link.poll_transmit() {
            for payload in transmit.datagrams() {
                self.wire.push_back((
                    true,
                    transmit.remote,
                    transmit.local,
                    BytesMut::from(payload),
                ));
            }
        }
    }

    pub fn open_links(&self) -> usize {
        self.agent.status().iter().filter(|link| link.open).count()
    }
}
