//! A client and a relay of this project, core against core, in memory and virtual time.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{ClientAddr, PeerAddr, ServerAddr, UnixTime};
use turn_relay_proto as relay;
use turnpike_turn_client::{Allocation, AllocationConfig, Credential, Event, Families, Received};

pub const SECRET: &[u8] = b"the relay's and discovery's secret";
pub const EPOCH: u64 = 1_800_000_000;

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn credential(expires: u64) -> Credential {
    let username = format!("{expires}:east/activator/a1");
    let password = relay::rest_password(SECRET, &username);
    Credential { username, password }
}

pub fn server(seed: u8, now: Instant) -> relay::Server {
    let mut credentials = relay::Credentials::new("west");
    credentials.add_secret(SECRET);
    let leg = |text: &str| {
        let ip = text.parse().unwrap();
        relay::RelayAddress {
            bind: ip,
            advertised: ip,
        }
    };
    let allowed = vec![
        "10.0.0.0/24".parse().unwrap(),
        "fd00:10::/64".parse().unwrap(),
    ];
    let legs = vec![leg("10.0.0.2"), leg("fd00:10::2")];
    let shared = Arc::new(relay::Shared::new(legs, &(49_152..=65_535), 10));
    let policy = Arc::new(relay::PeerPolicy::new(allowed, &[]));
    let realm = relay::Realm::new(&shared, Arc::new(credentials), policy);
    let config = relay::ServerConfig {
        shared,
        limits: relay::Limits::default(),
        software: "test".to_owned(),
        realms: Arc::new(realm.into()),
        relay_port: None,
        short_cut: true,
        extensions: relay::Extensions {
            mobility: true,
            ..Default::default()
        },
        nonce_key: [seed; 32],
        seed: [seed; 32],
    };
    relay::Server::new(config, now)
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub client: Allocation,
    pub server: relay::Server,
    /// Relayed sockets, by what they are bound to.
    pub sockets: HashMap<SocketAddr, relay::RelayId>,
    pub events: Vec<Event>,
    /// Where the client's messages come from, and where those come from that it sends ahead.
    pub path: relay::FiveTuple,
    pub ahead: relay::FiveTuple,
    /// What peers were sent, and by which relayed address.
    pub to_peers: Vec<(SocketAddr, Vec<u8>)>,
    pub from_peers: Vec<(PeerAddr, Vec<u8>)>,
}

impl World {
    pub fn new() -> Self {
        let now = Instant::now();
        let config = AllocationConfig {
            mobile: true,
            transport: model::RelayTransport::Udp,
            server: addr("203.0.113.12:3478"),
            local: addr("10.0.0.3:40000"),
            families: Families::Both,
            seed: 1,
        };
        let mut world = Self {
            start: now,
            now,
            client: Allocation::new(config, credential(EPOCH + 3_600), now),
            server: server(1, now),
            sockets: HashMap::new(),
            events: Vec::new(),
            path: Self::udp("198.51.100.7:40000"),
            ahead: Self::udp("198.51.100.7:40000"),
            to_peers: Vec::new(),
            from_peers: Vec::new(),
        };
        world.settle();
        world
    }

    pub fn at(&self) -> relay::Now {
        let unix = UnixTime(EPOCH + (self.now - self.start).as_secs());
        relay::Now {
            instant: self.now,
            unix,
        }
    }

    pub fn udp(client: &str) -> relay::FiveTuple {
        relay::FiveTuple {
            client: ClientAddr(addr(client)),
            server: ServerAddr(addr("203.0.113.12:3478")),
            transport: relay::Transport::Udp,
        }
    }

    pub fn enter_relay(&mut self, path: relay::FiveTuple, datagram: &[u8]) {
        let now = self.at();
        match self.server.handle_client_datagram(now, path, datagram) {
            relay::Verdict::ToPeer { peer, payload, .. } => {
                self.to_peers.push((peer.0, payload.to_vec()));
            }
            relay::Verdict::ToClient { .. } => panic!("a client's datagram for a client"),
            relay::Verdict::Handled | relay::Verdict::Dropped(_) => {}
        }
        while let Some(output) = self.server.poll_output() {
            match output {
                relay::Output::Answer { bytes, .. } => self.enter_client(&bytes),
                relay::Output::OpenRelay { relay, address } => {
                    self.sockets.insert(address, relay);
                    self.server.handle_relay_opened(now, relay, Ok(()));
                }
                relay::Output::OpenTcpRelay { .. }
                | relay::Output::Connect { .. }
                | relay::Output::ClosePeer { .. }
                | relay::Output::Join { .. } => unreachable!("nobody asks for TCP to peers"),
                relay::Output::LookUp { .. } => panic!("nobody is asked"),
                relay::Output::Ended(_) => {}
                relay::Output::CloseRelay { relay } => {
                    self.sockets.retain(|_, open| *open != relay);
                }
                relay::Output::ToShard { .. } => unreachable!("there is one shard"),
            }
        }
    }

    pub fn enter_client(&mut self, datagram: &[u8]) {
        let received = self.client.handle_datagram(self.now, datagram);
        if let Received::FromPeer { peer, payload } = received {
            self.from_peers.push((peer, payload.to_vec()));
        }
    }

    pub fn peer_sends(&mut self, from: &str, to: SocketAddr, payload: &[u8]) {
        let relay = self.sockets[&to];
        let now = self.at();
        let from = PeerAddr(addr(from));
        let verdict = self.server.handle_peer_datagram(now, relay, from, payload);
        if let relay::Verdict::ToClient {
            prefix,
            payload,
            padding,
            ..
        } = verdict
        {
            let padding = vec![0; usize::from(padding)];
            let bytes = [prefix.as_bytes(), payload, &padding].concat();
            self.enter_client(&bytes);
        }
    }

    pub fn settle(&mut self) {
        while self.exchange() {}
    }

    /// Whether anything happened.
    fn exchange(&mut self) -> bool {
        let before = self.client.stats().requests;
        while let Some(datagram) = self.client.poll_transmit() {
            self.enter_relay(self.path, &datagram);
        }
        while let Some(message) = self.client.poll_transmit_ahead() {
            self.enter_relay(self.ahead, &message);
        }
        while let Some(event) = self.client.poll_event() {
            if event == Event::Moved {
                self.path = self.ahead;
            }
            self.events.push(event);
        }
        self.client.stats().requests != before
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let client = self.client.poll_timeout();
            let next = [client, self.server.poll_timeout()]
                .into_iter()
                .flatten()
                .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.server.handle_timeout(self.now);
            if client.is_some_and(|due| due <= self.now) {
                self.client.handle_timeout(self.now);
            }
            self.settle();
        }
        self.now = end;
    }

    pub fn send(&mut self, to: &str, payload: &[u8]) -> bool {
        let mut out = Vec::new();
        let encoded = self
            .client
            .encode_to_peer(PeerAddr(addr(to)), payload, &mut out);
        if encoded {
            self.enter_relay(self.path, &out);
        }
        encoded
    }

    pub fn permit(&mut self, text: &str) -> bool {
        let permitted = self.client.permit(PeerAddr(addr(text)), self.now);
        self.settle();
        permitted
    }

    pub fn relayed(&self, family: usize) -> SocketAddr {
        self.client.relayed()[family].0
    }
}
