//! The packet path: frames between links and services, rewritten in place.
//!
//! ```text
//!   link   sidecar → virtual IP     to_service    client → real address     TUN
//!          sidecar ← virtual IP      to_link      client ← real address
//! ```
//!
//! What crosses: TCP and UDP to exported ports, ICMP echo, and the ICMP errors that belong to these. A refused TCP
//! segment is answered with a reset and a refused UDP datagram with "port unreachable", so that a workload sees
//! at once what it would see of a host without such a service.
//!
//! UDP and ICMP fragments after the first have no ports; they pass to a bound service, because without an allowed
//! first fragment its host cannot put them together. TCP in fragments does not pass
//! ([RFC 3128](https://www.rfc-editor.org/rfc/rfc3128)): its senders find out the MTU instead.

pub mod pool;
pub mod nat;
pub mod flow;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use model::{NodeId, ServiceName};
use wire::{
    frame::{Frame, HEADER_LEN, Header},
    ip::{
        Checksum, Fragment, Layout, Packet, Protocol, Rewrite, Version, answer, clamp_mss, mss,
        rewrite_at,
    },
};

use crate::{
    answer::VirtualIps,
    links::LinkKey,
    policy::Export,
    stats::{DropReason, ForwardStats},
};
use flow::{FlowRecord, Flows, Verdict};
use nat::{BindError, NatTable};

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// What becomes of a frame from a link.
#[derive(Debug, PartialEq, Eq)]
pub enum FromLink<'a> {
    /// The frame was rewritten where it lies: out to the service by the TUN.
    ToService,
    /// The packet is refused: this frame is the answer, back by the same link.
    Refused(&'a [u8]),
    /// Nothing more happens.
    Dropped(DropReason),
}

/// What becomes of a packet from the TUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromTun {
    /// The frame was rewritten where it lies: out by this link.
    ToLink(LinkKey),
    /// Nothing more happens.
    Dropped(DropReason),
}

/// A SYN is not longer, even with data (RFC 7413).
const LONGEST_SYN: usize = 1_600;

/// Rewrites frames.
#[derive(Debug)]
pub struct Forwarder {
    nat: NatTable,
    /// Longest TCP segment with its headers, bytes: the MSS of both directions is kept to it.
    mtu: u16,
    /// Room for answers.
    answer: Vec<u8>,
    stats: ForwardStats,
}

/// What is known of a packet before it is rewritten.
#[derive(Debug, Clone, Copy)]
struct Seen {
    layout: Layout,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
    tcp_flags: u8,
}

impl Seen {
    fn of(packet: &Packet<'_>) -> Self {
        Self {
            layout: *packet.layout(),
            ports: packet.ports(),
            icmp: packet.icmp(),
            tcp_flags: packet.tcp_flags().unwrap_or_default(),
        }
    }
}

impl Forwarder {
    /// A forwarder over this table that keeps TCP segments, with their headers, to `mtu` bytes.
    #[must_use]
    pub fn new(nat: NatTable, mtu: u16) -> Self {
        Self {
            nat,
            mtu,
            answer: Vec::new(),
            stats: ForwardStats::default(),
        }
    }

    /// From now on flows are told ([`Forwarder::poll_flow`]); one that goes on, in parts of this length.
    pub fn tell_flows(&mut self, part: Duration) {
        self.nat.flows = Flows::told_every(part);
    }

    /// Takes a frame that came over a link; rewrites it for the service it is for.
    pub fn to_service(&mut self, link: LinkKey, frame: &mut [u8], now: Instant) -> FromLink<'_> {
        let (header, seen) = match Frame::decode(frame) {
            Ok(Frame { header, packet }) => (header, Seen::of(&packet)),
            Err(_) => return self.dropped(DropReason::Malformed),
        };
        let (source, destination) = (seen.layout.source, seen.layout.destination);
        let way = match self.nat.to_service(link, source, destination, now) {
            Ok(way) => way,
            Err(reason) => return self.dropped(reason),
        };
        let begins = seen.tcp_flags & (SYN | ACK) == SYN;
        let moved = match (way.moving, seen.ports) {
            (Some(moving), Some(ports)) if seen.layout.protocol == Protocol::Tcp => {
                moving.address_of(destination.is_ipv6(), ports, begins)
            }
            _ => None,
        };
        let to = Rewrite {
            src: Some(way.client),
            dst: moved.or(way.real),
        };
        // Without an address of this family nothing listens.
        let judged = judge(&seen, way.export).and(way.real.map(drop).ok_or(Refusal::Answer));
        if let Err(refusal) = judged {
            return match refusal {
                Refusal::Drop(reason) => self.dropped(reason),
                Refusal::Answer => {
                    way.traffic.refused_packets += 1;
                    self.refuse(&seen, &frame[HEADER_LEN..])
                }
            };
        }
        let packet = &mut frame[HEADER_LEN..];
        if rewrite_at(packet, &seen.layout, to, header.checksum()).is_err() {
            return self.dropped(DropReason::Malformed);
        }
        way.traffic.bytes_to_service += packet.len() as u64;
        way.traffic.connections += u64::from(begins);
        self.clamp(packet, &seen, header.checksum());
        self.stats.frames_to_services += 1;
        self.stats.bytes_to_services += packet.len() as u64;
        FromLink::ToService
    }

    /// Takes a frame that the kernel gave to the TUN; rewrites it for the sidecar it is for.
    pub fn to_link(&mut self, frame: &mut [u8], now: Instant) -> FromTun {
        match self.try_to_link(frame, now) {
            Ok(link) => {
                self.stats.frames_to_links += 1;
                self.stats.bytes_to_links += (frame.len() - HEADER_LEN) as u64;
                FromTun::ToLink(link)
            }
            Err(reason) => {
                self.stats.dropped(reason);
                FromTun::Dropped(reason)
            }
        }
    }

    fn try_to_link(&mut self, frame: &mut [u8], now: Instant) -> Result<LinkKey, DropReason> {
        let (header, seen) = match Frame::decode(frame) {
            Ok(Frame { header, packet }) => (header, Seen::of(&packet)),
            Err(_) => return Err(DropReason::Malformed),
        };
        let way = self.nat.to_link(seen.layout.destination, now)?;
        match seen.icmp {
            // An error may come from any router on the way; the sidecar is told that the service said it.
            Some((kind, _)) if is_error(seen.layout.version, kind) => {}
            Some((kind, _)) if !is_echo_reply(seen.layout.version, kind) => {
                return Err(DropReason::ForbiddenProtocol);
            }
            _ if seen.layout.source != way.real && Some(seen.layout.source) != way.moving => {
                return Err(DropReason::ForeignSource);
            }
            _ if matches!(seen.layout.protocol, Protocol::Other(_)) => {
                return Err(DropReason::ForbiddenProtocol);
            }
            _ => {}
        }
        let packet = &mut frame[HEADER_LEN..];
        let to = Rewrite {
            src: Some(way.virtual_ip),
            dst: Some(way.sidecar),
        };
        rewrite_at(packet, &seen.layout, to, header.checksum())
            .map_err(|_| DropReason::Malformed)?;
        way.traffic.bytes_from_service += packet.len() as u64;
        // Not a reset, nor an error about it.
        let is_there = match seen.icmp {
            Some((kind, _)) => is_echo_reply(seen.layout.version, kind),
            None => seen.tcp_flags & RST == 0,
        };
        if is_there && seen.layout.source == way.real {
            *way.heard = Some(now);
        }
        let link = way.link;
        self.clamp(packet, &seen, header.checksum());
        Ok(link)
    }

    /// Counts a frame that could not be handed on after all.
    pub const fn count_drop(&mut self, reason: DropReason) {
        self.stats.dropped(reason);
    }

    /// Binds virtual IPs of a link of this node to a service.
    ///
    /// # Errors
    /// When a bound is reached.
    pub fn bind(
        &mut self,
        link: LinkKey,
        node: &NodeId,
        export: &Arc<Export>,
        virtual_ips: VirtualIps,
        now: Instant,
    ) -> Result<(), BindError> {
        self.nat.bind(link, node, export, virtual_ips, now)
    }

    /// See [`NatTable::readdress`].
    pub fn readdress(
        &mut self,
        link: LinkKey,
        name: &ServiceName,
        virtual_ips: VirtualIps,
        export: Option<&Arc<Export>>,
        now: Instant,
    ) -> bool {
        self.nat.readdress(link, name, virtual_ips, export, now)
    }

    /// Forgets a link.
    pub fn remove_link(&mut self, link: LinkKey, now: Instant) {
        self.nat.remove(link, now);
    }

    /// Tells, for the flow log, that a node was refused a service.
    pub fn refused(&mut self, link: LinkKey, node: &NodeId, service: &str, reason: &str) {
        self.nat.flows.tell(|| FlowRecord {
            link,
            node: node.clone(),
            service: service.to_owned(),
            verdict: Verdict::Refused {
                reason: reason.to_owned(),
            },
        });
    }

    /// The next record for the flow log; to be called whenever something happened.
    pub fn poll_flow(&mut self) -> Option<FlowRecord> {
        self.nat.flows.poll()
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.nat.flows.poll_timeout()
    }

    /// Tells flows that are over, and parts of those that go on.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.nat.handle_timeout(now);
    }

    /// The end: tells the flows that are left.
    pub fn end_flows(&mut self) {
        self.nat.end_flows();
    }

    /// Who is who.
    #[must_use]
    pub const fn nat(&self) -> &NatTable {
        &self.nat
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> &ForwardStats {
        &self.stats
    }

    fn dropped<'a>(&mut self, reason: DropReason) -> FromLink<'a> {
        self.stats.dropped(reason);
        FromLink::Dropped(reason)
    }

    fn refuse<'a>(&'a mut self, seen: &Seen, packet: &[u8]) -> FromLink<'a> {
        let from: IpAddr = seen.layout.destination;
        let answered = match seen.layout.protocol {
            Protocol::Tcp => answer::tcp_reset(packet),
            _ => answer::unreachable(packet, from, answer::Unreachable::Port),
        };
        let Some(answered) = answered else {
            return self.dropped(DropReason::PortNotExported);
        };
        match seen.layout.protocol {
            Protocol::Tcp => self.stats.tcp_refused += 1,
            _ => self.stats.udp_refused += 1,
        }
        self.answer.clear();
        self.answer.extend_from_slice(&Header::PLAIN.encode());
        self.answer.extend_from_slice(&answered);
        FromLink::Refused(&self.answer)
    }

    fn clamp(&self, packet: &mut [u8], seen: &Seen, checksum: Checksum) {
        if seen.tcp_flags & SYN != 0 {
            clamp_mss(
                packet,
                mss::max_mss(seen.layout.version, self.mtu),
                checksum,
            );
        }
    }
}

/// Lowers the MSS that a SYN announces to what a link's path carries in one piece: `mtu` bytes of IP packet. Other
/// frames stay as they are.
pub fn fit_mss(frame: &mut [u8], mtu: usize) {
    if frame.len() > LONGEST_SYN {
        return;
    }
    let Ok(Frame { header, packet }) = Frame::decode(frame) else {
        return;
    };
    if packet.tcp_flags().unwrap_or_default() & SYN != 0 {
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        let max = mss::max_mss(packet.layout().version, mtu);
        clamp_mss(&mut frame[HEADER_LEN..], max, header.checksum());
    }
}

enum Refusal {
    Drop(DropReason),
    Answer,
}

/// Whether a packet from a link may reach the service.
fn judge(seen: &Seen, export: &Export) -> Result<(), Refusal> {
    let Layout {
        version,
        protocol,
        fragment,
        ..
    } = seen.layout;
    match (protocol, fragment) {
        (Protocol::Tcp, Fragment::First | Fragment::Later) => {
            Err(Refusal::Drop(DropReason::SuspiciousFragment))
        }
        (Protocol::Udp | Protocol::Icmp | Protocol::Icmpv6, Fragment::Later) => Ok(()),
        (Protocol::Tcp, _) => match seen.ports {
            Some((_, port)) if export.tcp.contains(port) => Ok(()),
            _ => Err(Refusal::Answer),
        },
        (Protocol::Udp, _) => match seen.ports {
            Some((_, port)) if export.udp.contains(port) => Ok(()),
            _ => Err(Refusal::Answer),
        },
        (Protocol::Icmp | Protocol::Icmpv6, _) => match seen.icmp {
            Some((kind, _)) if is_echo_request(version, kind) || is_error(version, kind) => Ok(()),
            _ => Err(Refusal::Drop(DropReason::ForbiddenProtocol)),
        },
        (Protocol::Other(_), _) => Err(Refusal::Drop(DropReason::ForbiddenProtocol)),
    }
}

const fn is_echo_request(version: Version, kind: u8) -> bool {
    matches!((version, kind), (Version::V4, 8) | (Version::V6, 128))
}

const fn is_echo_reply(version: Version, kind: u8) -> bool {
    matches!((version, kind), (Version::V4, 0) | (Version::V6, 129))
}

/// Unreachable, too big, time exceeded, parameter problem; neither redirect nor source quench.
const fn is_error(version: Version, kind: u8) -> bool {
    matches!(
        (version, kind),
        (Version::V4, 3 | 11 | 12) | (Version::V6, 1..=4)
    )
}
