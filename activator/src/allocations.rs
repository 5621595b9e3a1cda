//! The allocations on relays: one UDP socket and one `turn_client` mind each.

use std::{
    collections::HashMap,
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use activator_proto::reservation::RelayAccess;
use bytes::BytesMut;
use model::{PeerAddr, RelayName, RelayedAddr};
use net::{BurstBatch, MAX_GSO_BYTES, MAX_GSO_SEGMENTS, Poller, SendBatch, UdpOptions, UdpSocket};
use protocol::document::relay_trouble::Kind as TroubleKind;
use turn_client::{Allocation, AllocationConfig, Credential, Event, Families, LostReason};
use wire::channel_data;

/// Bytes that may wait for the kernel per relay.
const SEND_LIMIT: usize = 4 << 20;

/// No allocation is started from another port more often than this.
const NEW_PORT_INTERVAL: Duration = Duration::from_secs(1);

/// Something happened to an allocation.
#[derive(Debug)]
pub(crate) enum AllocationEvent {
    Allocated {
        relay: RelayName,
        relayed: Vec<RelayedAddr>,
    },
    /// There is none; `held`: there was one.
    Lost {
        relay: RelayName,
        reason: String,
        trouble: TroubleKind,
        held: bool,
    },
    NeedCredential {
        relay: RelayName,
    },
}

/// Plain counters of one allocation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RelayStats {
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) dropped: u64,
    pub(crate) refused: u64,
}

#[derive(Debug)]
struct Relay {
    name: RelayName,
    server: SocketAddr,
    socket: UdpSocket,
    mind: Allocation,
    outbound: SendBatch,
    blocked: bool,
    /// What the poller was told of `blocked`.
    watched: bool,
    relayed: Vec<RelayedAddr>,
    /// How many links each peer is permitted for.
    peers: HashMap<SocketAddr, usize>,
    stats: RelayStats,
    /// How it is started anew from another port.
    access: RelayAccess,
    started: Instant,
    wants_new_port: bool,
    /// To be forgotten once its last words are out.
    closing: bool,
}

/// All of them. There are few: a search is a walk.
#[derive(Debug)]
pub(crate) struct Allocations {
    relays: Vec<Relay>,
    batch: BurstBatch,
    scratch: Vec<u8>,
}

impl Allocations {
    pub(crate) fn new() -> Self {
        Self {
            relays: Vec::new(),
            batch: BurstBatch::new(),
            scratch: Vec::new(),
        }
    }

    /// Starts an allocation.
    ///
    /// # Errors
    /// When there can be no socket.
    pub(crate) fn start(
        &mut self,
        name: RelayName,
        access: &RelayAccess,
        seed: u64,
        poller: &Poller,
        now: Instant,
    ) -> io::Result<()> {
        let server = access.server.0;
        let socket = open(server, poller)?;
        let mind = mind(&socket, access, seed, now);
        self.relays.push(Relay {
            name,
            access: access.clone(),
            started: now,
            wants_new_port: false,
            server,
            socket,
            mind,
            outbound: SendBatch::new(SEND_LIMIT),
            blocked: false,
            watched: false,
            relayed: Vec::new(),
            peers: HashMap::new(),
            stats: RelayStats::default(),
            closing: false,
        });
        Ok(())
    }

    /// Goes on with another credential.
    pub(crate) fn renew(&mut self, name: &RelayName, access: &RelayAccess, now: Instant) {
        if let Some(relay) = self.find(name) {
            relay.access = access.clone();
            relay.mind.set_credential(credential(access), now);
        }
    }

    /// Tells the relay to delete the allocation, and forgets it once that is sent.
    pub(crate) fn close(&mut self, name: &RelayName, now: Instant) {
        if let Some(relay) = self.find(name) {
            relay.mind.close(now);
            relay.relayed.clear();
            relay.closing = true;
        }
    }

    /// Whether none is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// The relayed addresses held on this relay now.
    pub(crate) fn relayed(&self, name: &RelayName) -> &[RelayedAddr] {
        let found = self.relays.iter().find(|relay| relay.is(name));
        found.map_or(&[], |relay| relay.relayed.as_slice())
    }

    /// Lets a peer through, for one more link. `false`: it cannot be, for want of a relayed address of its family
    /// for example.
    pub(crate) fn permit(&mut self, name: &RelayName, peer: SocketAddr, now: Instant) -> bool {
        let Some(relay) = self.find(name) else {
            return false;
        };
        if let Some(links) = relay.peers.get_mut(&peer) {
            *links += 1;
            return true;
        }
        let permitted = relay.mind.permit(PeerAddr(peer), now);
        if permitted {
            relay.peers.insert(peer, 1);
        }
        permitted
    }

    /// One link fewer needs this peer.
    pub(crate) fn release(&mut self, name: &RelayName, peer: SocketAddr) {
        let Some(relay) = self.find(name) else { return };
        if let Some(links) = relay.peers.get_mut(&peer) {
            *links -= 1;
            if *links == 0 {
                relay.peers.remove(&peer);
                relay.mind.release_peer(PeerAddr(peer));
            }
        }
    }

    /// Takes one batch from each socket that the poller found ready; calls `each` with local relayed address, peer,
    /// and the burst: payloads and the bytes of each but the last.
    pub(crate) fn receive(
        &mut self,
        poller: &Poller,
        now: Instant,
        mut each: impl FnMut(SocketAddr, SocketAddr, BytesMut, usize),
    ) {
        for relay in &mut self.relays {
            if !poller.is_ready(&relay.socket) {
                continue;
            }
            let Relay {
                socket,
                mind,
                relayed,
                server,
                stats,
                ..
            } = relay;
            let received = socket.try_recv_bursts(&mut self.batch, |burst| {
                if burst.meta.source != *server {
                    stats.dropped += 1;
                    return;
                }
                mind.handle_datagrams(
                    now,
                    burst.payload,
                    burst.segment,
                    |peer, payload, segment| {
                        stats.bytes_received += payload.len() as u64;
                        let local = relayed
                            .iter()
                            .find(|local| local.0.is_ipv4() == peer.0.is_ipv4());
                        match local {
                            Some(local) => each(local.0, peer.0, payload, segment),
                            None => stats.dropped += 1,
                        }
                    },
                );
            });
            if let Err(error) = received
                && error.kind() != io::ErrorKind::WouldBlock
            {
                tracing::trace!(relay = %relay.name, %error, "receiving");
            }
        }
    }

    /// Sends datagrams of `segment` bytes, the last may be shorter, from a relayed address to a peer: a burst at once,
    /// one alone with the next flush or before the next burst. What the mind does not send it counts itself.
    /// `false`: the address is not a relayed one of ours.
    pub(crate) fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
        segment: usize,
    ) -> bool {
        let ours = |relay: &&mut Relay| relay.relayed.iter().any(|relayed| relayed.0 == local);
        let Some(relay) = self.relays.iter_mut().find(ours) else {
            return false;
        };
        relay.send_to_peer(PeerAddr(remote), payload, segment.max(1), &mut self.scratch);
        true
    }

    /// When a mind wants to be woken.
    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        let due = |relay: &mut Relay| relay.mind.poll_timeout();
        self.relays.iter_mut().filter_map(due).min()
    }

    /// Wakes the minds.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for relay in &mut self.relays {
            if relay.mind.poll_timeout().is_some_and(|due| due <= now) {
                relay.mind.handle_timeout(now);
            }
        }
    }

    /// Starts those anew, from another port, that cannot get on with the one they have.
    pub(crate) fn renew_ports(
        &mut self,
        mut seed: impl FnMut() -> u64,
        poller: &Poller,
        now: Instant,
    ) {
        let stuck = |relay: &&mut Relay| {
            relay.wants_new_port
                && !relay.closing
                && now.saturating_duration_since(relay.started) >= NEW_PORT_INTERVAL
        };
        for relay in self.relays.iter_mut().filter(stuck) {
            relay.started = now;
            match open(relay.server, poller) {
                Ok(socket) => {
                    tracing::info!(relay = %relay.name, "allocating from another port");
                    relay.mind = mind(&socket, &relay.access, seed(), now);
                    relay.socket = socket;
                    relay.outbound = SendBatch::new(SEND_LIMIT);
                    relay.blocked = false;
                    relay.watched = false;
                    relay.wants_new_port = false;
                }
                Err(error) => tracing::error!(relay = %relay.name, %error, "no socket"),
            }
        }
    }

    /// The next thing that happened to any of them.
    pub(crate) fn poll_event(&mut self) -> Option<AllocationEvent> {
        for relay in self.relays.iter_mut().filter(|relay| !relay.closing) {
            while let Some(event) = relay.mind.poll_event() {
                let name = relay.name.clone();
                match event {
                    Event::Allocated { relayed, .. } => {
                        relay.relayed.clone_from(&relayed);
                        return Some(AllocationEvent::Allocated {
                            relay: name,
                            relayed,
                        });
                    }
                    Event::Lost { reason } => {
                        let held = !relay.relayed.is_empty();
                        relay.relayed.clear();
                        // The links on it end; what comes after begins with none.
                        for (peer, _) in relay.peers.drain() {
                            relay.mind.release_peer(PeerAddr(peer));
                        }
                        relay.wants_new_port = reason.needs_new_port();
                        return Some(AllocationEvent::Lost {
                            relay: name,
                            trouble: trouble(&reason),
                            reason: reason.to_string(),
                            held,
                        });
                    }
                    Event::NeedCredential => {
                        return Some(AllocationEvent::NeedCredential { relay: name });
                    }
                    Event::PeerReady(_) => {}
                }
            }
        }
        None
    }

    /// Sends what is queued, as far as the kernel takes it, and has the poller say when it takes more.
    pub(crate) fn flush(&mut self, poller: &Poller) {
        for relay in &mut self.relays {
            relay.flush();
            if std::mem::replace(&mut relay.watched, relay.blocked) != relay.blocked {
                // It was watched before, so it can be.
                let _ = poller.watch(&relay.socket, relay.blocked);
            }
        }
        self.relays
            .retain(|relay| !relay.closing || !relay.outbound.is_empty());
    }

    /// Each relay's counters and number of peers.
    pub(crate) fn stats(&self) -> impl Iterator<Item = (&RelayName, RelayStats, usize)> {
        self.relays.iter().map(|relay| {
            let mut stats = relay.stats;
            stats.refused += relay.mind.stats().not_sent;
            stats.dropped += relay.mind.stats().dropped;
            (&relay.name, stats, relay.peers.len())
        })
    }

    fn find(&mut self, name: &RelayName) -> Option<&mut Relay> {
        self.relays.iter_mut().find(|relay| relay.is(name))
    }
}

impl Relay {
    /// A closing one no longer has a name: another may be in its place.
    fn is(&self, name: &RelayName) -> bool {
        self.name == *name && !self.closing
    }

    fn send_to_peer(
        &mut self,
        peer: PeerAddr,
        payload: &[u8],
        segment: usize,
        scratch: &mut Vec<u8>,
    ) {
        let datagrams = payload.chunks(segment).len();
        if let Some(channel) = self.mind.channel(peer, datagrams) {
            let left = match datagrams {
                1 => payload,
                _ => self.send_burst(channel, payload, segment),
            };
            for datagram in left.chunks(segment) {
                self.send(&[&header(channel, datagram), datagram]);
            }
            self.stats.bytes_sent += payload.len() as u64;
            return;
        }
        self.queue_requests();
        for datagram in payload.chunks(segment) {
            scratch.clear();
            if self.mind.encode_to_peer(peer, datagram, scratch) && self.send(&[scratch]) {
                self.stats.bytes_sent += datagram.len() as u64;
            }
        }
    }

    /// Sends a burst in ChannelData, unless others wait; gives what is left.
    fn send_burst<'a>(&mut self, channel: u16, payload: &'a [u8], segment: usize) -> &'a [u8] {
        self.flush();
        let framed = segment + channel_data::HEADER_LEN;
        let most = (MAX_GSO_BYTES / framed).clamp(1, MAX_GSO_SEGMENTS);
        let mut left = payload;
        while !left.is_empty() && self.outbound.is_empty() {
            let (burst, rest) = left.split_at(left.len().min(most * segment));
            let last = burst.chunks(segment).next_back().unwrap_or(burst);
            // All but the last have the same header.
            let headers = [
                header(channel, burst.get(..segment).unwrap_or(burst)),
                header(channel, last),
            ];
            let datagrams = burst.chunks(segment).len();
            let mut parts = [IoSlice::new(&[]); 2 * MAX_GSO_SEGMENTS];
            for (index, (pair, datagram)) in
                parts.chunks_mut(2).zip(burst.chunks(segment)).enumerate()
            {
                pair[0] = IoSlice::new(&headers[usize::from(index + 1 == datagrams)]);
                pair[1] = IoSlice::new(datagram);
            }
            let parts = parts.get(..2 * datagrams).unwrap_or_default();
            match self.socket.try_send_parts(self.server, parts, framed) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return left,
                Err(error) => {
                    self.stats.refused += datagrams as u64;
                    tracing::debug!(relay = %self.name, %error, "sending to the relay");
                }
            }
            left = rest;
        }
        left
    }

    /// Queues one message to the relay, put together from parts.
    fn send(&mut self, parts: &[&[u8]]) -> bool {
        if self.outbound.push(None, self.server, parts).is_ok() {
            return true;
        }
        self.flush();
        let pushed = self.outbound.push(None, self.server, parts).is_ok();
        self.stats.refused += u64::from(!pushed);
        pushed
    }

    /// Queues what the mind itself has to say.
    fn queue_requests(&mut self) {
        while let Some(message) = self.mind.poll_transmit() {
            if self.outbound.push(None, self.server, &[&message]).is_err() {
                self.stats.refused += 1;
            }
        }
    }

    fn flush(&mut self) {
        self.queue_requests();
        if self.outbound.is_empty() {
            self.blocked = false;
            return;
        }
        let flushed = self.outbound.flush(&self.socket);
        self.blocked = flushed.blocked;
        self.stats.refused += flushed.refused as u64;
        if let Some(error) = flushed.error {
            tracing::debug!(relay = %self.name, %error, "sending to the relay");
        }
    }
}

/// The ChannelData header for one datagram; none is longer than 65 535 bytes.
fn header(channel: u16, datagram: &[u8]) -> [u8; channel_data::HEADER_LEN] {
    channel_data::header(channel, u16::try_from(datagram.len()).unwrap_or(u16::MAX))
}

fn open(server: SocketAddr, poller: &Poller) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0), UdpOptions::default())?;
    poller.watch(&socket, false)?;
    Ok(socket)
}

fn mind(socket: &UdpSocket, access: &RelayAccess, seed: u64, now: Instant) -> Allocation {
    let config = AllocationConfig {
        server: access.server.0,
        local: socket.local_addr(),
        families: Families::Both,
        seed,
    };
    Allocation::new(config, credential(access), now)
}

fn credential(access: &RelayAccess) -> Credential {
    Credential {
        username: access.username.clone(),
        password: access.password.clone(),
    }
}

/// What the directory says of it.
const fn trouble(reason: &LostReason) -> TroubleKind {
    match reason {
        LostReason::Silent => TroubleKind::Silent,
        LostReason::Unauthorized => TroubleKind::CredentialRefused,
        LostReason::Mismatch
        | LostReason::Expired
        | LostReason::WrongCredential
        | LostReason::PortTaken
        | LostReason::Refused { .. }
        | LostReason::Nonsense => TroubleKind::Refused,
    }
}
