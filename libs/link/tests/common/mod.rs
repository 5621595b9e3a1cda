//! Two links and the wire between them, in virtual time.
#![allow(dead_code, unreachable_pub)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use turnpike_link::{
    CandidateKind, DtlsCertificate, Link, LinkConfig, LinkEvent, LinkRole, LocalCandidate, Step,
};

pub const OFFERER: usize = 0;
pub const ANSWERER: usize = 1;

type Reorder = dyn FnMut(usize, BytesMut) -> Vec<BytesMut>;
type OnWire = dyn FnMut(usize, &mut BytesMut) -> bool;

pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub links: [Link; 2],
    pub events: [Vec<(Duration, LinkEvent)>; 2],
    pub one_way: Duration,
    /// What is on the wire: when it arrives, at whom, from and to which address, and the bytes.
    wire: VecDeque<(Instant, usize, SocketAddr, SocketAddr, BytesMut)>,
    /// Sees every datagram; gives back whether it passes. May change it.
    pub on_wire: Box<OnWire>,
    pub datagrams: usize,
    /// What goes on the wire instead of a datagram, in order.
    pub reorder: Option<Box<Reorder>>,
}

pub fn addresses() -> [SocketAddr; 2] {
    ["10.0.0.10:4000", "10.0.0.3:7000"].map(|text| text.parse().expect("an address"))
}

impl World {
    pub fn new(one_way: Duration) -> Self {
        let config = LinkConfig::default();
        let certificates = [DtlsCertificate::generate(), DtlsCertificate::generate()]
            .map(|certificate| certificate.expect("a certificate"));
        Self::with(one_way, &config, certificates, CandidateKind::Relayed)
    }

    pub fn with(
        one_way: Duration,
        config: &LinkConfig,
        certificates: [Arc<DtlsCertificate>; 2],
        answerer_kind: CandidateKind,
    ) -> Self {
        let now = Instant::now();
        let [first, second] = certificates;
        let mut links = [
            Link::new(LinkRole::Offerer, first, config, now).expect("an offerer"),
            Link::new(LinkRole::Answerer, second, config, now).expect("an answerer"),
        ];
        for ((link, address), kind) in links
            .iter_mut()
            .zip(addresses())
            .zip([CandidateKind::Host, answerer_kind])
        {
            let candidate = LocalCandidate {
                kind,
                address,
                base: address,
            };
            link.add_local_candidate(candidate, now)
                .expect("a candidate");
        }
        Self {
            now,
            start: now,
            links,
            events: [Vec::new(), Vec::new()],
            one_way,
            wire: VecDeque::new(),
            on_wire: Box::new(|_, _| true),
            datagrams: 0,
            reorder: None,
        }
    }

    /// Exchanges the descriptions, the answerer first, each after a trip over the wire.
    pub fn signal(&mut self) {
        let offer = self.links[OFFERER].local_description();
        let answer = self.links[ANSWERER].local_description();
        self.links[ANSWERER]
            .set_remote_description(&offer, self.now)
            .expect("an offer");
        self.links[OFFERER]
            .set_remote_description(&answer, self.now)
            .expect("an answer");
        self.drain();
    }

    pub fn drain(&mut self) {
        for side in [OFFERER, ANSWERER] {
            while let Some(event) = self.links[side].poll_event() {
                self.events[side].push((self.now - self.start, event));
            }
            while let Some(transmit) = self.links[side].poll_transmit() {
                for payload in transmit.datagrams() {
                    self.datagrams += 1;
                    let mut payload = BytesMut::from(payload);
                    if !(self.on_wire)(side, &mut payload) {
                        continue;
                    }
                    let payloads = match &mut self.reorder {
                        Some(reorder) => reorder(side, payload),
                        None => vec![payload],
                    };
                    for payload in payloads {
                        let arrives = self.now + self.one_way;
                        let sent = (arrives, 1 - side, transmit.local, transmit.remote, payload);
                        self.wire.push_back(sent);
                    }
                }
            }
        }
    }

    /// One step of virtual time: the next arrival or timer. `false` when nothing is left to happen.
    pub fn step(&mut self) -> bool {
        let arrival = self.wire.front().map(|first| first.0);
        let timers = [OFFERER, ANSWERER].map(|side| self.links[side].poll_timeout());
        let Some(next) = [arrival, timers[0], timers[1]].into_iter().flatten().min() else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let (_, side, from, to, payload) = self.wire.pop_front().expect("an arrival");
            self.links[side].handle_datagram(to, from, payload, self.now);
        } else {
            for (side, timer) in timers.into_iter().enumerate() {
                if timer.is_some_and(|timer| timer <= self.now) {
                    self.links[side].handle_timeout(self.now);
                }
            }
        }
        self.drain();
        true
    }

    /// Runs until `done` or until `limit` of virtual time has passed; says which.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if self.now > end || !self.step() {
                return false;
            }
        }
        true
    }

    pub fn both_open(&self) -> bool {
        self.links.iter().all(Link::is_open)
    }

    pub fn step_time(&self, side: usize, wanted: Step) -> Option<Duration> {
        self.events[side]
            .iter()
            .find_map(|(at, event)| match event {
                LinkEvent::Step(step) if *step == wanted => Some(*at),
                _ => None,
            })
    }

    pub fn frames(&self, side: usize) -> Vec<&[u8]> {
        self.events[side]
            .iter()
            .filter_map(|(_, event)| match event {
                LinkEvent::Frame(frame) => Some(&frame[..]),
                _ => None,
            })
            .collect()
    }

    pub fn close_reason(&self, side: usize) -> Option<String> {
        self.events[side].iter().find_map(|(_, event)| match event {
            LinkEvent::Closed(reason) => Some(reason.to_string()),
            _ => None,
        })
    }
}
