//! The relay: its core and the shell around it, with an eye on everything that crosses.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use model::{ClientAddr, PeerAddr, ServerAddr};
use turn_relay_proto::{
    Alternate, AlternateTransport, ConnectionId, Credentials, Extensions, FiveTuple, Limits, Now,
    OpenError, Output, PeerPolicy, Realm, RelayAddress, RelayId, Server, ServerConfig, Shared,
    Stats, Transport, Verdict,
};

use crate::picture::{RELAYS, RelaySite, SECRET, address, ip};

/// Datagrams and the bytes of application data in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams.
    pub packets: u64,
    /// Bytes, without TURN's headers.
    pub bytes: u64,
}

impl Counts {
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// What leaves a relay: from, to, what, and whether as a part of a stream.
pub(crate) type Leaving = (SocketAddr, SocketAddr, Vec<u8>, bool);

#[derive(Debug)]
pub(crate) struct RelayHost {
    pub(crate) site: RelaySite,
    outside: SocketAddr,
    inside: [IpAddr; 2],
    /// Whether clients may move their allocations, and are sent to the other relay during a drain.
    extended: bool,
    pub(crate) server: Server,
    /// Of which run it is.
    pub(crate) incarnation: u8,
    pub(crate) up: bool,
    sockets: HashMap<SocketAddr, RelayId>,
    /// By the address that the client is seen with.
    connections: HashMap<SocketAddr, ConnectionId>,
    next_connection: u32,
    /// What must not be seen, and how often it was.
    pub(crate) marker: Vec<u8>,
    pub(crate) marker_seen: u64,
    /// Datagrams that were looked through.
    pub(crate) inspected: u64,
}

impl RelayHost {
    /// `incarnation` makes nonces and ports unlike those of earlier runs.
    pub(crate) fn new(site: RelaySite, extended: bool, incarnation: u8, now: Instant) -> Self {
        Self {
            site,
            outside: address(site.outside),
            inside: site.inside.map(ip),
            extended,
            server: server(&site, extended, incarnation, now),
            incarnation,
            up: true,
            sockets: HashMap::new(),
            connections: HashMap::new(),
            next_connection: 0,
            marker: Vec::new(),
            marker_seen: 0,
            inspected: 0,
        }
    }

    /// Another process: nothing is left of the one before.
    pub(crate) fn restart(&mut self, incarnation: u8, now: Instant) {
        self.server = server(&self.site, self.extended, incarnation, now);
        self.incarnation = incarnation;
        self.sockets.clear();
        self.connections.clear();
        self.up = true;
    }

    /// Whether a datagram for this address is for this relay.
    pub(crate) fn is_at(&self, to: SocketAddr) -> bool {
        to == self.outside || self.is_inside(to.ip())
    }

    /// Whether this is its address in west.
    pub(crate) fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.contains(&address)
    }

    /// A client connects.
    pub(crate) fn accept(&mut self, client: SocketAddr) {
        self.next_connection += 1;
        self.connections
            .insert(client, ConnectionId(self.next_connection));
    }

    /// A client's connection is over.
    pub(crate) fn hang_up(&mut self, client: SocketAddr, now: Now) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        if let Some(connection) = self.connections.remove(&client) {
            let path = self.path(client, Transport::Tcp(connection));
            self.server.handle_connection_closed(now, path);
            self.carry_out(now, &mut leaving);
        }
        leaving
    }

    /// A message on a client's connection; `None` when there is no such connection.
    pub(crate) fn handle_message(
        &mut self,
        client: SocketAddr,
        message: &[u8],
        now: Now,
    ) -> Option<Vec<Leaving>> {
        let connection = *self.connections.get(&client)?;
        Some(self.on_client(client, Transport::Tcp(connection), message, now))
    }

    fn path(&self, client: SocketAddr, transport: Transport) -> FiveTuple {
        FiveTuple {
            client: ClientAddr(client),
            server: ServerAddr(self.outside),
            transport,
        }
    }

    /// A datagram on either leg, and what leaves because of it.
    pub(crate) fn handle(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        payload: &[u8],
        now: Now,
    ) -> Vec<Leaving> {
        if !self.up {
            return Vec::new();
        }
        if to == self.outside {
            return self.on_client(from, Transport::Udp, payload, now);
        }
        self.look_at(payload);
        let mut leaving = Vec::new();
        if let Some(relay) = self.sockets.get(&to) {
            let verdict = self
                .server
                .handle_peer_datagram(now, *relay, PeerAddr(from), payload);
            obey(&self.sockets, verdict, &mut leaving);
            self.carry_out(now, &mut leaving);
            self.look_at_all(&leaving);
        }
        leaving
    }

    fn on_client(
        &mut self,
        client: SocketAddr,
        transport: Transport,
        message: &[u8],
        now: Now,
    ) -> Vec<Leaving> {
        self.look_at(message);
        let mut leaving = Vec::new();
        let path = self.path(client, transport);
        let verdict = self.server.handle_client_datagram(now, path, message);
        obey(&self.sockets, verdict, &mut leaving);
        self.carry_out(now, &mut leaving);
        self.look_at_all(&leaving);
        leaving
    }

    fn look_at_all(&mut self, leaving: &[Leaving]) {
        for (_, _, bytes, _) in leaving {
            self.look_at(bytes);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) -> Vec<Leaving> {
        let mut leaving = Vec::new();
        self.server.handle_timeout(now.instant);
        self.carry_out(now, &mut leaving);
        leaving
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.server.poll_timeout().filter(|_| self.up)
    }

    pub(crate) fn stats(&self) -> &Stats {
        self.server.stats()
    }

    /// Sockets that are open for relayed addresses.
    pub(crate) fn sockets(&self) -> usize {
        self.sockets.len()
    }

    fn carry_out(&mut self, now: Now, leaving: &mut Vec<Leaving>) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Answer { path, bytes } => {
                    leaving.push((path.server.0, path.client.0, bytes, is_stream(&path)));
                }
                Output::OpenRelay { relay, address } => {
                    let result = match self.sockets.contains_key(&address) {
                        true => Err(OpenError::PortInUse),
                        false => Ok(()),
                    };
                    if result.is_ok() {
                        self.sockets.insert(address, relay);
                    }
                    self.server.handle_relay_opened(now, relay, result);
                }
                Output::LookUp { .. } => panic!("nobody is asked"),
                Output::Ended(_) => {}
                Output::CloseRelay { relay } => self.sockets.retain(|_, open| *open != relay),
                Output::OpenTcpRelay { .. }
                | Output::Connect { .. }
                | Output::ClosePeer { .. }
                | Output::Join { .. } => unreachable!("nobody here asks for TCP to peers"),
                Output::ToShard { .. } => unreachable!("there is one shard"),
            }
        }
    }

    fn look_at(&mut self, bytes: &[u8]) {
        if self.marker.is_empty() {
            return;
        }
        self.inspected += 1;
        let seen = bytes
            .windows(self.marker.len())
            .any(|window| window == self.marker);
        self.marker_seen += u64::from(seen);
    }
}

/// What is to be sent because of a packet.
fn obey(sockets: &HashMap<SocketAddr, RelayId>, verdict: Verdict<'_>, leaving: &mut Vec<Leaving>) {
    match verdict {
        Verdict::ToPeer {
            relay,
            peer,
            payload,
            ..
        } => {
            let relayed = sockets.iter().find(|(_, id)| **id == relay);
            let (relayed, _) = relayed.expect("the relay sends from a socket that is open");
            leaving.push((*relayed, peer.0, payload.to_vec(), false));
        }
        Verdict::ToClient {
            path,
            prefix,
            payload,
            padding,
        } => {
            let padding = vec![0; usize::from(padding)];
            let mut bytes = [prefix.as_bytes(), payload, &padding].concat();
            if is_stream(&path) {
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            leaving.push((path.server.0, path.client.0, bytes, is_stream(&path)));
        }
        Verdict::Handled | Verdict::Dropped(_) => {}
    }
}

fn is_stream(path: &FiveTuple) -> bool {
    matches!(path.transport, Transport::Tcp(_))
}

fn server(site: &RelaySite, extended: bool, incarnation: u8, now: Instant) -> Server {
    let mut credentials = Credentials::new("west");
    credentials.add_secret(SECRET);
    let inside = site.inside.map(|text| RelayAddress {
        bind: ip(text),
        advertised: ip(text),
    });
    let allowed = ["10.0.0.0/24", "fd00:10::/64"].map(|net| net.parse().expect("a prefix"));
    let own = [ServerAddr(address(site.outside))];
    let shared = Arc::new(Shared::new(inside.to_vec(), &(49_152..=65_535), 10));
    let policy = Arc::new(PeerPolicy::new(allowed.to_vec(), &own));
    let realm = Realm::new(&shared, Arc::new(credentials), policy);
    let others = RELAYS
        .iter()
        .filter(|other| extended && other.name != site.name);
    let alternates = others
        .map(|other| Alternate {
            transport: AlternateTransport::Udp,
            address: address(other.outside),
        })
        .collect();
    let config = ServerConfig {
        shared,
        limits: Limits::default(),
        software: "sim".to_owned(),
        realms: Arc::new(realm.into()),
        relay_port: None,
        short_cut: true,
        extensions: Extensions {
            alternates,
            mobility: extended,
            ..Extensions::default()
        },
        nonce_key: [incarnation; 32],
        seed: [incarnation ^ 0x55; 32],
    };
    Server::new(config, now)
}
