//! What a client may expect of the relay, kept as simply as RFC 8656 says it: a list per client, searched from one end to the
//! other.

use super::request::{self, Reader};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);

/// One client's allocation.
#[derive(Debug, Default)]
pub(super) struct Allocation {
    /// Told to the client, each with its end.
    relayed: Vec<(SocketAddr, Instant)>,
    permissions: Vec<(IpAddr, Instant)>,
    channels: Vec<(u16, SocketAddr, Instant)>,
}

impl Allocation {
    /// The relay answered `request` with success.
    pub(super) fn on_success(&mut self, request: Reader<'_>, answer: Reader<'_>, now: Instant) {
        let seconds = || {
            let value = answer.get(request::LIFETIME)?;
            let seconds = u32::from_be_bytes(value.try_into().ok()?);
            Some(Duration::from_secs(u64::from(seconds)))
        };
        let peers = request.addresses(request::XOR_PEER_ADDRESS);
        match request.method() {
            request::ALLOCATE => {
                let lifetime = seconds().expect("LIFETIME in a success response");
                let relayed = answer.addresses(0x16);
                if self.is_alive(now) {
                    // A retransmission: the same answer as before, without what has ended since.
                    assert_eq!(relayed, self.relayed(now).collect::<Vec<_>>());
                    return;
                }
                *self = Self {
                    relayed: relayed.into_iter().map(|a| (a, now + lifetime)).collect(),
                    ..Self::default()
                };
            }
            request::REFRESH => {
                let lifetime = seconds().expect("LIFETIME in a success response");
                let family = request.get(request::REQUESTED_ADDRESS_FAMILY);
                // 1 is IPv4, 2 is IPv6.
                let is_meant = |address: &SocketAddr| {
                    family.is_none_or(|family| family[0] == 1 + u8::from(address.is_ipv6()))
                };
                for (address, end) in &mut self.relayed {
                    // What has ended does not come back.
                    if is_meant(address) && *end > now {
                        *end = now + lifetime;
                    }
                }
                if !self.is_alive(now) {
                    self.end();
                }
            }
            request::CREATE_PERMISSION => {
                for peer in peers {
                    self.permit(peer.ip(), now);
                }
            }
            request::CHANNEL_BIND => {
                let number = request.get(request::CHANNEL_NUMBER);
                let number = number.and_then(|value| value.first_chunk());
                let number = u16::from_be_bytes(*number.expect("CHANNEL-NUMBER"));
                let peer = peers.first().expect("XOR-PEER-ADDRESS");
                self.permit(peer.ip(), now);
                let taken = self
                    .channels
                    .iter()
                    .find(|(n, p, until)| *until > now && ((*n == number) != (p == peer)));
                assert_eq!(taken, None, "one channel per peer and one peer per channel");
                self.channels.retain(|(n, ..)| *n != number);
                self.channels.push((number, *peer, now + CHANNEL));
            }
            _ => {}
        }
    }

    fn permit(&mut self, ip: IpAddr, now: Instant) {
        self.permissions.retain(|(known, _)| *known != ip);
        self.permissions.push((ip, now + PERMISSION));
    }

    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Those that live.
    pub(super) fn relayed(&self, now: Instant) -> impl Iterator<Item = SocketAddr> {
        let living = self.relayed.iter().filter(move |(_, end)| *end > now);
        living.map(|(address, _)| *address)
    }

    pub(super) fn is_alive(&self, now: Instant) -> bool {
        self.relayed(now).next().is_some()
    }

    /// Whether data to and from this address may pass.
    pub(super) fn permits(&self, ip: IpAddr, now: Instant) -> bool {
        let mut permissions = self.permissions.iter();
        self.is_alive(now) && permissions.any(|(known, until)| *known == ip && *until > now)
    }

    /// The peer of a channel that must work: bound, and there is a relayed address that reaches it.
    pub(super) fn works(&self, channel: u16, now: Instant) -> Option<SocketAddr> {
        let peer = self.peer(channel, now)?;
        let mut relayed = self.relayed(now);
        relayed
            .any(|own| own.is_ipv4() == peer.is_ipv4())
            .then_some(peer)
    }

    /// The peer of a channel that is bound.
    pub(super) fn peer(&self, channel: u16, now: Instant) -> Option<SocketAddr> {
        let mut channels = self.channels.iter();
        let bound = channels.find(|(number, _, until)| *number == channel && *until > now);
        bound.map(|(_, peer, _)| *peer)
    }
}
