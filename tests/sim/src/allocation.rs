//! An activator's allocation on one relay and the ways to it, as the activator's shell keeps them: a UDP socket, else a
//! TCP connection, and the ladder that says which is used.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use model::{PeerAddr, RelayAccess, RelayName, RelayTransport, RelayedAddr};
use turn_client::{
    Allocation, AllocationConfig, Credential, Event, Families, Ladder, Moving, Step,
};

use crate::relay::Counts;

/// No allocation is started from another port more often than this.
const NEW_PORT_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that wait while an allocation moves.
const MOST_HELD: usize = 256;

/// A part of a stream between an activator and a relay.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// The activator begins it.
    Open,
    /// It is open.
    Opened,
    /// Whole messages, or on the way to the activator any piece of them.
    Bytes(Vec<u8>),
    /// It is over.
    Reset,
}

/// An open way to the relay.
#[derive(Debug)]
struct Carrier {
    local: SocketAddr,
    transport: RelayTransport,
    open: bool,
    inbound: BytesMut,
}

/// What a relay passed on: the relayed address, the peer, what it sent.
pub(crate) type FromPeer = (SocketAddr, SocketAddr, BytesMut);

#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) name: RelayName,
    pub(crate) server: SocketAddr,
    pub(crate) mind: Allocation,
    pub(crate) relayed: Vec<RelayedAddr>,
    ladder: Ladder,
    /// By rung; what is open of them.
    carriers: Vec<Option<Carrier>>,
    /// How many links each peer is permitted for.
    peers: HashMap<SocketAddr, usize>,
    access: RelayAccess,
    started: Instant,
    wants_new_port: bool,
    /// For peers, while it moves.
    held: Vec<(SocketAddr, Vec<u8>)>,
    sends: Vec<ToRelay>,
    pub(crate) from_peers: Counts,
}

/// What is to be sent to a relay.
#[derive(Debug)]
pub(crate) enum ToRelay {
    Datagram(SocketAddr, Vec<u8>),
    Stream(SocketAddr, Part),
}

/// What an allocation has to say.
#[derive(Debug)]
pub(crate) enum Said {
    Allocated(Vec<RelayedAddr>),
    Ending,
    Lost,
    NeedCredential,
}

impl Standing {
    pub(crate) fn start(
        name: RelayName,
        access: RelayAccess,
        local: SocketAddr,
        seed: u64,
        now: Instant,
    ) -> Self {
        let rungs = access.ways.len();
        let mut carriers: Vec<Option<Carrier>> = (0..rungs).map(|_| None).collect();
        carriers[0] = Some(Carrier::new(local, RelayTransport::Udp));
        Self {
            name,
            server: access.ways[0].server.0,
            mind: mind(&access, 0, local, seed, now),
            relayed: Vec::new(),
            ladder: Ladder::new(rungs, seed.rotate_left(32), now),
            carriers,
            peers: HashMap::new(),
            access,
            started: now,
            wants_new_port: false,
            held: Vec::new(),
            sends: Vec::new(),
            from_peers: Counts::default(),
        }
    }

    pub(crate) fn renew(&mut self, access: RelayAccess, now: Instant) {
        self.mind.set_credential(credential(&access), now);
        self.access = access;
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr, now: Instant) -> bool {
        if let Some(links) = self.peers.get_mut(&peer) {
            *links += 1;
            return true;
        }
        let permitted = self.mind.permit(PeerAddr(peer), now);
        if permitted {
            self.peers.insert(peer, 1);
        }
        permitted
    }

    pub(crate) fn release(&mut self, peer: SocketAddr) {
        if let Some(links) = self.peers.get_mut(&peer) {
            *links -= 1;
            if *links == 0 {
                self.peers.remove(&peer);
                self.mind.release_peer(PeerAddr(peer));
            }
        }
    }

    /// Whether this is one of its sockets.
    pub(crate) fn is_at(&self, local: SocketAddr) -> bool {
        self.rung_at(local).is_some()
    }

    fn rung_at(&self, local: SocketAddr) -> Option<usize> {
        let at = |carrier: &Option<Carrier>| carrier.as_ref().is_some_and(|it| it.local == local);
        self.carriers.iter().position(at)
    }

    /// A datagram on one of its sockets; what a peer sent.
    pub(crate) fn receive(
        &mut self,
        local: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Vec<FromPeer> {
        let mut received = Vec::new();
        if let Some(rung) = self.rung_at(local)
            && !self.ladder.handle_message(rung, datagram)
        {
            let len = datagram.len();
            let burst = BytesMut::from(datagram);
            self.mind
                .handle_datagrams(now, burst, len, |peer, payload, _| {
                    received.push((peer, payload));
                });
        }
        self.came_by(received)
    }

    /// A part of a stream; what peers sent.
    pub(crate) fn receive_part(
        &mut self,
        local: SocketAddr,
        part: Part,
        now: Instant,
    ) -> Vec<FromPeer> {
        let Some(rung) = self.rung_at(local) else {
            return Vec::new();
        };
        let Some(carrier) = &mut self.carriers[rung] else {
            return Vec::new();
        };
        let mut received = Vec::new();
        match part {
            Part::Open => {}
            Part::Opened => {
                carrier.open = true;
                self.ladder.handle_open(rung, now);
            }
            Part::Bytes(bytes) => {
                carrier.inbound.extend_from_slice(&bytes);
                if self.ladder.handle_message(rung, &carrier.inbound) {
                    carrier.inbound.clear();
                }
                let each = |peer, payload: BytesMut, segment: usize| {
                    let all = payload.chunks(segment);
                    received.extend(all.map(|one| (peer, BytesMut::from(one))));
                };
                self.mind
                    .handle_stream(now, &mut carrier.inbound, each)
                    .expect("a relay sends whole messages");
            }
            Part::Reset => {
                self.carriers[rung] = None;
                self.ladder.handle_failed(rung, now);
            }
        }
        self.came_by(received)
    }

    fn came_by(&mut self, received: Vec<(PeerAddr, BytesMut)>) -> Vec<FromPeer> {
        let relayed = self.relayed.clone();
        let came_by = |(peer, payload): (PeerAddr, BytesMut)| {
            let same_family = |local: &&RelayedAddr| local.0.is_ipv4() == peer.0.is_ipv4();
            self.from_peers.count(payload.len());
            Some((relayed.iter().find(same_family)?.0, peer.0, payload))
        };
        received.into_iter().filter_map(came_by).collect()
    }

    /// Sends this to a peer.
    pub(crate) fn send_to_peer(&mut self, peer: SocketAddr, payload: &[u8]) {
        if self.mind.is_moving() || self.current().is_none() {
            if self.held.len() < MOST_HELD {
                self.held.push((peer, payload.to_vec()));
            }
            return;
        }
        // The request for a permission goes before what relies on it.
        self.queue_requests();
        let to = PeerAddr(peer);
        let mut message = Vec::new();
        if let Some(header) = self.mind.channel_header(to, payload.len()) {
            message = [&header, payload].concat();
        } else if !self.mind.encode_to_peer(to, payload, &mut message) {
            return;
        }
        self.send(self.ladder.current(), message);
    }

    fn current(&self) -> Option<&Carrier> {
        self.carriers[self.ladder.current()].as_ref()
    }

    fn send(&mut self, rung: usize, mut message: Vec<u8>) {
        let Some(carrier) = &self.carriers[rung] else {
            return;
        };
        let local = carrier.local;
        self.sends
            .push(if carrier.transport == RelayTransport::Udp {
                ToRelay::Datagram(local, message)
            } else {
                message.resize(message.len().next_multiple_of(4), 0);
                ToRelay::Stream(local, Part::Bytes(message))
            });
    }

    fn queue_requests(&mut self) {
        let current = self.ladder.current();
        while let Some(message) = self.mind.poll_transmit() {
            self.send(current, message);
        }
        let ahead = self.ladder.moving_to().unwrap_or(current);
        while let Some(message) = self.mind.poll_transmit_ahead() {
            self.send(ahead, message);
        }
    }

    /// What is to be sent.
    pub(crate) fn take_sends(&mut self) -> Vec<ToRelay> {
        self.queue_requests();
        std::mem::take(&mut self.sends)
    }

    pub(crate) fn poll_said(&mut self, now: Instant) -> Option<Said> {
        loop {
            match self.mind.poll_event()? {
                Event::Allocated { relayed, .. } => {
                    self.relayed.clone_from(&relayed);
                    return Some(Said::Allocated(relayed));
                }
                Event::Lost { reason } => {
                    self.relayed.clear();
                    self.held.clear();
                    for (peer, _) in self.peers.drain() {
                        self.mind.release_peer(PeerAddr(peer));
                    }
                    self.wants_new_port = reason.needs_new_port();
                    return Some(Said::Lost);
                }
                Event::Ending { .. } => return Some(Said::Ending),
                Event::NeedCredential => return Some(Said::NeedCredential),
                Event::Moved => {
                    self.ladder.handle_moved(now);
                    self.release_held();
                }
                Event::NotMoved => {
                    self.ladder.handle_not_moved(now);
                    self.release_held();
                }
                Event::PeerReady(_) => {}
            }
        }
    }

    fn release_held(&mut self) {
        for (peer, payload) in std::mem::take(&mut self.held) {
            self.send_to_peer(peer, &payload);
        }
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        let ladder = self
            .ladder
            .poll_timeout(self.mind.unanswered_since(), self.mind.rtt())
            .filter(|_| self.carriers.len() > 1);
        let new_port = self
            .wants_new_port
            .then_some(self.started + NEW_PORT_INTERVAL);
        let mind = self.mind.poll_timeout();
        mind.into_iter().chain(ladder).chain(new_port).min()
    }

    /// Does what is due; `port` finds a free port.
    pub(crate) fn handle_timeout(
        &mut self,
        port: &mut dyn FnMut() -> SocketAddr,
        seed: u64,
        now: Instant,
    ) {
        if self.mind.poll_timeout().is_some_and(|due| due <= now) {
            self.mind.handle_timeout(now);
        }
        self.climb(port, now);
        if self.wants_new_port && now.saturating_duration_since(self.started) >= NEW_PORT_INTERVAL {
            self.started = now;
            self.wants_new_port = false;
            let rung = self.ladder.current();
            let local = port();
            self.mind = mind(&self.access, rung, local, seed, now);
            self.open(rung, local);
        }
    }

    fn open(&mut self, rung: usize, local: SocketAddr) {
        let transport = self.access.ways[rung].transport;
        if transport != RelayTransport::Udp {
            self.sends.push(ToRelay::Stream(local, Part::Open));
        }
        self.carriers[rung] = Some(Carrier::new(local, transport));
    }

    /// Does what the ladder wants done.
    pub(crate) fn climb(&mut self, port: &mut dyn FnMut() -> SocketAddr, now: Instant) {
        if self.carriers.len() < 2 {
            return;
        }
        let (since, rtt) = (self.mind.unanswered_since(), self.mind.rtt());
        self.ladder.handle_timeout(now, since, rtt);
        while let Some(step) = self.ladder.poll_step() {
            match step {
                Step::Open(rung) => {
                    self.open(rung, port());
                    if self.access.ways[rung].transport == RelayTransport::Udp {
                        self.ladder.handle_open(rung, now);
                    }
                }
                Step::Send(rung, message) => self.send(rung, message),
                Step::Move { to, dead } => self.move_to(to, dead, now),
                Step::Close(rung) => {
                    if let Some(carrier) = self.carriers[rung].take()
                        && carrier.transport != RelayTransport::Udp
                    {
                        self.sends.push(ToRelay::Stream(carrier.local, Part::Reset));
                    }
                }
            }
        }
    }

    fn move_to(&mut self, to: usize, dead: bool, now: Instant) {
        let Some(carrier) = &self.carriers[to] else {
            return self.ladder.handle_not_moved(now);
        };
        let (transport, local) = (carrier.transport, carrier.local);
        match self.mind.move_to(transport, self.server, local, dead, now) {
            Moving::Begun => {
                self.ladder.handle_moved(now);
                self.release_held();
            }
            Moving::Asked => {}
            Moving::Stays => self.ladder.handle_not_moved(now),
        }
    }

    /// Peers that links hold.
    pub(crate) fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Its streams, which end with it.
    pub(crate) fn streams(&self) -> impl Iterator<Item = SocketAddr> {
        let open = self.carriers.iter().flatten();
        open.filter(|carrier| carrier.transport != RelayTransport::Udp)
            .map(|carrier| carrier.local)
    }
}

impl Carrier {
    fn new(local: SocketAddr, transport: RelayTransport) -> Self {
        Self {
            local,
            transport,
            open: transport == RelayTransport::Udp,
            inbound: BytesMut::new(),
        }
    }
}

fn mind(
    access: &RelayAccess,
    rung: usize,
    local: SocketAddr,
    seed: u64,
    now: Instant,
) -> Allocation {
    let config = AllocationConfig {
        mobile: true,
        transport: access.ways[rung].transport,
        server: access.ways[rung].server.0,
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
