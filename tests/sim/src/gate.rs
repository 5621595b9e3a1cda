//! The activator: gateway, allocations and links, held together as the activator's event loop does it.

mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use activator_proto::forward::{nat::NatTable, pool::ClientPool};
use activator_proto::{
    Forwarder, Gateway, GatewayConfig, Input, LinkKey, LinkLimits, Output, policy::ExportTable,
};
use bytes::BytesMut;
use link::{DtlsCertificate, Link, LinkTable, Path};
use model::{NodeId, RelayAccess, RelayName};
use protocol::document::document::Body;
use protocol::document::{Bound, Control, Refusal, Registration, control, relay_trouble};
use turn_client::Reserve;

use crate::allocation::{FromPeer, Part, Said, Standing, ToRelay};
use crate::picture::{CLIENT_POOL, Extent, GateSite, RELAYS, SERVICES, TUNNEL_MTU, ip};
use crate::random::Random;

/// What the activator wants done by the world.
#[derive(Debug)]
pub(crate) enum Wish {
    Send(SocketAddr, SocketAddr, Vec<u8>),
    /// From a port of its own, to a relay.
    Stream(SocketAddr, SocketAddr, Part),
    Post(NodeId, Body),
    Publish(Option<Registration>),
    FetchAccess(RelayName),
    /// By this link.
    ToService(u64, BytesMut),
}

/// One link, with what belongs to it.
#[derive(Debug)]
struct Active {
    link: Link,
    peer: NodeId,
    offered_as: u64,
    permitted: Vec<(RelayName, SocketAddr)>,
}

/// One run of an activator.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) site: GateSite,
    pub(crate) gateway: Gateway,
    pub(crate) allocations: Vec<Standing>,
    links: LinkTable<Active>,
    certificate: Arc<DtlsCertificate>,
    hosts: Vec<SocketAddr>,
    next_port: u16,
    seeds: Random,
    wishes: Vec<Wish>,
    /// Why links ended.
    pub(crate) closed: Vec<String>,
    pub(crate) opened: u64,
}

impl Gate {
    /// A new process: an instance, a certificate and ports of its own.
    pub(crate) fn start(site: GateSite, extent: Extent, seed: u64, now: Instant) -> Self {
        let mut seeds = Random::new(seed);
        let [ipv4, ipv6] = CLIENT_POOL;
        let pool = ClientPool::new(ipv4.parse().expect("IPv4"), ipv6.parse().expect("IPv6"));
        let exports = SERVICES
            .iter()
            .map(crate::picture::Service::export)
            .collect();
        let config = GatewayConfig {
            node: site.node(),
            instance: seeds.next(),
            seed: seeds.next(),
            exports: ExportTable::new(exports).expect("exports"),
            limits: LinkLimits::default(),
        };
        let forwarder = Forwarder::new(NatTable::new(pool.expect("a pool")), TUNNEL_MTU);
        let next_port = site.ports + seeds.below(15_000) as u16;
        let mut hosts = vec![SocketAddr::new(ip(site.inside), next_port)];
        if extent.cable {
            hosts.push(SocketAddr::new(ip(site.on_cable), next_port));
        }
        let mut gate = Self {
            site,
            gateway: Gateway::new(config, forwarder),
            allocations: Vec::new(),
            links: LinkTable::new(LinkLimits::default().total),
            certificate: DtlsCertificate::generate().expect("a certificate"),
            hosts,
            next_port: next_port + 1,
            seeds,
            wishes: Vec::new(),
            closed: Vec::new(),
            opened: 0,
        };
        let relays: BTreeMap<RelayName, _> = RELAYS[..extent.relays]
            .iter()
            .map(|relay| (relay.name(), relay.entry()))
            .collect();
        let input = Input::View {
            relays: &relays,
            revoked: &BTreeSet::new(),
        };
        gate.gateway.handle_input(input, now);
        gate.carry_out(now);
        gate
    }

    pub(crate) fn wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }

    pub(crate) fn handle_datagram(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        now: Instant,
    ) {
        let standing = self
            .allocations
            .iter_mut()
            .find(|standing| standing.is_at(to));
        if let Some(standing) = standing {
            if standing.server == from {
                let received = standing.receive(to, payload, now);
                self.deliver_all(received, now);
            }
        } else if self.hosts.contains(&to) {
            self.deliver(to, from, payload, now);
        }
        self.carry_out(now);
    }

    /// A part of a stream from a relay.
    pub(crate) fn handle_part(&mut self, to: SocketAddr, part: Part, now: Instant) {
        let standing = self
            .allocations
            .iter_mut()
            .find(|standing| standing.is_at(to));
        if let Some(standing) = standing {
            let received = standing.receive_part(to, part, now);
            self.deliver_all(received, now);
        }
        self.carry_out(now);
    }

    fn deliver_all(&mut self, received: Vec<FromPeer>, now: Instant) {
        for (local, peer, payload) in received {
            self.deliver(local, peer, &payload, now);
        }
    }

    /// Streams, which end with the process.
    pub(crate) fn streams(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let all = self.allocations.iter();
        all.flat_map(|standing| standing.streams().map(|local| (local, standing.server)))
            .collect()
    }

    /// Told to stop.
    pub(crate) fn shut_down(&mut self, now: Instant) {
        self.gateway.handle_input(Input::Shutdown, now);
        self.carry_out(now);
    }

    pub(crate) fn handle_document(&mut self, from: NodeId, body: Body, now: Instant) {
        match body {
            Body::Offer(offer) => {
                let serial = "2a".parse().expect("a serial number");
                let input = Input::Offer {
                    from,
                    serial,
                    offer,
                };
                self.gateway.handle_input(input, now);
            }
            Body::Bye(bye) => self.gateway.handle_input(Input::Bye { from, bye }, now),
            Body::Candidates(candidates) => self.on_candidates(&from, &candidates, now),
            _ => {}
        }
        self.carry_out(now);
    }

    pub(crate) fn handle_access(
        &mut self,
        relay: RelayName,
        access: Result<RelayAccess, String>,
        now: Instant,
    ) {
        self.gateway
            .handle_input(Input::Access { relay, access }, now);
        self.carry_out(now);
    }

    /// A packet from a service, as the kernel gives it to the TUN.
    pub(crate) fn handle_frame(&mut self, frame: &mut [u8], now: Instant) {
        if let activator_proto::forward::FromTun::ToLink(key) =
            self.gateway.forwarder.to_link(frame, now)
            && let Some(active) = self.links.get_mut(key.0)
        {
            let _ = active.link.send_frame(frame, now);
        }
        self.carry_out(now);
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        let allocations = self
            .allocations
            .iter_mut()
            .filter_map(Standing::poll_timeout)
            .min();
        let links = self
            .links
            .iter_mut()
            .filter_map(|(_, active)| active.link.poll_timeout())
            .min();
        [self.gateway.poll_timeout(), allocations, links]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let seed = self.seeds.next();
        let mut port = ports(&mut self.next_port, self.site);
        for standing in &mut self.allocations {
            standing.handle_timeout(&mut port, seed, now);
        }
        drop(port);
        for (_, active) in self.links.iter_mut() {
            if active.link.poll_timeout().is_some_and(|due| due <= now) {
                active.link.handle_timeout(now);
            }
        }
        if self.gateway.poll_timeout().is_some_and(|due| due <= now) {
            self.gateway.handle_timeout(now);
        }
        self.carry_out(now);
    }

    /// The offerers' names of the links that are open.
    pub(crate) fn open_links(&self) -> Vec<u64> {
        let open = self
            .links
            .iter()
            .filter(|(_, active)| active.link.is_open());
        open.map(|(_, active)| active.offered_as).collect()
    }

    /// Links that there are, open or not.
    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn direct_links(&self) -> usize {
        let direct = |active: &Active| active.link.path() == Some(Path::Direct);
        self.links
            .iter()
            .filter(|(_, active)| direct(active))
            .count()
    }

    fn deliver(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8], now: Instant) {
        if let Some(key) = self.links.route(local, remote, payload)
            && let Some(active) = self.links.get_mut(key)
        {
            active
                .link
                .handle_datagram(local, remote, BytesMut::from(payload), now);
        }
    }

    /// Until nothing is left to do.
    fn carry_out(&mut self, now: Instant) {
        loop {
            let mut idle = true;
            while let Some(output) = self.gateway.poll_output() {
                self.on_output(output, now);
                idle = false;
            }
            for at in 0..self.allocations.len() {
                while let Some(said) = self.allocations[at].poll_said(now) {
                    let relay = self.allocations[at].name.clone();
                    let input = match said {
                        Said::Allocated(relayed) => Input::Allocated { relay, relayed },
                        Said::Ending => Input::AllocationEnding { relay },
                        Said::Lost => Input::AllocationLost {
                            relay,
                            trouble: relay_trouble::Kind::Silent,
                        },
                        Said::NeedCredential => Input::CredentialRefused { relay },
                    };
                    self.gateway.handle_input(input, now);
                    idle = false;
                }
            }
            let keys: Vec<u64> = self.links.iter().map(|(key, _)| key).collect();
            for key in keys {
                idle &= !self.drain(LinkKey(key), now);
            }
            if idle {
                break;
            }
        }
        let mut port = ports(&mut self.next_port, self.site);
        for standing in &mut self.allocations {
            standing.climb(&mut port, now);
            send(standing, &mut self.wishes);
        }
        drop(port);
        self.gateway.links().check_consistency();
    }

    fn on_output(&mut self, output: Output, now: Instant) {
        match output {
            Output::Reserve(Reserve::FetchAccess { relay, .. }) => {
                self.wishes.push(Wish::FetchAccess(relay))
            }
            Output::Reserve(Reserve::AccessFailed { .. } | Reserve::RelayIgnored { .. }) => {}
            Output::Reserve(Reserve::Allocate { relay, access }) => {
                let local = ports(&mut self.next_port, self.site)();
                let seed = self.seeds.next();
                self.allocations
                    .push(Standing::start(relay, access, local, seed, now));
            }
            Output::Reserve(Reserve::RenewCredential { relay, access }) => {
                if let Some(standing) = self.standing(&relay) {
                    standing.renew(access, now);
                }
            }
            Output::Reserve(Reserve::Release { relay }) => {
                let position = self
                    .allocations
                    .iter()
                    .position(|standing| standing.name == relay);
                if let Some(mut standing) = position.map(|at| self.allocations.remove(at)) {
                    standing.mind.close(now);
                    send(&mut standing, &mut self.wishes);
                    for local in standing.streams() {
                        self.wishes
                            .push(Wish::Stream(local, standing.server, Part::Reset));
                    }
                }
            }
            Output::Reserve(Reserve::GiveBack { relay }) => {
                if let Some(standing) = self.standing(&relay) {
                    standing.mind.give_back(now);
                }
            }
            Output::Publish(registration) => self.wishes.push(Wish::Publish(registration)),
            Output::Answer {
                link,
                to,
                offer,
                relays,
                bindings,
            } => self.answer(link, &to, &offer, &relays, bindings, now),
            Output::Refuse {
                to,
                offered_as,
                reason,
            } => {
                let refusal = Refusal {
                    link: offered_as,
                    reason: reason.to_string(),
                };
                self.wishes.push(Wish::Post(to, Body::Refusal(refusal)));
            }
            Output::Bound { link, results } => {
                if let Some(active) = self.links.get_mut(link.0) {
                    let body = Some(control::Body::Bound(Bound { results }));
                    let _ = active.link.send_control(&Control { body }, now);
                }
            }
            Output::Resolve { .. } | Output::Outside { .. } => {
                unreachable!("no wildcard is exported")
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

    fn standing(&mut self, relay: &RelayName) -> Option<&mut Standing> {
        self.allocations
            .iter_mut()
            .find(|standing| standing.name == *relay)
    }
}

/// Gives one port after the other.
fn ports(next: &mut u16, site: GateSite) -> impl FnMut() -> SocketAddr {
    move || {
        *next += 1;
        SocketAddr::new(ip(site.inside), *next)
    }
}

/// Takes what an allocation wants to be sent.
fn send(standing: &mut Standing, wishes: &mut Vec<Wish>) {
    let server = standing.server;
    for send in standing.take_sends() {
        wishes.push(match send {
            ToRelay::Datagram(local, message) => Wish::Send(local, server, message),
            ToRelay::Stream(local, part) => Wish::Stream(local, server, part),
        });
    }
}
