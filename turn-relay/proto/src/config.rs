//! What a server is made from.

use crate::{AnswerLimits, Family, Realm, Realms, Shared, Transport};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// An address that relayed transport addresses are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayAddress {
    /// What sockets are bound to.
    pub bind: IpAddr,
    /// What clients are told: differs behind a one-to-one NAT. Of the same family.
    pub advertised: IpAddr,
}

/// Bounds of one server (one shard of a process).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Allocations at a time; beyond it 508.
    pub allocations: usize,
    /// Permissions per allocation; beyond it 508.
    pub permissions: usize,
    /// TCP connections with peers (RFC 6062), of all shards together; beyond it 508. With 0 an Allocate for them gets 442.
    pub peer_connections: usize,
    /// Of them, those of one allocation; beyond it 508.
    pub peer_connections_per_allocation: usize,
    /// Lifetime of an allocation whose client asks for less or nothing (RFC 8656 section 3.2: 600 s).
    pub default_lifetime: Duration,
    /// Longest lifetime granted (RFC 8656 section 7.2 recommends 3600 s).
    pub max_lifetime: Duration,
    /// How long a nonce is good for (RFC 8656 section 5: at most an hour).
    pub nonce_lifetime: Duration,
    /// Answers to the unauthenticated over UDP.
    pub answers: AnswerLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: 65_536,
            permissions: 8_192,
            peer_connections: 16_384,
            peer_connections_per_allocation: 64,
            default_lifetime: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(3_600),
            nonce_lifetime: Duration::from_secs(3_600),
            answers: AnswerLimits::default(),
        }
    }
}

impl Limits {
    /// The lifetime granted to a client of a realm that asks for so many seconds, or for nothing (RFC 8656 section 7.2).
    pub(crate) fn grant(&self, asked: Option<u32>, realm: &Realm) -> Duration {
        let asked = Duration::from_secs(u64::from(asked.unwrap_or(0)));
        let most = realm.max_lifetime.unwrap_or(self.max_lifetime);
        asked.min(most).max(self.default_lifetime)
    }
}

/// Another server that clients may be sent to
/// ([RFC 8489 section 10](https://www.rfc-editor.org/rfc/rfc8489#section-10)). They keep their transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alternate {
    pub transport: AlternateTransport,
    pub address: SocketAddr,
}

/// What is between client and server, without saying which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlternateTransport {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

impl AlternateTransport {
    pub(crate) fn of(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp(_) => Self::Tcp,
            Transport::Tls(_) => Self::Tls,
            Transport::Dtls(_) => Self::Dtls,
        }
    }
}

impl Alternate {
    /// Whether a client over `transport`, at an address of `family`, can go there: section 10 wants the same family.
    pub(crate) fn is_for(&self, transport: Transport, family: Family) -> bool {
        self.transport == AlternateTransport::of(transport) && Family::of(self.address) == family
    }
}

/// Two addresses of this server, with different IP addresses and ports, so that a client can find out what its NAT does
/// ([RFC 5780](https://www.rfc-editor.org/rfc/rfc5780)). Over UDP the shell listens on all four combinations of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatDiscovery {
    pub primary: SocketAddr,
    /// Of the same family.
    pub alternate: SocketAddr,
}

impl NatDiscovery {
    /// The address with the other IP address and port, if `server` is one of the four.
    pub(crate) fn other(&self, server: SocketAddr) -> Option<SocketAddr> {
        let (a, b) = (self.primary, self.alternate);
        let ip = match server.ip() {
            ip if ip == a.ip() => b.ip(),
            ip if ip == b.ip() => a.ip(),
            _ => return None,
        };
        let port = match server.port() {
            port if port == a.port() => b.port(),
            port if port == b.port() => a.port(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }
}

/// What may be switched on beyond RFC 8656. All of it is off by default.
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    /// Where a client is sent whose new allocation has no room here, or that comes during a drain. Without one for its
    /// transport and family it hears 508.
    pub alternates: Vec<Alternate>,
    /// Whether clients may take an allocation with them to another five-tuple (RFC 8016); otherwise they hear 405.
    pub mobility: bool,
    /// At most one for each family. Answers to Binding requests there are larger than the requests, and may go to another
    /// port of the client: section 9 of RFC 5780.
    pub discovery: Vec<NatDiscovery>,
    /// Whether it is counted what allocations are used for: [`Output::Ended`](crate::Output::Ended) and
    /// [`Server::take_usage`](crate::Server::take_usage).
    pub usage: bool,
}

/// All that a [`Server`](crate::Server) has to know.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The same for all shards.
    pub shared: Arc<Shared>,
    pub limits: Limits,
    /// SOFTWARE in authenticated answers; at most 127 characters.
    pub software: String,
    /// Who may ask, and for what.
    pub realms: Arc<Realms>,
    /// The port of all its relayed addresses, for a shard that tells them apart by address
    /// ([`Shared::of_networks`]); different for each shard, and even, as EVEN-PORT may want it.
    pub relay_port: Option<u16>,
    /// Whether packets between two allocations of this relay go from client to client, without the kernel between them.
    pub short_cut: bool,
    pub extensions: Extensions,
    /// The same for all shards, so that each accepts the others' nonces.
    pub nonce_key: [u8; 32],
    /// For ports and tokens: different for each shard, and secret.
    pub seed: [u8; 32],
}
