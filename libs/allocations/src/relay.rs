//! One relay: an allocation, the ways to the relay that are open, and the ladder that says which of them is used.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use model::{PeerAddr, RelayAccess, RelayName, RelayTransport, RelayWay, RelayedAddr};
use net::{BurstBatch, Poller, TlsTo};
use rustls::{ClientConfig, pki_types::ServerName};
use turn_client::{
    Allocation, AllocationConfig, Credential, Event, Families, Ladder, Moving, Step,
};

use crate::{
    allocations::AllocationEvent,
    carrier::{Carrier, Socket},
};

/// No allocation is started from another port more often than this.
const NEW_PORT_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes for peers that may wait while an allocation moves.
const HELD_LIMIT: usize = 1 << 20;

/// What is shorter is copied out of a stream's buffer, so that whoever keeps it does not keep all of that.
const COPIED_BELOW: usize = 4_096;

/// Plain counters of one allocation.
#[derive(Clone, Copy, Debug, Default)]
pub struct RelayStats {
    /// Bytes for peers.
    pub bytes_sent: u64,
    /// Bytes of peers.
    pub bytes_received: u64,
    /// What came from the relay's side and was of no use.
    pub dropped: u64,
    /// What could not be sent.
    pub refused: u64,
    /// How often the allocation went over to another transport, or began on another.
    pub moves: u64,
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) name: RelayName,
    pub(crate) mind: Allocation,
    ladder: Ladder,
    /// By rung; what is open of them.
    carriers: Vec<Option<Carrier>>,
    tls: Option<Arc<ClientConfig>>,
    pub(crate) relayed: Vec<RelayedAddr>,
    /// How many links each peer is permitted for.
    pub(crate) peers: HashMap<SocketAddr, usize>,
    pub(crate) stats: RelayStats,
    /// How it is started anew from another port.
    access: RelayAccess,
    started: Instant,
    wants_new_port: bool,
    /// What peers are to get when the allocation has moved.
    held: Vec<(PeerAddr, Vec<u8>, usize)>,
    held_bytes: usize,
    /// To be forgotten once its last words are out.
    pub(crate) closing: bool,
}

impl Relay {
    /// Begins to allocate, the preferred way.
    ///
    /// # Errors
    /// When there can be no socket.
    pub(crate) fn start(
        name: RelayName,
        access: &RelayAccess,
        tls: Option<Arc<ClientConfig>>,
        seed: u64,
        poller: &Poller,
        now: Instant,
    ) -> io::Result<Self> {
        let rungs = access.ways.len();
        let mut relay = Self {
            name,
            mind: mind(access, 0, any(access), seed, now),
            ladder: Ladder::new(rungs, seed.rotate_left(32), now),
            carriers: (0..rungs).map(|_| None).collect(),
            tls,
            relayed: Vec::new(),
            peers: HashMap::new(),
            stats: RelayStats::default(),
            access: access.clone(),
            started: now,
            wants_new_port: false,
            held: Vec::new(),
            held_bytes: 0,
            closing: false,
        };
        let first = relay.open(0, poller)?;
        relay.mind = mind(access, 0, first.local_addr(), seed, now);
        relay.carriers[0] = Some(first);
        Ok(relay)
    }

    /// A closing one no longer has a name: another may be in its place.
    pub(crate) fn is(&self, name: &RelayName) -> bool {
        self.name == *name && !self.closing
    }

    /// How the relay is spoken to now.
    pub(crate) fn way(&self) -> Option<&RelayWay> {
        self.access.ways.get(self.ladder.current())
    }

    /// See [`Self::way`].
    pub(crate) fn transport(&self) -> RelayTransport {
        self.way().map_or(RelayTransport::Udp, |way| way.transport)
    }

    pub(crate) fn renew(&mut self, access: &RelayAccess, now: Instant) {
        self.access = access.clone();
        self.mind.set_credential(credential(access), now);
    }

    fn open(&self, rung: usize, poller: &Poller) -> io::Result<Carrier> {
        let none = || io::Error::from(io::ErrorKind::NotFound);
        let RelayWay {
            transport,
            server,
            host,
        } = self.access.ways.get(rung).ok_or_else(none)?;
        match transport {
            RelayTransport::Udp => Carrier::datagrams(server.0, poller),
            RelayTransport::Tcp => Carrier::stream(server.0, None, poller),
            RelayTransport::Tls => {
                let config = self.tls.clone().ok_or(io::ErrorKind::Unsupported)?;
                let name = ServerName::try_from(host.clone());
                let name =
                    name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
                Carrier::stream(server.0, Some(TlsTo { config, name }), poller)
            }
        }
    }

    /// Takes one batch of what the poller found ready; calls `each` with local relayed address, peer, and the burst.
    pub(crate) fn receive(
        &mut self,
        poller: &Poller,
        batch: &mut BurstBatch,
        now: Instant,
        mut each: impl FnMut(SocketAddr, SocketAddr, BytesMut, usize),
    ) {
        let Self {
            carriers,
            ladder,
            mind,
            relayed,
            stats,
            name,
            ..
        } = self;
        let mut from_peer = |stats: &mut RelayStats, peer: PeerAddr, payload: BytesMut, segment| {
            stats.bytes_received += payload.len() as u64;
            let same_family = |local: &&RelayedAddr| local.0.is_ipv4() == peer.0.is_ipv4();
            match relayed.iter().find(same_family) {
                Some(local) => each(local.0, peer.0, payload, segment),
                None => stats.dropped += 1,
            }
        };
        for (rung, slot) in carriers.iter_mut().enumerate() {
            let Some(carrier) = slot.as_mut().filter(|open| poller.is_ready(&**open)) else {
                continue;
            };
            let server = carrier.server;
            let result = match &mut carrier.socket {
                Socket::Datagrams(socket, _) => {
                    let received = socket.try_recv_bursts(batch, |burst| {
                        if burst.meta.source != server {
                            stats.dropped += 1;
                        } else if !ladder.handle_message(rung, &burst.payload) {
                            mind.handle_datagrams(
                                now,
                                burst.payload,
                                burst.segment,
                                |peer, payload, segment| from_peer(stats, peer, payload, segment),
                            );
                        }
                    });
                    if let Err(error) = received
                        && error.kind() != io::ErrorKind::WouldBlock
                    {
                        tracing::trace!(relay = %name, %error, "receiving");
                    }
                    Ok(())
                }
                Socket::Stream(stream) => stream.drive().and_then(|opened| {
                    if opened {
                        ladder.handle_open(rung, now);
                    }
                    let received = stream.receive();
                    if ladder.handle_message(rung, &stream.inbound) {
                        stream.inbound.clear();
                    }
                    let taken =
                        mind.handle_stream(now, &mut stream.inbound, |peer, payload, segment| {
                            let payload = match payload.len() {
                                ..COPIED_BELOW => BytesMut::from(&payload[..]),
                                _ => payload,
                            };
                            from_peer(stats, peer, payload, segment);
                        });
                    received?;
                    taken.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
                }),
            };
            if let Err(error) = result {
                let transport = self.access.ways.get(rung).map(|way| way.transport);
                let transport = transport.map(|transport| transport.to_string());
                tracing::debug!(relay = %name, transport, %error, "no connection to the relay");
                *slot = None;
                ladder.handle_failed(rung, now);
            }
        }
        self.climb(poller, now);
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        let ladder = match self.closing {
            true => None,
            false => self
                .ladder
                .poll_timeout(self.mind.unanswered_since(), self.mind.rtt()),
        };
        self.mind.poll_timeout().into_iter().chain(ladder).min()
    }

    pub(crate) fn handle_timeout(&mut self, poller: &Poller, now: Instant) {
        if self.mind.poll_timeout().is_some_and(|due| due <= now) {
            self.mind.handle_timeout(now);
        }
        self.climb(poller, now);
    }

    /// Does what the ladder wants done.
    fn climb(&mut self, poller: &Poller, now: Instant) {
        if self.closing || self.access.ways.len() < 2 && self.is_open() {
            return;
        }
        self.ladder
            .handle_timeout(now, self.mind.unanswered_since(), self.mind.rtt());
        while let Some(step) = self.ladder.poll_step() {
            match step {
                Step::Open(rung) => match self.open(rung, poller) {
                    Ok(carrier) => {
                        let at_once = matches!(carrier.socket, Socket::Datagrams(..));
                        self.carriers[rung] = Some(carrier);
                        if at_once {
                            self.ladder.handle_open(rung, now);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(relay = %self.name, %error, "no way to the relay");
                        self.ladder.handle_failed(rung, now);
                    }
                },
                Step::Send(rung, message) => {
                    if let Some(carrier) = &mut self.carriers[rung] {
                        carrier.send(&[&message]);
                        carrier.flush();
                    }
                }
                Step::Move { to, dead } => self.move_to(to, dead, now),
                Step::Close(rung) => {
                    if let Some(mut carrier) = self.carriers[rung].take() {
                        self.stats.refused += carrier.refused;
                        carrier.close();
                    }
                }
            }
        }
    }

    fn is_open(&self) -> bool {
        self.carriers
            .get(self.ladder.current())
            .is_some_and(Option::is_some)
    }

    fn move_to(&mut self, to: usize, dead: bool, now: Instant) {
        let (Some(way), Some(Some(carrier))) = (self.access.ways.get(to), self.carriers.get(to))
        else {
            return self.ladder.handle_not_moved(now);
        };
        let (transport, server, local) = (way.transport, way.server.0, carrier.local_addr());
        match self.mind.move_to(transport, server, local, dead, now) {
            // Nobody used it: it is made anew.
            Moving::Begun => {
                self.ladder.handle_moved(now);
                self.release_held();
                self.stats.moves += 1;
            }
            Moving::Asked => {}
            // Its links need it where it is.
            Moving::Stays => self.ladder.handle_not_moved(now),
        }
    }

    pub(crate) fn send_to_peer(
        &mut self,
        peer: PeerAddr,
        payload: &[u8],
        segment: usize,
        scratch: &mut Vec<u8>,
    ) {
        if self.mind.is_moving() || !self.is_open() {
            return self.hold(peer, payload, segment);
        }
        let datagrams = payload.chunks(segment).len();
        let channel = self.mind.channel(peer, datagrams);
        if channel.is_none() {
            self.queue_requests();
        }
        let Some(Some(carrier)) = self.carriers.get_mut(self.ladder.current()) else {
            self.stats.refused += datagrams as u64;
            return;
        };
        if let Some(channel) = channel {
            carrier.send_channel_data(channel, payload, segment);
            self.stats.bytes_sent += payload.len() as u64;
            return;
        }
        for datagram in payload.chunks(segment) {
            scratch.clear();
            if self.mind.encode_to_peer(peer, datagram, scratch) && carrier.send(&[scratch]) {
                self.stats.bytes_sent += datagram.len() as u64;
            }
        }
    }

    fn hold(&mut self, peer: PeerAddr, payload: &[u8], segment: usize) {
        if self.held_bytes + payload.len() > HELD_LIMIT {
            self.stats.refused += payload.chunks(segment).len() as u64;
            return;
        }
        self.held_bytes += payload.len();
        self.held.push((peer, payload.to_vec(), segment));
    }

    fn release_held(&mut self) {
        self.held_bytes = 0;
        let mut scratch = Vec::new();
        for (peer, payload, segment) in std::mem::take(&mut self.held) {
            self.send_to_peer(peer, &payload, segment, &mut scratch);
        }
    }

    /// The next thing that happened.
    pub(crate) fn poll_event(&mut self, now: Instant) -> Option<AllocationEvent> {
        while let Some(event) = self.mind.poll_event() {
            let relay = self.name.clone();
            match event {
                Event::Allocated { relayed, .. } => {
                    self.relayed.clone_from(&relayed);
                    let transport = self.transport();
                    return Some(AllocationEvent::Allocated {
                        relay,
                        relayed,
                        transport,
                    });
                }
                Event::Lost { reason } => {
                    let held = !self.relayed.is_empty();
                    self.relayed.clear();
                    self.held.clear();
                    self.held_bytes = 0;
                    // The links on it end; what comes after begins with none.
                    for (peer, _) in self.peers.drain() {
                        self.mind.release_peer(PeerAddr(peer));
                    }
                    self.wants_new_port = reason.needs_new_port();
                    return Some(AllocationEvent::Lost {
                        relay,
                        reason,
                        held,
                    });
                }
                Event::Ending { left } => return Some(AllocationEvent::Ending { relay, left }),
                Event::NeedCredential => return Some(AllocationEvent::NeedCredential { relay }),
                Event::Moved => {
                    let before = self.transport();
                    self.ladder.handle_moved(now);
                    self.release_held();
                    let transport = self.transport();
                    self.stats.moves += u64::from(before != transport);
                    return Some(AllocationEvent::Moved { relay, transport });
                }
                Event::NotMoved => {
                    self.ladder.handle_not_moved(now);
                    self.release_held();
                }
                Event::PeerReady(_) => {}
            }
        }
        None
    }

    /// Starts anew from another port, when it cannot get on with the one it has.
    pub(crate) fn renew_port(&mut self, seed: impl FnOnce() -> u64, poller: &Poller, now: Instant) {
        let waited = now.saturating_duration_since(self.started) >= NEW_PORT_INTERVAL;
        if !self.wants_new_port || self.closing || !waited {
            return;
        }
        self.started = now;
        let rung = self.ladder.current();
        match self.open(rung, poller) {
            Ok(carrier) => {
                tracing::info!(relay = %self.name, "allocating from another port");
                self.mind = mind(&self.access, rung, carrier.local_addr(), seed(), now);
                self.carriers[rung] = Some(carrier);
                self.wants_new_port = false;
            }
            Err(error) => tracing::error!(relay = %self.name, %error, "no socket"),
        }
    }

    /// Queues what the mind itself has to say.
    fn queue_requests(&mut self) {
        let current = self.ladder.current();
        while let Some(message) = self.mind.poll_transmit() {
            if let Some(Some(carrier)) = self.carriers.get_mut(current) {
                carrier.send(&[&message]);
            }
        }
        let ahead = self.ladder.moving_to().unwrap_or(current);
        while let Some(message) = self.mind.poll_transmit_ahead() {
            if let Some(Some(carrier)) = self.carriers.get_mut(ahead) {
                carrier.send(&[&message]);
            }
        }
    }

    /// Sends what is queued, as far as the kernel takes it, and has the poller say when it takes more.
    pub(crate) fn flush(&mut self, poller: &Poller) {
        self.queue_requests();
        for carrier in self.carriers.iter_mut().flatten() {
            carrier.flush();
            carrier.watch(poller);
        }
    }

    /// Whether its last words are out.
    pub(crate) fn is_done(&self) -> bool {
        self.closing && self.carriers.iter().flatten().all(Carrier::is_empty)
    }

    pub(crate) fn stats(&self) -> RelayStats {
        let mut stats = self.stats;
        let refused: u64 = self
            .carriers
            .iter()
            .flatten()
            .map(|open| open.refused)
            .sum();
        stats.refused += refused + self.mind.stats().not_sent;
        stats.dropped += self.mind.stats().dropped;
        stats
    }
}

fn any(access: &RelayAccess) -> SocketAddr {
    let way = access.ways.first();
    way.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |way| way.server.0)
}

fn mind(
    access: &RelayAccess,
    rung: usize,
    local: SocketAddr,
    seed: u64,
    now: Instant,
) -> Allocation {
    let way = access.ways.get(rung);
    let config = AllocationConfig {
        mobile: true,
        transport: way.map_or(RelayTransport::Udp, |way| way.transport),
        server: way.map_or(local, |way| way.server.0),
        local,
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
