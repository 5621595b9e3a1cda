//! The relay: its core and the shell around it, with an eye on everything that crosses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use model::{ClientAddr, PeerAddr, ServerAddr};
use turn_relay_proto::{
    Credentials, FiveTuple, Limits, Now, OpenError, Output, PeerPolicy, Realm, RelayAddress,
    RelayId, Server, ServerConfig, Shared, Stats, Transport, Verdict,
};

use crate::picture::{RELAY_INSIDE, RELAY_OUTSIDE, SECRET, address, ip};

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

/// A datagram that leaves the relay: from, to, what.
pub(crate) type Leaving = (SocketAddr, SocketAddr, Vec<u8>);

#[derive(Debug)]
pub(crate) struct RelayHost {
    pub(crate) server: Server,
    pub(crate) up: bool,
    sockets: HashMap<SocketAddr, RelayId>,
    /// What must not be seen, and how often it was.
    pub(crate) marker: Vec<u8>,
    pub(crate) marker_seen: u64,
    /// Datagrams that were looked through.
    pub(crate) inspected: u64,
}

impl RelayHost {
    /// `incarnation` makes nonces and ports unlike those of earlier runs.
    pub(crate) fn new(incarnation: u8, now: Instant) -> Self {
        Self {
            server: server(incarnation, now),
            up: true,
            sockets: HashMap::new(),
            marker: Vec::new(),
            marker_seen: 0,
            inspected: 0,
        }
    }

    /// Another process: nothing is left of the one before.
    pub(crate) fn restart(&mut self, incarnation: u8, now: Instant) {
        self.server = server(incarnation, now);
        self.sockets.clear();
        self.up = true;
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
        self.look_at(payload);
        let mut leaving = Vec::new();
        let verdict = if to == address(RELAY_OUTSIDE) {
            let path = FiveTuple {
                client: ClientAddr(from),
                server: ServerAddr(to),
                transport: Transport::Udp,
            };
            self.server.handle_client_datagram(now, path, payload)
        } else if let Some(relay) = self.sockets.get(&to) {
            self.server
                .handle_peer_datagram(now, *relay, PeerAddr(from), payload)
        } else {
            return leaving;
        };
        match verdict {
            Verdict::ToPeer {
                relay,
                peer,
                payload,
                ..
            } => {
                let relayed = self.sockets.iter().find(|(_, id)| **id == relay);
                let (relayed, _) = relayed.expect("the relay sends from a socket that is open");
                leaving.push((*relayed, peer.0, payload.to_vec()));
            }
            Verdict::ToClient {
                path,
                prefix,
                payload,
                padding,
            } => {
                let padding = vec![0; usize::from(padding)];
                let bytes = [prefix.as_bytes(), payload, &padding].concat();
                leaving.push((path.server.0, path.client.0, bytes));
            }
            Verdict::Handled | Verdict::Dropped(_) => {}
        }
        self.carry_out(now, &mut leaving);
        for (_, _, bytes) in &leaving {
            self.look_at(bytes);
        }
        leaving
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
                    leaving.push((path.server.0, path.client.0, bytes))
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

fn server(incarnation: u8, now: Instant) -> Server {
    let mut credentials = Credentials::new("west");
    credentials.add_secret(SECRET);
    let inside = RELAY_INSIDE.map(|text| RelayAddress {
        bind: ip(text),
        advertised: ip(text),
    });
    let allowed = ["10.0.0.0/24", "fd00:10::/64"].map(|net| net.parse().expect("a prefix"));
    let own = [ServerAddr(address(RELAY_OUTSIDE))];
    let shared = Arc::new(Shared::new(inside.to_vec(), &(49_152..=65_535), 10));
    let policy = Arc::new(PeerPolicy::new(allowed.to_vec(), &own));
    let realm = Realm::new(&shared, Arc::new(credentials), policy);
    let config = ServerConfig {
        shared,
        limits: Limits::default(),
        software: "sim".to_owned(),
        realms: Arc::new(realm.into()),
        relay_port: None,
        short_cut: true,
        extensions: Default::default(),
        nonce_key: [incarnation; 32],
        seed: [incarnation ^ 0x55; 32],
    };
    Server::new(config, now)
}
