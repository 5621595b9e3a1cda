//! A relay in virtual time, and clients whose messages are written and read by `stun-types`, not by the code under test.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::needless_pass_by_value
)]

mod client;
mod shards;

use model::{ClientAddr, PeerAddr, ServerAddr, UnixTime};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stun_types::attribute::{
    AttributeFromRaw, AttributeStaticType, AttributeWrite, ErrorCode, Nonce, PasswordAlgorithm,
    PasswordAlgorithmValue, PasswordAlgorithms, Realm, Username,
};
use stun_types::message::{
    IntegrityAlgorithm, LongTermCredentials, Message, MessageIntegrityCredentials, MessageWrite,
    MessageWriteExt, MessageWriteVec, Method, TransactionId,
};
use turn_relay_proto::{
    Burst, Credentials, DropReason, Extensions, FiveTuple, Limits, Now, OpenError, Output,
    PeerConnectionId, PeerPolicy, PeerRules, Realms, RelayAddress, RelayId, Server, ServerConfig,
    ShardMessage, Shared, Stats, Transport, UsageLimits, Verdict,
};
use turn_types::attribute::{ChannelNumber, RequestedTransport, XorPeerAddress, XorRelayedAddress};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION};

#[allow(unused_imports)]
pub use client::Client;

pub const REALM: &str = "west";
/// 2026-01-01.
pub const DATE: UnixTime = UnixTime(1_767_225_600);

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub fn server_addr() -> SocketAddr {
    addr("203.0.113.12:3478")
}

/// Everything a test may want to be otherwise.
pub struct Setup {
    pub relay_addresses: Vec<&'static str>,
    pub advertised: Vec<&'static str>,
    pub ports: std::ops::RangeInclusive<u16>,
    pub limits: Limits,
    pub secrets: Vec<&'static str>,
    pub allow: Vec<&'static str>,
    pub deny: Vec<&'static str>,
    /// With `per_user` in the place of its own.
    pub usage: UsageLimits,
    pub per_user: u32,
    pub short_cut: bool,
    pub extensions: Extensions,
    /// Instead of relay addresses.
    pub networks: Vec<&'static str>,
    /// Beside the one that is called [`REALM`].
    pub others: fn(&Shared) -> Vec<turn_relay_proto::Realm>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            relay_addresses: vec!["10.0.0.2", "fd00:10::2"],
            advertised: vec!["10.0.0.2", "fd00:10::2"],
            ports: 50_000..=50_999,
            limits: Limits::default(),
            secrets: vec!["first secret", "second secret"],
            allow: vec!["10.0.0.0/24", "fd00:10::/64"],
            deny: Vec::new(),
            usage: UsageLimits::default(),
            per_user: 100,
            short_cut: true,
            extensions: Extensions::default(),
            networks: Vec::new(),
            others: |_| Vec::new(),
        }
    }
}

/// The same with other users in the only realm.
pub fn with_credentials(config: &mut ServerConfig, credentials: Credentials) {
    let policy = config.realms.first().peer_policy.clone();
    let realm = turn_relay_proto::Realm::new(&config.shared, Arc::new(credentials), policy);
    config.realms = Arc::new(Realms::from(realm));
}

/// The same with other settings of the only realm.
pub fn change_realm(config: &mut ServerConfig, change: impl FnOnce(&mut turn_relay_proto::Realm)) {
    let mut realm = (**config.realms.first()).clone();
    change(&mut realm);
    config.realms = Arc::new(Realms::from(realm));
}

/// A server with its shell played by the test.
pub struct Relay {
    pub server: Server,
    /// What it was made from.
    pub config: ServerConfig,
    pub now: Now,
    pub started: Instant,
    /// The sockets that a shell would have.
    pub open: BTreeMap<SocketAddr, RelayId>,
    /// Ports that some other program has.
    pub busy: BTreeSet<u16>,
    pub opened: usize,
    /// Of `open`, those that listen for TCP.
    pub listening: BTreeSet<SocketAddr>,
    /// What the shell was told about connections with peers, in order.
    pub peer_outputs: Vec<Output>,
    /// About whom the site was asked.
    pub asked: Vec<String>,
    pub ended: Vec<turn_relay_proto::Ended>,
    answers: Vec<(SocketAddr, Vec<u8>)>,
    /// For other shards: to which, what, and the sockets that go with it.
    pub letters: Vec<(u16, ShardMessage, Vec<SocketAddr>)>,
}

/// What a datagram led to, without borrowing it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    ToPeer {
        from: SocketAddr,
        peer: SocketAddr,
        payload: Vec<u8>,
    },
    /// Not to be fragmented.
    ToPeerWhole {
        from: SocketAddr,
        peer: SocketAddr,
        payload: Vec<u8>,
    },
    ToClient {
        client: SocketAddr,
        bytes: Vec<u8>,
    },
    Answer(Vec<u8>),
    Nothing,
    Dropped(DropReason),
}

impl Relay {
    pub fn new() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        Self::shards(1, setup).remove(0)
    }

    /// Several shards of one process.
    pub fn shards(count: usize, setup: Setup) -> Vec<Self> {
        let mut credentials = Credentials::new(REALM);
        credentials.add_user("alice", "wonderland");
        credentials.add_user("bob", "builder");
        for secret in &setup.secrets {
            credentials.add_secret(secret.as_bytes());
        }
        let addresses = setup.relay_addresses.iter().zip(&setup.advertised);
        let addresses = addresses.map(|(bind, advertised)| RelayAddress {
            bind: bind.parse().unwrap(),
            advertised: advertised.parse().unwrap(),
        });
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let started = Instant::now();
        let shared = if setup.networks.is_empty() {
            Shared::new(addresses.collect(), &setup.ports, setup.per_user)
        } else {
            let networks = setup.networks.iter().map(|n| n.parse().unwrap());
            Shared::of_networks(networks.collect(), setup.per_user)
        };
        shared.set_limits(UsageLimits {
            allocations_per_user: setup.per_user,
            ..setup.usage
        });
        let shared = Arc::new(shared);
        let credentials = Arc::new(credentials);
        let peer_policy = Arc::new(PeerPolicy::from(PeerRules {
            allow: rules(&setup.allow),
            deny: rules(&setup.deny),
            own: vec![server_addr()],
            ..PeerRules::default()
        }));
        let first = turn_relay_proto::Realm::new(&shared, credentials, peer_policy);
        let realms = Arc::new(Realms::new(first, (setup.others)(&shared)));
        let of_shard = |shard: usize| {
            let config = ServerConfig {
                shared: shared.clone(),
                limits: setup.limits,
                software: "test".into(),
                realms: realms.clone(),
                relay_port: (!setup.networks.is_empty()).then_some(50_000 + 2 * shard as u16),
                short_cut: setup.short_cut,
                extensions: setup.extensions.clone(),
                nonce_key: [1; 32],
                seed: [2 + shard as u8; 32],
            };
            Self {
                server: Server::new(config.clone(), started),
                config,
                now: Now {
                    instant: started + Duration::from_secs(10),
                    unix: DATE,
                },
                started,
                open: BTreeMap::new(),
                busy: BTreeSet::new(),
                opened: 0,
                listening: BTreeSet::new(),
                peer_outputs: Vec::new(),
                asked: Vec::new(),
                ended: Vec::new(),
                answers: Vec::new(),
                letters: Vec::new(),
            }
        };
        let mut shards: Vec<Self> = (0..count).map(of_shard).collect();
        for (number, shard) in (0..).zip(&mut shards) {
            shard.server.set_shard(number);
        }
        shards
    }

    pub fn stats(&self) -> &Stats {
        self.server.stats()
    }

    /// Lets time pass, without anybody doing anything.
    pub fn pass(&mut self, seconds: u64) {
        let until = self.now.instant + Duration::from_secs(seconds);
        while let Some(next) = self.server.poll_timeout().filter(|next| *next <= until) {
            self.server.handle_timeout(next);
            self.drain();
            assert!(self.server.poll_timeout().is_none_or(|after| after > next));
        }
        self.now.instant = until;
        self.now.unix.0 += seconds;
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Answer { path, bytes } => {
                    assert_eq!(path.server.0, server_addr());
                    self.answers.push((path.client.0, bytes));
                }
                Output::OpenRelay { relay, address } => {
                    self.opened += 1;
                    let free = !self.busy.contains(&address.port());
                    let result = if free && self.open.insert(address, relay).is_none() {
                        Ok(())
                    } else {
                        Err(OpenError::PortInUse)
                    };
                    self.server.handle_relay_opened(self.now, relay, result);
                }
                Output::OpenTcpRelay { relay, address } => {
                    let is_new = self.open.insert(address, relay).is_none();
                    assert!(is_new && self.listening.insert(address));
                    self.server.handle_relay_opened(self.now, relay, Ok(()));
                }
                Output::CloseRelay { relay } => self.open.retain(|address, open| {
                    let stays = *open != relay;
                    if !stays {
                        self.listening.remove(address);
                    }
                    stays
                }),
                output @ (Output::Connect { .. }
                | Output::ClosePeer { .. }
                | Output::Join { .. }) => self.peer_outputs.push(output),
                Output::ToShard {
                    shard,
                    message,
                    relays,
                } => self.post(shard, message, &relays),
                Output::LookUp { user } => self.asked.push(user.name.into()),
                Output::Ended(ended) => self.ended.push(*ended),
            }
        }
    }

    /// A datagram from a client.
    pub fn client_sends(&mut self, client: SocketAddr, datagram: &[u8]) -> Outcome {
        self.client_sends_over(Transport::Udp, client, datagram)
    }

    /// Answers and indications that nobody has looked at.
    pub fn take_answers(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut self.answers)
    }

    /// What was asked of the shell about connections with peers since the last time.
    pub fn take_peer_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.peer_outputs)
    }

    /// How a connection to a peer went.
    pub fn connected(&mut self, relay: RelayId, connection: PeerConnectionId, up: bool) -> bool {
        let server = &mut self.server;
        let wanted = server.handle_peer_connected(self.now, relay, connection, up);
        self.drain();
        wanted
    }

    /// A peer connects to a relayed address.
    pub fn peer_connects(&mut self, peer: &str, relayed: SocketAddr) -> Option<PeerConnectionId> {
        assert!(self.listening.contains(&relayed));
        let relay = self.open[&relayed];
        let server = &mut self.server;
        let connection = server.handle_peer_accepted(self.now, relay, PeerAddr(addr(peer)));
        self.drain();
        connection
    }

    /// A client's connection ends.
    pub fn client_disconnects(&mut self, transport: Transport, client: SocketAddr) {
        let path = path(transport, client);
        self.server.handle_connection_closed(self.now, path);
        self.drain();
    }

    /// A message from a client.
    pub fn client_sends_over(
        &mut self,
        transport: Transport,
        client: SocketAddr,
        datagram: &[u8],
    ) -> Outcome {
        let path = path(transport, client);
        let verdict = self.server.handle_client_datagram(self.now, path, datagram);
        let outcome = own(&self.open, verdict);
        self.drain();
        match self.answers.pop() {
            Some((to, bytes)) => {
                assert_eq!(outcome, Outcome::Nothing);
                assert_eq!(to, client);
                assert!(self.answers.is_empty(), "one answer at most");
                Outcome::Answer(bytes)
            }
            None => outcome,
        }
    }

    /// What the kernel joined, from a client.
    pub fn client_sends_burst(&mut self, client: SocketAddr, burst: Burst<'_>) -> Vec<Outcome> {
        let path = FiveTuple {
            client: ClientAddr(client),
            server: ServerAddr(server_addr()),
            transport: Transport::Udp,
        };
        let mut outcomes = Vec::new();
        let mut rest = Some(burst);
        while let Some(burst) = rest {
            let (verdict, count) = self.server.handle_client_burst(self.now, path, burst);
            outcomes.extend(own_all(&self.open, verdict, burst, count));
            rest = burst.after(count);
        }
        self.drain();
        let answers = std::mem::take(&mut self.answers);
        outcomes.extend(answers.into_iter().map(|(_, bytes)| Outcome::Answer(bytes)));
        outcomes
    }

    /// What the kernel joined, from a peer.
    pub fn peer_sends_burst(
        &mut self,
        peer: SocketAddr,
        relayed: SocketAddr,
        burst: Burst<'_>,
    ) -> Vec<Outcome> {
        let relay = self.open[&relayed];
        let mut outcomes = Vec::new();
        let mut rest = Some(burst);
        while let Some(burst) = rest {
            let (verdict, count) =
                self.server
                    .handle_peer_burst(self.now, relay, PeerAddr(peer), burst);
            outcomes.extend(own_all(&self.open, verdict, burst, count));
            rest = burst.after(count);
        }
        outcomes
    }

    /// A datagram from a peer to a relayed address.
    pub fn peer_sends(&mut self, peer: &str, relayed: SocketAddr, payload: &[u8]) -> Outcome {
        let relay = self.open[&relayed];
        let verdict =
            self.server
                .handle_peer_datagram(self.now, relay, PeerAddr(addr(peer)), payload);
        own(&self.open, verdict)
    }
}

fn path(transport: Transport, client: SocketAddr) -> FiveTuple {
    FiveTuple {
        client: ClientAddr(client),
        server: ServerAddr(server_addr()),
        transport,
    }
}

/// A verdict about so many datagrams as one for each.
fn own_all(
    open: &BTreeMap<SocketAddr, RelayId>,
    verdict: Verdict<'_>,
    burst: Burst<'_>,
    count: usize,
) -> Vec<Outcome> {
    let payload = match verdict {
        Verdict::ToPeer { payload, .. } | Verdict::ToClient { payload, .. } => payload,
        other => return (0..count).map(|_| own(open, other)).collect(),
    };
    let payloads = burst.payloads(payload, count).unwrap();
    assert_eq!(payloads.count(), count);
    payloads
        .iter()
        .map(|each| {
            let mut verdict = verdict;
            if let Verdict::ToPeer { payload, .. } | Verdict::ToClient { payload, .. } =
                &mut verdict
            {
                *payload = each;
            }
            own(open, verdict)
        })
        .collect()
}

fn own(open: &BTreeMap<SocketAddr, RelayId>, verdict: Verdict<'_>) -> Outcome {
    match verdict {
        Verdict::ToPeer {
            relay,
            peer,
            payload,
            dont_fragment,
        } => {
            let from = *open.iter().find(|(_, id)| **id == relay).unwrap().0;
            let (peer, payload) = (peer.0, payload.to_vec());
            if dont_fragment {
                Outcome::ToPeerWhole {
                    from,
                    peer,
                    payload,
                }
            } else {
                Outcome::ToPeer {
                    from,
                    peer,
                    payload,
                }
            }
        }
        Verdict::ToClient {
            path,
            prefix,
            payload,
            padding,
        } => {
            let mut bytes = prefix.as_bytes().to_vec();
            bytes.extend(payload);
            bytes.resize(bytes.len() + usize::from(padding), 0);
            Outcome::ToClient {
                client: path.client.0,
                bytes,
            }
        }
        Verdict::Handled => Outcome::Nothing,
        Verdict::Dropped(reason) => Outcome::Dropped(reason),
    }
}

/// An answer, checked: FINGERPRINT and integrity are right, and it is to the request.
#[derive(Debug)]
pub struct Answer(pub Vec<u8>);

impl Answer {
    pub fn message(&self) -> Message<'_> {
        Message::from_bytes(&self.0).unwrap()
    }

    /// The error code; 0 for success.
    pub fn code(&self) -> u16 {
        self.get::<ErrorCode>().map_or(0, |error| error.code())
    }

    pub fn get<A>(&self) -> Option<A>
    where
        A: for<'a> AttributeFromRaw<'a> + AttributeStaticType,
    {
        self.message().attribute::<A>().ok()
    }

    pub fn relayed(&self) -> Vec<SocketAddr> {
        let message = self.message();
        let id = message.transaction_id();
        (0..2)
            .filter_map(|n| message.nth_attribute::<XorRelayedAddress>(n).ok())
            .map(|relayed| relayed.addr(id))
            .collect()
    }
}
