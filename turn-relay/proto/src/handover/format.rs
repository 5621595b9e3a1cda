//! How state is written: Protocol Buffers, so that a later version can add fields, and read what an earlier one wrote.
//! Numbers are never used again for something else. Times are microseconds from the moment of the export.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// No lifetime is longer: what lies farther away was never written by a relay.
const FARTHEST: Duration = Duration::from_secs(24 * 3_600);

/// One shard.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Shard {
    #[prost(message, repeated, tag = "1")]
    pub(super) allocations: Vec<Allocation>,
    /// Ports that wait for a second Allocate request.
    #[prost(message, repeated, tag = "2")]
    pub(super) reservations: Vec<Reservation>,
    /// Ports at rest, of all shards: written by each, taken from the first.
    #[prost(message, repeated, tag = "3")]
    pub(super) resting: Vec<Port>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Allocation {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) client: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) server: Vec<u8>,
    /// 0 is UDP, 1 is TCP. Nothing else can be handed over.
    #[prost(uint32, tag = "3")]
    pub(super) transport: u32,
    #[prost(uint32, tag = "4")]
    pub(super) connection: u32,
    #[prost(string, tag = "5")]
    pub(super) user: String,
    /// 96 bits, in 16 bytes.
    #[prost(bytes = "vec", tag = "6")]
    pub(super) transaction: Vec<u8>,
    #[prost(message, repeated, tag = "7")]
    pub(super) relays: Vec<Port>,
    #[prost(uint32, tag = "8")]
    pub(super) lifetime_seconds: u32,
    #[prost(fixed64, optional, tag = "9")]
    pub(super) reservation: Option<u64>,
    /// 0 is none, otherwise the family (1 or 2, RFC 8656 section 18.5) times 1 000 and the code.
    #[prost(uint32, tag = "10")]
    pub(super) address_error: u32,
    #[prost(message, repeated, tag = "11")]
    pub(super) permissions: Vec<Permission>,
    #[prost(message, repeated, tag = "12")]
    pub(super) channels: Vec<Channel>,
    /// The whole user name, where that says more than `user`.
    #[prost(string, optional, tag = "13")]
    pub(super) credential: Option<String>,
    #[prost(message, optional, tag = "14")]
    pub(super) session: Option<Session>,
    /// If it is not the first one.
    #[prost(string, optional, tag = "15")]
    pub(super) realm: Option<String>,
    #[prost(message, optional, tag = "20")]
    pub(super) counters: Option<Counters>,
}

/// A third-party token.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Session {
    #[prost(string, tag = "1")]
    pub(super) kid: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) key: Vec<u8>,
    /// Unix time.
    #[prost(uint64, tag = "3")]
    pub(super) expires: u64,
}

/// What an allocation was used for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Counters {
    /// Microseconds since it was made, and since its user's usage was told.
    #[prost(uint64, tag = "1")]
    pub(super) age: u64,
    #[prost(uint64, tag = "2")]
    pub(super) told_age: u64,
    /// Packets and bytes to peers, packets and bytes to the client; then the same as far as it was told.
    #[prost(uint64, repeated, tag = "3")]
    pub(super) traffic: Vec<u64>,
    /// Permissions that were installed.
    #[prost(uint32, tag = "4")]
    pub(super) permissions: u32,
}

/// A relayed address, a reserved or a resting one, and when that ends.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Port {
    /// What its socket is bound to.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) address: Vec<u8>,
    #[prost(sint64, tag = "2")]
    pub(super) until: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Reservation {
    #[prost(fixed64, tag = "1")]
    pub(super) token: u64,
    #[prost(message, optional, tag = "2")]
    pub(super) port: Option<Port>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Permission {
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ip: Vec<u8>,
    #[prost(sint64, tag = "2")]
    pub(super) until: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Channel {
    #[prost(uint32, tag = "1")]
    pub(super) number: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) peer: Vec<u8>,
    #[prost(sint64, tag = "3")]
    pub(super) until: i64,
    #[prost(sint64, tag = "4")]
    pub(super) permitted_until: i64,
}

pub(super) fn ip(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// The address, then the port.
pub(super) fn address(address: SocketAddr) -> Vec<u8> {
    let mut bytes = ip(address.ip());
    bytes.extend(address.port().to_be_bytes());
    bytes
}

pub(super) fn read_address(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    Some(SocketAddr::new(read_ip(ip)?, u16::from_be_bytes(*port)))
}

/// How far `time` is from `now`, which may be after it.
pub(super) fn time(time: Instant, now: Instant) -> i64 {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    match time.checked_duration_since(now) {
        Some(ahead) => micros(ahead),
        None => -micros(now.saturating_duration_since(time)),
    }
}

pub(super) fn read_time(micros: i64, now: Instant) -> Option<Instant> {
    let distance = Duration::from_micros(micros.unsigned_abs());
    if distance > FARTHEST {
        return None;
    }
    if micros >= 0 {
        now.checked_add(distance)
    } else {
        // Before the machine started is long ago as well.
        Some(now.checked_sub(distance).unwrap_or(now))
    }
}
