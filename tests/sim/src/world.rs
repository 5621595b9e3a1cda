//! The world: everybody in their places, and time.

mod carry;
mod levers;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dns_signal_proto::agent::{Agent, AgentConfig, FrameDrop, LinkNotice};
use link::{DtlsCertificate, LinkConfig};
use model::{RelayAccess, RelayName, RelayTransport, RelayWay, ServerAddr, UnixTime};
use turn_relay_proto::{Now, rest_password};
use wire::frame::Header;

use crate::allocation::Part;
use crate::gate::Gate;
use crate::nat::Nat;
use crate::packet::{Packet, Transport};
use crate::picture::{
    DEVICE, Extent, GATES, RELAYS, SECRET, SERVICES, SIDECAR, SIDECAR_ON_CABLE, Service, address,
    ip,
};
use crate::random::Random;
use crate::reference::Reference;
use crate::relay::{Counts, RelayHost};
use crate::signaling::{Mail, Signaling};
use crate::timeline::{Conditions, Timeline};

/// 2027-01-15.
const EPOCH: u64 = 1_800_000_000;
/// How long a credential for the relay is good.
const CREDENTIAL: Duration = Duration::from_secs(3_600);
/// More steps than this without time passing: a mind asks to be woken at a time that is over, again and again.
const MAX_STEPS_AT_ONCE: u32 = 10_000;

/// Something that will happen.
#[derive(Debug)]
enum Happening {
    /// On the wire of west's inside, or between public addresses.
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        payload: Vec<u8>,
    },
    /// On a connection between an activator and a relay, by the activator's end.
    Part {
        local: SocketAddr,
        relay: SocketAddr,
        to_relay: bool,
        part: Part,
    },
    /// What was lost on a connection is sent again.
    Retransmit(SocketAddr, bool),
    /// Mail reaches a mailbox.
    Mail(Mail),
    /// A view reaches the sidecar.
    View,
    /// What an activator wants to be registered reaches the directory.
    Registered(usize),
    /// Nobody renewed the registration of this run of an activator.
    LeaseOver(usize, u64),
    PostFailed(u64),
    Access(usize, RelayName, Result<RelayAccess, String>),
    /// A relay's drain is over.
    Drained(usize, u8),
}

/// One way of a connection: nothing overtakes there, and what is lost is sent again.
#[derive(Debug)]
struct Sending {
    /// The last arrival.
    last: Instant,
    /// What waits, the first of it since then, sent so often.
    waiting: VecDeque<(SocketAddr, Part)>,
    since: Instant,
    times: u32,
}

/// Everybody, and time. See the crate's documentation.
#[derive(Debug)]
pub struct World {
    start: Instant,
    now: Instant,
    random: Random,
    timeline: Timeline<Happening>,
    /// How bad the network is.
    pub conditions: Conditions,
    idle_timeout: Duration,
    pub(crate) extent: Extent,
    agent: Agent,
    /// Where the sidecar is now.
    hosts: Vec<SocketAddr>,
    /// On the first of its addresses, or the second.
    place: usize,
    pub(crate) gates: Vec<Option<Gate>>,
    /// How often each activator was started.
    runs: [u64; 2],
    pub(crate) relays: Vec<RelayHost>,
    /// Whether the cable between the networks is whole.
    pub(crate) cable: bool,
    pub(crate) nat: Nat,
    /// Each way of each connection, by the activator's end and whether it is the one to the relay.
    streams: HashMap<(SocketAddr, bool), Sending>,
    pub(crate) signaling: Signaling,
    /// What was sent, and what became of it.
    pub reference: Reference,
    /// What the sidecar said.
    pub notices: Vec<LinkNotice>,
    /// Frames that the sidecar refused, with the reason.
    pub refused: Vec<FrameDrop>,
    /// Data that reached the sidecar from the relay.
    pub from_relay: Counts,
    /// Datagrams for addresses where nobody is.
    pub nowhere: u64,
    relay_sent_inside: Counts,
    /// Data of peers that earlier runs of activators received.
    earlier_from_peers: Counts,
    numbers: u64,
    incarnation: u8,
    steps_at_once: u32,
}

impl World {
    /// Everybody starts now. `seed` decides all that is left to chance.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_idle_timeout(seed, Duration::from_secs(60))
    }

    /// A world whose sidecar tears links down that were idle for so long.
    #[must_use]
    pub fn with_idle_timeout(seed: u64, idle_timeout: Duration) -> Self {
        Self::with(seed, idle_timeout, Extent::SMALL)
    }

    pub(crate) fn with(seed: u64, idle_timeout: Duration, extent: Extent) -> Self {
        // Only a point to count from.
        let now = Instant::now();
        let mut random = Random::new(seed);
        let mut world = Self {
            start: now,
            now,
            timeline: Timeline::new(),
            conditions: Conditions::CALM,
            idle_timeout,
            extent,
            agent: agent(idle_timeout, extent, hosts(extent, 0, 4_000), random.next()),
            hosts: hosts(extent, 0, 4_000),
            place: 0,
            gates: (0..extent.gates).map(|_| None).collect(),
            runs: [0; 2],
            relays: (1..)
                .zip(&RELAYS[..extent.relays])
                .map(|(incarnation, site)| RelayHost::new(*site, extent.tcp, incarnation, now))
                .collect(),
            cable: extent.cable,
            nat: Nat::default(),
            streams: HashMap::new(),
            signaling: Signaling::default(),
            reference: Reference::new(),
            notices: Vec::new(),
            refused: Vec::new(),
            from_relay: Counts::default(),
            nowhere: 0,
            relay_sent_inside: Counts::default(),
            earlier_from_peers: Counts::default(),
            numbers: 0,
            incarnation: 2,
            steps_at_once: 0,
            random,
        };
        for gate in 0..extent.gates {
            world.start_gate_at(gate);
        }
        world
    }

    /// A world whose activator holds its allocation and is known to the sidecar.
    #[must_use]
    pub fn ready(seed: u64) -> Self {
        Self::new(seed).settled()
    }

    /// As [`World::ready`], with two relays and no way but over them.
    #[must_use]
    pub fn with_two_relays(seed: u64) -> Self {
        let extent = Extent {
            relays: 2,
            ..Extent::SMALL
        };
        Self::with(seed, Duration::from_secs(60), extent).settled()
    }

    /// Lets the activator register.
    ///
    /// # Panics
    /// When it does not within 5 s.
    #[must_use]
    pub fn settled(mut self) -> Self {
        let registered = self.run_until(Duration::from_secs(5), |world| world.has_foothold());
        assert!(
            registered,
            "the activator gets its allocation and registers"
        );
        self.run(Duration::from_millis(200));
        self
    }

    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    /// Virtual time since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// The workload sends a packet to a service; gives its number.
    ///
    /// # Panics
    /// When the service has no address of that family.
    pub fn send(
        &mut self,
        service: &Service,
        ipv6: bool,
        transport: Transport,
        more: &[u8],
    ) -> u64 {
        self.numbers += 1;
        let number = self.numbers;
        let packet = Packet {
            source: ip(DEVICE[usize::from(ipv6)]),
            destination: service.virtual_ip(ipv6).expect("an address of that family"),
            transport,
            payload: [&number.to_be_bytes(), more].concat(),
        };
        let frame = [&Header::PLAIN.encode()[..], &packet.encode()].concat();
        let destination = packet.destination;
        self.reference.on_sent(number, packet, self.now);
        let mut taken = self.agent.handle_frame(&frame, destination, self.now);
        if taken == Err(FrameDrop::UnknownDestination) {
            // As the shell does: the DNS side knows what it handed out.
            self.agent.learn_route(service.destination());
            taken = self.agent.handle_frame(&frame, destination, self.now);
        }
        self.refused.extend(taken.err());
        self.carry_out();
        number
    }

    /// An echo request over IPv4 with a few bytes in it.
    pub fn ping(&mut self, service: &Service) -> u64 {
        let echo = Transport::Echo {
            reply: false,
            identifier: 7,
        };
        self.send(service, false, echo, b"ping")
    }

    /// The workload asks DNS for a service.
    pub fn ask(&mut self, service: &Service) {
        self.agent
            .handle_wanted(service.destination(), self.now, self.now);
        self.carry_out();
    }

    /// Lets time pass.
    pub fn run(&mut self, duration: Duration) {
        self.run_until(duration, |_| false);
    }

    /// Lets time pass until something is so, or that long; says which.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) {
            if !self.step(end) {
                self.now = end;
                return false;
            }
        }
        true
    }

    /// Lets the next thing happen, unless that is after `end`.
    fn step(&mut self, end: Instant) -> bool {
        let gates = self.gates.iter_mut().flatten();
        let gate = gates.filter_map(Gate::poll_timeout).min();
        let relays = self.relays.iter();
        let relay = relays.filter_map(RelayHost::poll_timeout).min();
        let agent = self.agent.poll_timeout();
        let next = [self.timeline.next(), agent, gate, relay]
            .into_iter()
            .flatten()
            .min();
        let Some(next) = next.filter(|next| *next <= end) else {
            return false;
        };
        self.steps_at_once = if next > self.now {
            0
        } else {
            self.steps_at_once + 1
        };
        assert!(
            self.steps_at_once < MAX_STEPS_AT_ONCE,
            "somebody spins: sidecar {:?}, activator {:?}, relay {:?} before now",
            agent.map(|at| self.now.saturating_duration_since(at)),
            gate.map(|at| self.now.saturating_duration_since(at)),
            relay.map(|at| self.now.saturating_duration_since(at)),
        );
        self.now = self.now.max(next);
        if let Some(happening) = self.timeline.pop(self.now) {
            self.on_happening(happening);
        } else {
            let due = |at: Option<Instant>| at.is_some_and(|at| at <= self.now);
            let (agent, gate, relay) = (due(agent), due(gate), due(relay));
            if relay {
                for at in 0..self.relays.len() {
                    let now = self.relay_now();
                    let leaving = self.relays[at].handle_timeout(now);
                    self.leave_relay(at, leaving);
                }
            }
            if agent {
                self.agent.handle_timeout(self.now);
            }
            if gate {
                for gate in self.gates.iter_mut().flatten() {
                    gate.handle_timeout(self.now);
                }
            }
        }
        self.carry_out();
        true
    }

    pub(crate) const fn agent(&self) -> &Agent {
        &self.agent
    }

    fn relay_now(&self) -> Now {
        Now {
            instant: self.now,
            unix: UnixTime(EPOCH + self.elapsed().as_secs()),
        }
    }

    /// A credential as discovery mints it, for an activator on a relay.
    fn access(&self, gate: usize, relay: &RelayName) -> RelayAccess {
        let expires = EPOCH + (self.elapsed() + CREDENTIAL).as_secs();
        let username = format!("{expires}:{}", GATES[gate].node());
        let password = rest_password(SECRET, &username);
        let site = RELAYS.iter().find(|site| site.name() == *relay);
        let server = ServerAddr(address(site.expect("a relay of the picture").outside));
        let ways = [RelayTransport::Udp, RelayTransport::Tcp].map(|transport| RelayWay {
            transport,
            server,
            host: "relay".to_owned(),
        });
        RelayAccess {
            ways: ways[..1 + usize::from(self.extent.tcp)].to_vec(),
            username,
            password,
            lifetime: CREDENTIAL,
        }
    }
}

/// The sidecar's host sockets, on the first or the second of its addresses.
fn hosts(extent: Extent, place: usize, port: u16) -> Vec<SocketAddr> {
    let on_cable = extent.cable.then_some(SIDECAR_ON_CABLE);
    let all = SIDECAR[place].into_iter().chain(on_cable);
    all.map(|text| SocketAddr::new(ip(text), port)).collect()
}

/// A sidecar's core, which learned from DNS what all services are called.
fn agent(idle_timeout: Duration, extent: Extent, hosts: Vec<SocketAddr>, seed: u64) -> Agent {
    let [ipv4, ipv6] = DEVICE;
    let config = AgentConfig {
        network: "west".parse().expect("a name"),
        device_ipv4: ipv4.parse().expect("IPv4"),
        device_ipv6: ipv6.parse().expect("IPv6"),
        idle_timeout,
        answer_timeout: Duration::from_secs(3),
        standby: extent.standby,
        link: LinkConfig::default(),
        paths: Default::default(),
    };
    let certificate = DtlsCertificate::generate().expect("a certificate");
    let mut agent = Agent::new(config, certificate, hosts, seed);
    for service in &SERVICES {
        agent.learn_route(service.destination());
    }
    agent
}
