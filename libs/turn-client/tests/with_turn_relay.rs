//! Client and relay of this project, core against core, in memory and virtual time.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::{ClientAddr, PeerAddr, ServerAddr, UnixTime};
use turn_relay_proto as relay;
use turnpike_turn_client::{
    Allocation, AllocationConfig, Credential, Event, Families, LostReason, Received, State,
};

const SECRET: &[u8] = b"the relay's and discovery's secret";
const EPOCH: u64 = 1_800_000_000;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn credential(expires: u64) -> Credential {
    let username = format!("{expires}:east/activator/a1");
    let password = relay::rest_password(SECRET, &username);
    Credential { username, password }
}

fn server(seed: u8, now: Instant) -> relay::Server {
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
        extensions: Default::default(),
        nonce_key: [seed; 32],
        seed: [seed; 32],
    };
    relay::Server::new(config, now)
}

struct World {
    start: Instant,
    now: Instant,
    client: Allocation,
    server: relay::Server,
    /// Relayed sockets, by what they are bound to.
    sockets: HashMap<SocketAddr, relay::RelayId>,
    events: Vec<Event>,
    /// What peers were sent, and by which relayed address.
    to_peers: Vec<(SocketAddr, Vec<u8>)>,
    from_peers: Vec<(PeerAddr, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let config = AllocationConfig {
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
            to_peers: Vec::new(),
            from_peers: Vec::new(),
        };
        world.settle();
        world
    }

    fn at(&self) -> relay::Now {
        let unix = UnixTime(EPOCH + (self.now - self.start).as_secs());
        relay::Now {
            instant: self.now,
            unix,
        }
    }

    fn path() -> relay::FiveTuple {
        relay::FiveTuple {
            client: ClientAddr(addr("198.51.100.7:40000")),
            server: ServerAddr(addr("203.0.113.12:3478")),
            transport: relay::Transport::Udp,
        }
    }

    fn enter_relay(&mut self, datagram: &[u8]) {
        let now = self.at();
        match self
            .server
            .handle_client_datagram(now, Self::path(), datagram)
        {
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

    fn enter_client(&mut self, datagram: &[u8]) {
        let received = self.client.handle_datagram(self.now, datagram);
        if let Received::FromPeer { peer, payload } = received {
            self.from_peers.push((peer, payload.to_vec()));
        }
    }

    fn peer_sends(&mut self, from: &str, to: SocketAddr, payload: &[u8]) {
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

    fn settle(&mut self) {
        while let Some(datagram) = self.client.poll_transmit() {
            self.enter_relay(&datagram);
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
    }

    fn pass(&mut self, time: Duration) {
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

    fn send(&mut self, to: &str, payload: &[u8]) -> bool {
        let mut out = Vec::new();
        let encoded = self
            .client
            .encode_to_peer(PeerAddr(addr(to)), payload, &mut out);
        if encoded {
            self.enter_relay(&out);
        }
        encoded
    }

    fn permit(&mut self, text: &str) -> bool {
        let permitted = self.client.permit(PeerAddr(addr(text)), self.now);
        self.settle();
        permitted
    }

    fn relayed(&self, family: usize) -> SocketAddr {
        self.client.relayed()[family].0
    }
}

#[test]
fn data_passes_both_ways_over_both_families() {
    let mut world = World::new();
    assert_eq!(world.client.state(), State::Allocated);
    for (family, peer) in [(0, "10.0.0.10:7000"), (1, "[fd00:10::10]:7000")] {
        assert!(world.permit(peer));
        assert!(world.send(peer, b"to the peer"));
        assert_eq!(
            world.to_peers.pop(),
            Some((addr(peer), b"to the peer".to_vec()))
        );
        world.peer_sends(peer, world.relayed(family), b"from the peer");
        let expected = (PeerAddr(addr(peer)), b"from the peer".to_vec());
        assert_eq!(world.from_peers.pop(), Some(expected));
    }
    // A port of the same address that has no channel: in a Data indication.
    world.peer_sends("10.0.0.10:7001", world.relayed(0), b"odd");
    assert_eq!(
        world.from_peers,
        [(PeerAddr(addr("10.0.0.10:7001")), b"odd".to_vec())]
    );
    // An address that nobody permitted does not get through.
    world.peer_sends("10.0.0.11:7000", world.relayed(0), b"stranger");
    assert_eq!(world.from_peers.len(), 1);
}

#[test]
fn it_stands_for_a_day_while_the_credential_is_renewed() {
    let mut world = World::new();
    world.permit("10.0.0.10:7000");
    world.events.clear();
    let relayed = world.client.relayed().to_vec();
    for hour in 1..=24u64 {
        world.pass(Duration::from_secs(1_800));
        let fresh = credential(EPOCH + hour * 3_600 + 1_800);
        world.client.set_credential(fresh, world.now);
        world.pass(Duration::from_secs(1_800));
        assert!(world.send("10.0.0.10:7000", b"still there"));
        assert!(world.to_peers.pop().is_some(), "hour {hour}");
    }
    assert_eq!(
        (world.client.relayed(), &world.events[..]),
        (&relayed[..], &[][..])
    );
}

#[test]
fn a_restarted_relay_is_noticed_and_used_again() {
    let mut world = World::new();
    world.permit("10.0.0.10:7000");
    world.events.clear();
    world.server = server(2, world.now);
    world.sockets.clear();
    world.pass(Duration::from_secs(3));
    assert!(
        matches!(
            &world.events[..],
            [
                Event::Lost {
                    reason: LostReason::Mismatch
                },
                Event::Allocated { .. }
            ]
        ),
        "{:?}",
        world.events
    );
    assert!(world.permit("10.0.0.10:7000") && world.send("10.0.0.10:7000", b"again"));
    assert_eq!(world.to_peers.len(), 1);
}

#[test]
fn a_peer_that_the_relay_denies_is_not_reached() {
    let mut world = World::new();
    world.events.clear();
    assert!(world.permit("192.0.2.1:7000"));
    assert!(!world.send("192.0.2.1:7000", b"out"));
    assert_eq!(
        (world.to_peers.len(), world.client.stats().forbidden),
        (0, 1)
    );
    assert_eq!(world.events, []);
}

#[test]
fn an_expired_credential_is_asked_for_at_the_next_allocation() {
    let mut world = World::new();
    world.pass(Duration::from_secs(2 * 3_600));
    assert_eq!(
        world.client.state(),
        State::Allocated,
        "what stands, stands"
    );
    world.events.clear();
    world.server = server(3, world.now);
    world.sockets.clear();
    world.pass(Duration::from_secs(4));
    assert!(
        world.events.contains(&Event::NeedCredential),
        "{:?}",
        world.events
    );
    world
        .client
        .set_credential(credential(EPOCH + 3 * 3_600), world.now);
    world.settle();
    assert_eq!(world.client.state(), State::Allocated);
}

#[test]
fn a_closed_allocation_is_gone_from_the_relay() {
    let mut world = World::new();
    assert_eq!(world.sockets.len(), 2);
    world.client.close(world.now);
    world.settle();
    assert_eq!(world.sockets.len(), 0);
}
