//! The reference model: what a service may see of what a workload sent, and what may come back of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::packet::{Packet, SYN, Transport};
use crate::picture::{CLIENT_POOL, SERVICES, TUNNEL_MTU};

/// A client address is not another service's before this.
const CLIENT_REST: Duration = Duration::from_secs(30);

/// One packet of a workload and what became of it.
#[derive(Debug)]
struct Flight {
    packet: Packet,
    sent: Instant,
    arrived: Option<Instant>,
    replied: Option<Instant>,
    /// By which links it arrived: activator, its run, link. What found no answer on one may be sent again on the next.
    links: Vec<(usize, u64, u64)>,
    /// How often its answer came.
    replies: usize,
}

/// Everything that was sent. Panics as soon as something is seen that does not follow from it.
#[derive(Debug)]
pub struct Reference {
    flights: HashMap<u64, Flight>,
    /// What each activator's client address stands for, and since when it was last used so.
    clients: HashMap<(usize, IpAddr), (IpAddr, Instant)>,
    pools: [IpNet; 2],
    /// When something last reached a service or a workload.
    pub(crate) last_arrival: Option<Instant>,
}

impl Reference {
    pub(crate) fn new() -> Self {
        Self {
            flights: HashMap::new(),
            clients: HashMap::new(),
            pools: CLIENT_POOL.map(|net| net.parse().expect("a prefix")),
            last_arrival: None,
        }
    }

    pub(crate) fn on_sent(&mut self, number: u64, packet: Packet, now: Instant) {
        let flight = Flight {
            packet,
            sent: now,
            arrived: None,
            replied: None,
            links: Vec::new(),
            replies: 0,
        };
        assert!(
            self.flights.insert(number, flight).is_none(),
            "number {number} is used twice"
        );
    }

    /// An activator started anew: its clients are, too.
    pub(crate) fn on_gate_started(&mut self, gate: usize) {
        self.clients.retain(|(of, _), _| *of != gate);
    }

    /// A packet came out of an activator's TUN; gives what the service answers.
    pub(crate) fn on_service(
        &mut self,
        gate: usize,
        (run, link): (u64, u64),
        bytes: &[u8],
        now: Instant,
    ) -> Packet {
        let (client, _, number) =
            Packet::peek(bytes).expect("no packet of ours reached the service");
        let flight = self
            .flights
            .get_mut(&number)
            .expect("a packet that nobody sent reached the service");
        self.last_arrival = Some(now);
        let virtual_ip = flight.packet.destination;
        let real = SERVICES
            .iter()
            .find_map(|service| service.real_of(virtual_ip))
            .expect("a virtual IP of a service");
        let expected = Packet {
            source: client,
            destination: real,
            ..clamped(&flight.packet)
        };
        assert_eq!(bytes, expected.encode(), "packet {number} at the service");
        let by = (gate, run, link);
        assert!(
            !flight.links.contains(&by),
            "packet {number} arrived twice by one link"
        );
        flight.links.push(by);
        flight.arrived.get_or_insert(now);
        assert!(
            self.pools.iter().any(|pool| pool.contains(&client)),
            "client {client} is not of the pool"
        );
        let known = self.clients.insert((gate, client), (virtual_ip, now));
        assert!(
            known.is_none_or(|(other, last)| other == virtual_ip || now >= last + CLIENT_REST),
            "client {client} is {virtual_ip} and {known:?}"
        );
        Packet {
            source: real,
            destination: client,
            transport: flight.packet.transport.reply(),
            payload: flight.packet.payload.clone(),
        }
    }

    /// A packet came out of the sidecar's TUN.
    pub(crate) fn on_workload(&mut self, bytes: &[u8], now: Instant) {
        let (_, _, number) = Packet::peek(bytes).expect("no packet of ours reached the workload");
        let flight = self
            .flights
            .get_mut(&number)
            .expect("a packet that nobody sent reached the workload");
        let expected = clamped(&Packet {
            source: flight.packet.destination,
            destination: flight.packet.source,
            transport: flight.packet.transport.reply(),
            payload: flight.packet.payload.clone(),
        });
        assert_eq!(bytes, expected.encode(), "the reply to packet {number}");
        assert!(
            flight.arrived.is_some(),
            "packet {number} was replied to before it arrived"
        );
        flight.replies += 1;
        assert!(
            flight.replies <= flight.links.len(),
            "packet {number} arrived {} times and has {} replies",
            flight.links.len(),
            flight.replies
        );
        flight.replied.get_or_insert(now);
    }

    /// Whether this packet has reached its service.
    #[must_use]
    pub fn has_arrived(&self, number: u64) -> bool {
        self.flights
            .get(&number)
            .is_some_and(|flight| flight.arrived.is_some())
    }

    /// Whether the reply to this packet has come back.
    #[must_use]
    pub fn is_replied(&self, number: u64) -> bool {
        self.round_trip(number).is_some()
    }

    /// From sending to the reply.
    #[must_use]
    pub fn round_trip(&self, number: u64) -> Option<Duration> {
        let flight = self.flights.get(&number)?;
        Some(flight.replied? - flight.sent)
    }

    /// How many were sent, arrived, and were replied to.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let arrived = self
            .flights
            .values()
            .filter(|flight| flight.arrived.is_some());
        let replied = self
            .flights
            .values()
            .filter(|flight| flight.replied.is_some());
        (self.flights.len(), arrived.count(), replied.count())
    }
}

/// SYNs say no more than the tunnel takes: its MTU less both headers.
fn clamped(packet: &Packet) -> Packet {
    let mut packet = packet.clone();
    let headers = if packet.source.is_ipv6() { 60 } else { 40 };
    if let Transport::Tcp {
        flags,
        mss: Some(mss),
        ..
    } = &mut packet.transport
        && *flags & SYN != 0
    {
        *mss = (*mss).min(TUNNEL_MTU - headers);
    }
    packet
}

/// What a sender is told whose packet goes over the data channel because it is longer than a datagram of the lane: it is
/// of no use here, and not a packet of ours.
pub(crate) fn is_too_big(bytes: &[u8]) -> bool {
    let Ok(packet) = wire::ip::Packet::parse(bytes) else {
        return false;
    };
    let about = packet.embedded();
    // Too big, and unreachable: ICMP, then ICMPv6.
    matches!(packet.icmp(), Some((3, _) | (1, _) | (2, 0)))
        && about.is_some_and(|about| {
            about.source == packet.destination() && about.destination == packet.source()
        })
}
