//! A small relay with its shell, its clients and its peers, and what must hold whatever they do.

use super::model::Allocation;
use super::request::{self, Reader};
use model::{ClientAddr, PeerAddr, ServerAddr, UnixTime};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use turn_relay_proto::{
    Burst, ConnectionId, Credentials, FiveTuple, Limits, Now, OpenError, Output, PeerPolicy, Realm,
    RelayAddress, RelayId, Server, ServerConfig, Shared, Transport, Verdict,
    max_unauthenticated_answer, rest_password,
};

pub(super) const REALM: &str = "west";
pub(crate) const SERVER: &str = "203.0.113.12:3478";
pub(super) const ALLOWED: [&str; 2] = ["10.0.0.0/24", "fd00:10::/64"];
pub(super) const CLIENTS: usize = 6;
const RELAYS: [&str; 2] = ["10.0.0.2", "fd00:10::2"];
const PORTS: std::ops::RangeInclusive<u16> = 50_000..=50_007;
const ALLOCATIONS: usize = 5;
const PERMISSIONS: usize = 4;
const SECRET: &str = "secret";
const DATE: UnixTime = UnixTime(1_767_225_600);
/// Longer than anything lives.
const LONG: Duration = Duration::from_secs(20_000);

/// A client: where it is, who it says it is, and what it was told.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) path: FiveTuple,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) nonce: Vec<u8>,
    pub(super) token: Vec<u8>,
    pub(super) allocation: Allocation,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(super) server: Server,
    started: Instant,
    pub(super) now: Now,
    pub(super) clients: Vec<Client>,
    /// How it goes with the next sockets.
    results: VecDeque<Result<(), OpenError>>,
    pub(super) open: BTreeMap<SocketAddr, (RelayId, usize)>,
    /// Those of them that listen for TCP.
    listeners: Vec<RelayId>,
    /// Requests that wait for a socket: their client, and what it sent.
    waiting: Vec<(usize, Vec<u8>)>,
    /// Answers so far, of the datagram that is being handled.
    answers: usize,
}

fn allowed(peer: SocketAddr) -> bool {
    let networks = ALLOWED.map(|text| text.parse::<ipnet::IpNet>().expect("a network"));
    let listed = networks.iter().any(|network| network.contains(&peer.ip()));
    listed && peer.port() != 0 && peer != SERVER.parse().expect("an address")
}

/// The channel of a ChannelData message.
fn channel_of(datagram: &[u8]) -> u16 {
    datagram
        .first_chunk()
        .map_or(0, |two| u16::from_be_bytes(*two))
}

fn credentials() -> (Credentials, [(String, String); 4]) {
    let mut credentials = Credentials::new(REALM);
    credentials.add_user("alice", "wonderland");
    credentials.add_user("bob", "builder");
    credentials.add_secret(SECRET.as_bytes());
    let expiring = format!("{}:carol", DATE.0 + 1_000);
    let minted = rest_password(SECRET.as_bytes(), &expiring);
    let users = [
        ("alice", "wonderland"),
        ("bob", "builder"),
        (&*expiring, &*minted),
        ("mallory", "guess"),
    ];
    let users = users.map(|(user, password)| (user.to_owned(), password.to_owned()));
    (credentials, users)
}

/// Of a small relay.
pub(crate) fn config(credentials: Credentials) -> ServerConfig {
    let relays = RELAYS.map(|text| text.parse().expect("an address"));
    let relays = relays.map(|ip| RelayAddress {
        bind: ip,
        advertised: ip,
    });
    let networks = ALLOWED.map(|text| text.parse().expect("a network"));
    let own = ServerAddr(SERVER.parse().expect("an address"));
    let shared = Arc::new(Shared::new(relays.to_vec(), &PORTS, 3));
    let policy = Arc::new(PeerPolicy::new(networks.to_vec(), &[own]));
    let realm = Realm::new(&shared, Arc::new(credentials), policy);
    ServerConfig {
        shared,
        limits: Limits {
            allocations: ALLOCATIONS,
            permissions: PERMISSIONS,
            ..Limits::default()
        },
        software: "fuzzed".into(),
        realms: Arc::new(realm.into()),
        extensions: Default::default(),
        relay_port: None,
        short_cut: true,
        nonce_key: [1; 32],
        seed: [2; 32],
    }
}

/// Such a relay, with the users of the world.
pub(crate) fn server(started: Instant) -> Server {
    Server::new(config(credentials().0), started)
}

impl World {
    pub(crate) fn new() -> Self {
        let started = Instant::now();
        let (_, users) = credentials();
        let clients = (0..CLIENTS).map(|index| {
            let (user, password) = users[index % users.len()].clone();
            let connection = ConnectionId(index as u32);
            let (transport, ip) = match index {
                4 => (Transport::Tcp(connection), "192.0.2.1".parse()),
                5 => (Transport::Tls(connection), "2001:db8::5".parse()),
                3 => (Transport::Udp, "2001:db8::3".parse()),
                _ => (Transport::Udp, "192.0.2.1".parse()),
            };
            let ip: IpAddr = ip.expect("an address");
            Client {
                path: FiveTuple {
                    client: ClientAddr(SocketAddr::new(ip, 7_000 + index as u16)),
                    server: ServerAddr(SERVER.parse().expect("an address")),
                    transport,
                },
                user,
                password,
                nonce: b"none".to_vec(),
                token: vec![0; 8],
                allocation: Allocation::default(),
            }
        });
        Self {
            server: server(started),
            started,
            now: Now {
                instant: started + Duration::from_secs(10),
                unix: DATE,
            },
            clients: clients.collect(),
            results: VecDeque::new(),
            open: BTreeMap::new(),
            listeners: Vec::new(),
            waiting: Vec::new(),
            answers: 0,
        }
    }

    /// Datagrams of a client, all but the last of `segment` bytes.
    pub(super) fn client_sends(
        &mut self,
        client: usize,
        bytes: &[u8],
        segment: usize,
        signed: bool,
    ) {
        let path = self.clients[client].path;
        let is_stream = path.transport.connection().is_some();
        let mut rest = Some(Burst::new(bytes, segment));
        while let Some(burst) = rest {
            let first = burst.first().to_vec();
            if first.first().is_some_and(|byte| *byte < 4) && first.len() >= 20 {
                self.waiting.push((client, first.clone()));
            }
            self.answers = 0;
            let works = self.must_pass(client, &first, is_stream);
            let before = self.server.stats().clone();
            let (verdict, count) = self.server.handle_client_burst(self.now, path, burst);
            assert!(count >= 1 && count <= burst.of_equal_length());
            let passed = match verdict {
                Verdict::ToPeer {
                    relay,
                    peer,
                    payload,
                    ..
                } => {
                    let payloads = burst.payloads(payload, count).expect("within the burst");
                    assert_eq!(payloads.count(), count);
                    self.check_to_peer(client, relay, peer.0, &first);
                    Some(peer.0)
                }
                Verdict::ToClient {
                    path,
                    prefix,
                    payload,
                    padding,
                } => {
                    burst.payloads(payload, count).expect("within the burst");
                    assert!(padding < 4 && prefix.as_bytes().len() <= 48);
                    self.check_short_cut(client, path, &first);
                    None
                }
                Verdict::Handled => {
                    assert_eq!(count, 1);
                    None
                }
                Verdict::Dropped(reason) => {
                    let dropped = self.server.stats().dropped(reason) - before.dropped(reason);
                    assert_eq!(dropped, count as u64);
                    assert_eq!(works, None, "dropped for {reason:?}");
                    None
                }
            };
            if let (Some(passed), Some(expected)) = (passed, works) {
                assert_eq!(passed, expected);
            }
            self.drain(Some((client, &first, signed)));
            rest = burst.after(count);
        }
        self.check_bounds();
    }

    /// The peer that ChannelData must reach.
    fn must_pass(&self, client: usize, datagram: &[u8], is_stream: bool) -> Option<SocketAddr> {
        let [c0, c1, l0, l1, data @ ..] = datagram else {
            return None;
        };
        let channel = u16::from_be_bytes([*c0, *c1]);
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        // Over a stream the shell hands frames over without padding.
        if length > data.len() || is_stream && length != data.len() {
            return None;
        }
        let allocation = &self.clients[client].allocation;
        allocation.works(channel, self.now.instant)
    }

    fn check_to_peer(&self, client: usize, relay: RelayId, peer: SocketAddr, sent: &[u8]) {
        assert!(allowed(peer), "to a denied peer: {peer}");
        let owner = self.open.values().find(|(open, _)| *open == relay);
        let (_, owner) = owner.expect("a socket that is open");
        assert_eq!(*owner, client, "from another client's relayed address");
        let allocation = &self.clients[client].allocation;
        let now = self.now.instant;
        // A channel lasts longer than the permission that came with it, and can be sent on (RFC 8656 section 12.6).
        let may = match sent {
            [0x40..=0xFF, ..] => allocation.peer(channel_of(sent), now) == Some(peer),
            _ => allocation.permits(peer.ip(), now),
        };
        assert!(may, "to {peer} without permission");
    }

    /// From a client to another: to a relayed address of ours, whose owner lets the sender's in.
    fn check_short_cut(&self, client: usize, path: FiveTuple, sent: &[u8]) {
        let other = self.clients.iter().find(|other| other.path == path);
        let other = &other.expect("a client").allocation;
        let own = &self.clients[client].allocation;
        let now = self.now.instant;
        let to = own.peer(channel_of(sent), now).expect("a channel");
        assert!(
            other.relayed(now).any(|own| own == to),
            "to whom it was not sent"
        );
        let mut from = own.relayed(now);
        let lets_in = from.any(|from| other.permits(from.ip(), now));
        assert!(lets_in, "a short cut without permission");
    }

    /// Datagrams of a peer to a relayed address.
    pub(super) fn peer_sends(
        &mut self,
        relayed: SocketAddr,
        peer: SocketAddr,
        bytes: &[u8],
        segment: usize,
    ) {
        let Some(&(relay, owner)) = self.open.get(&relayed) else {
            return;
        };
        if self.listeners.contains(&relay) {
            // It comes over a connection, which it asks for.
            let peer = PeerAddr(peer);
            self.server.handle_peer_accepted(self.now, relay, peer);
            return self.drain(None);
        }
        let mut rest = Some(Burst::new(bytes, segment));
        while let Some(burst) = rest {
            let (verdict, count) =
                self.server
                    .handle_peer_burst(self.now, relay, PeerAddr(peer), burst);
            let client = &self.clients[owner];
            match verdict {
                Verdict::ToClient {
                    path,
                    prefix,
                    payload,
                    padding,
                } => {
                    assert_eq!(path, client.path);
                    burst.payloads(payload, count).expect("within the burst");
                    let length = prefix.as_bytes().len() + payload.len() + usize::from(padding);
                    assert!(length <= 65_535);
                    assert!(
                        client.allocation.permits(peer.ip(), self.now.instant),
                        "from {peer} without permission"
                    );
                    self.check_prefix(owner, peer, prefix.as_bytes(), payload.len());
                }
                Verdict::Dropped(_) => {}
                other => panic!("of a peer's datagram: {other:?}"),
            }
            rest = burst.after(count);
        }
    }

    fn check_prefix(&self, owner: usize, peer: SocketAddr, prefix: &[u8], length: usize) {
        let Some([c0, c1, l0, l1]) = prefix.first_chunk() else {
            panic!("a prefix of {} bytes", prefix.len());
        };
        if prefix.len() > 4 {
            let reader = Reader(prefix);
            assert_eq!(reader.addresses(request::XOR_PEER_ADDRESS), [peer]);
            return;
        }
        let channel = u16::from_be_bytes([*c0, *c1]);
        assert_eq!(usize::from(u16::from_be_bytes([*l0, *l1])), length);
        let allocation = &self.clients[owner].allocation;
        assert_eq!(allocation.peer(channel, self.now.instant), Some(peer));
    }

    /// Does what the server wants done. `sent` is what a client just sent, and whether it had a signature.
    fn drain(&mut self, sent: Option<(usize, &[u8], bool)>) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Answer { path, bytes } => self.on_answer(path, &bytes, sent),
                Output::OpenRelay { relay, address } => self.open_socket(relay, address),
                Output::OpenTcpRelay { relay, address } => {
                    self.listeners.push(relay);
                    self.open_socket(relay, address);
                }
                Output::Connect {
                    connection,
                    relay,
                    peer,
                    ..
                } => {
                    assert!(allowed(peer.0), "a connection to a denied peer: {}", peer.0);
                    assert!(self.listeners.contains(&relay));
                    let there = self.results.pop_front().is_none_or(|result| result.is_ok());
                    self.server
                        .handle_peer_connected(self.now, relay, connection, there);
                }
                Output::Join { path, .. } => {
                    assert!(
                        path.transport.connection().is_some(),
                        "a datagram is joined"
                    );
                }
                Output::ClosePeer { .. } => {}
                Output::Ended(_) => {}
                Output::ToShard { .. } => panic!("there is one shard"),
                Output::LookUp { .. } => panic!("everybody is known here"),
                Output::CloseRelay { relay } => {
                    let before = self.open.len();
                    self.open.retain(|_, (open, _)| *open != relay);
                    self.listeners.retain(|listener| *listener != relay);
                    assert_eq!(self.open.len() + 1, before);
                }
            }
        }
        self.find_owners();
    }

    fn on_answer(&mut self, path: FiveTuple, bytes: &[u8], sent: Option<(usize, &[u8], bool)>) {
        let to = self.clients.iter().position(|client| client.path == path);
        let to = to.expect("a client that is there");
        let answer = Reader(bytes);
        if answer.class() == 1 {
            // ConnectionAttempt.
            let peers = answer.addresses(request::XOR_PEER_ADDRESS);
            let allocation = &self.clients[to].allocation;
            let now = self.now.instant;
            assert!(peers.iter().all(|peer| allocation.permits(peer.ip(), now)));
            return;
        }
        assert!(matches!(answer.class(), 2 | 3), "a response");
        // The last one: requests that nobody answers wait for ever, and may have the same transaction.
        let asked = self.waiting.iter().rposition(|(client, request)| {
            let request = Reader(request);
            let is_its = request.transaction() == answer.transaction();
            *client == to && is_its && request.method() == answer.method()
        });
        let (_, request) = self
            .waiting
            .remove(asked.expect("a request for each answer"));
        let request = Reader(&request);
        if let Some((client, datagram, signed)) = sent {
            assert_eq!(client, to);
            self.answers += 1;
            assert_eq!(self.answers, 1, "one answer to one request");
            if !signed {
                let bound = max_unauthenticated_answer(REALM.len()).max(datagram.len());
                assert!(bytes.len() <= bound, "an answer of {} bytes", bytes.len());
                assert!(request.method() == request::BINDING || answer.class() == 3);
            }
        }
        let client = &mut self.clients[to];
        if let Some(nonce) = answer.get(request::NONCE) {
            client.nonce = nonce.to_vec();
        }
        if let Some(token) = answer.get(request::RESERVATION_TOKEN) {
            client.token = token.to_vec();
        }
        if answer.class() == 2 {
            let now = self.now.instant;
            client.allocation.on_success(request, answer, now);
        } else {
            let code = answer.error_code().expect("ERROR-CODE");
            assert!((300..700).contains(&code));
        }
    }

    /// How it will go with the next socket that is to be opened, and those after it: right, if nothing is said.
    pub(super) fn next_sockets(&mut self, result: Result<(), OpenError>) {
        if self.results.len() < 8 {
            self.results.push_back(result);
        }
    }

    fn open_socket(&mut self, relay: RelayId, address: SocketAddr) {
        let result = self.results.pop_front().unwrap_or(Ok(()));
        if result.is_ok() {
            // Whose it is is known when the answer comes.
            let before = self.open.insert(address, (relay, usize::MAX));
            assert_eq!(before, None, "{address} is given out twice");
        }
        self.server.handle_relay_opened(self.now, relay, result);
    }

    /// Sockets belong to whose answer named them.
    fn find_owners(&mut self) {
        let now = self.now.instant;
        for (address, (_, owner)) in &mut self.open {
            if *owner == usize::MAX {
                let mut clients = self.clients.iter();
                let found = clients
                    .position(|client| client.allocation.relayed(now).any(|a| a == *address));
                *owner = found.expect("a socket of an allocation");
            }
        }
    }

    pub(super) fn disconnect(&mut self, client: usize) {
        let path = self.clients[client].path;
        if path.transport.connection().is_none() {
            return;
        }
        self.server.handle_connection_closed(self.now, path);
        self.clients[client].allocation.end();
        self.drain(None);
        self.waiting.retain(|(waiting, _)| *waiting != client);
        assert!(!self.server.has_allocation(path));
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now.instant + time;
        while let Some(next) = self.server.poll_timeout().filter(|next| *next <= until) {
            self.server.handle_timeout(next);
            self.drain(None);
            let after = self.server.poll_timeout();
            assert!(after.is_none_or(|after| after > next), "time stands still");
        }
        self.now.instant = until;
        self.now.unix.0 += time.as_secs();
        // An allocation that is over ends with everything on it.
        for client in &mut self.clients {
            if !client.allocation.is_alive(until) {
                client.allocation.end();
            }
        }
    }

    fn check_bounds(&self) {
        let stats = self.server.stats();
        assert!(stats.allocations <= ALLOCATIONS as u64);
        assert!(stats.permissions <= (ALLOCATIONS * PERMISSIONS) as u64);
        assert!(self.open.len() <= 2 * ALLOCATIONS);
    }

    /// What the relay would leave to a successor.
    pub(crate) fn export(&self) -> Vec<u8> {
        self.server.export(self.now.instant).state
    }

    /// Another relay goes on where this one is.
    pub(crate) fn succeed(&mut self) {
        let now = self.now.instant;
        let exported = self.server.export(now);
        let mut successor = server(self.started);
        let imported = successor.import(&exported.state, now, |_| true);
        let imported = imported.expect("what a relay wrote");
        assert_eq!(imported.left_out, 0);
        let again = successor.export(now);
        assert_eq!(again.state.len(), exported.state.len());
        assert_eq!(again.relays.len(), exported.relays.len());
        let mut open = BTreeMap::new();
        for adopted in &imported.relays {
            let (relay, owner) = self.open[&adopted.address];
            assert_eq!(relay, exported.relays[adopted.position], "another socket");
            open.insert(adopted.address, (adopted.relay, owner));
        }
        assert_eq!(open.len(), exported.relays.len(), "a socket is lost");
        for (index, client) in self.clients.iter_mut().enumerate() {
            if !self.server.has_allocation(client.path) || successor.has_allocation(client.path) {
                continue;
            }
            // Sessions of TLS stay behind, and connections with peers.
            let mut sockets = self.open.values().filter(|(_, owner)| *owner == index);
            let to_tcp = sockets.any(|(relay, _)| self.listeners.contains(relay));
            let is_sealed = matches!(client.path.transport, Transport::Tls(_));
            assert!(to_tcp || is_sealed, "an allocation is lost");
            client.allocation.end();
        }
        (self.server, self.open) = (successor, open);
        self.listeners.clear();
        self.drain(None);
        self.check_bounds();
    }

    /// Afterwards nothing is left, and every port can be had again.
    pub(crate) fn finish(mut self) {
        for client in 0..CLIENTS {
            self.disconnect(client);
        }
        self.pass(LONG);
        let stats = self.server.stats();
        let left = (stats.allocations, stats.permissions, stats.channels);
        assert_eq!(left, (0, 0, 0), "left over");
        assert!(self.open.is_empty(), "sockets are left open");
        assert_eq!(self.server.poll_timeout(), None, "timers are left");
    }
}
