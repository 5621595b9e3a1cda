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
    /// The latest end that any of its relayed addresses has; nothing without allocation.
    pub(super) expires: Option<Instant>,
    /// Told to the client.
    pub(super) relayed: Vec<SocketAddr>,
    permissions: Vec<(IpAddr, Instant)>,
    channels: Vec<(u16, SocketAddr, Instant)>,
    /// Whether both families end together, so that `expires` is the end of each.
    whole: bool,
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
                    assert!(relayed.iter().all(|address| self.relayed.contains(address)));
                    assert!(!self.whole || relayed.len() == self.relayed.len());
                    return;
                }
                *self = Self {
                    expires: Some(now + lifetime),
                    relayed,
                    whole: true,
                    ..Self::default()
                };
            }
            request::REFRESH => {
                let lifetime = seconds().expect("LIFETIME in a success response");
                let of_one = request.get(request::REQUESTED_ADDRESS_FAMILY).is_some();
                if of_one && self.relayed.len() > 1 {
                    self.whole = false;
                    self.expires = self.expires.max(Some(now + lifetime));
                } else if lifetime.is_zero() {
                    *self = Self::default();
                } else if self.whole {
                    self.expires = Some(now + lifetime);
                } else {
                    self.expires = self.expires.max(Some(now + lifetime));
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

    pub(super) fn is_alive(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires > now)
    }

    /// Whether data to and from this address may pass.
    pub(super) fn permits(&self, ip: IpAddr, now: Instant) -> bool {
        let mut permissions = self.permissions.iter();
        self.is_alive(now) && permissions.any(|(known, until)| *known == ip && *until > now)
    }

    /// The peer of a channel that must work: bound, and of an allocation that certainly lives.
    pub(super) fn works(&self, channel: u16, now: Instant) -> Option<SocketAddr> {
        let lives = self.whole && self.is_alive(now);
        self.peer(channel, now).filter(|_| lives)
    }

    /// The peer of a channel that is bound.
    pub(super) fn peer(&self, channel: u16, now: Instant) -> Option<SocketAddr> {
        let mut channels = self.channels.iter();
        let bound = channels.find(|(number, _, until)| *number == channel && *until > now);
        bound.map(|(_, peer, _)| *peer)
    }
}
