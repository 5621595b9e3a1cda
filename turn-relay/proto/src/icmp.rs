//! ICMP errors about what was sent to a peer, told to the client
//! ([RFC 8656 section 11.5](https://www.rfc-editor.org/rfc/rfc8656#section-11.5)).

use crate::request::answer::Answer;
use crate::{Family, Now, RelayId, Server};
use model::PeerAddr;
use std::time::{Duration, Instant};
use stun_types::message::TransactionId;

/// On average an allocation's client is told this often at most …
const INTERVAL: Duration = Duration::from_millis(100);
/// … and of so many at once. Section 11.5 leaves it to the server; one error per datagram helps nobody.
const AT_ONCE: u32 = 8;

/// An ICMP error as it arrived, of the family of the relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    pub kind: u8,
    pub code: u8,
    /// The MTU of the next hop, if the error is about that; otherwise 0.
    pub data: u32,
}

impl Icmp {
    /// "Fragmentation Needed" (RFC 792, RFC 1191) or "Packet Too Big" (RFC 4443 section 3.2).
    pub fn too_big(family: Family, mtu: u32) -> Self {
        let (kind, code) = match family {
            Family::V4 => (3, 4),
            Family::V6 => (2, 0),
        };
        let data = mtu;
        Self { kind, code, data }
    }

    /// Destination unreachable and time exceeded, and for IPv6 packet too big.
    fn is_relayed(self, family: Family) -> bool {
        match family {
            Family::V4 => matches!(self.kind, 3 | 11),
            Family::V6 => matches!(self.kind, 1..=3),
        }
    }
}

/// How often a client was told of late.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IcmpLimit {
    /// When it would be even again at one per interval.
    even_at: Option<Instant>,
}

impl IcmpLimit {
    fn allows(&mut self, now: Instant) -> bool {
        let even_at = self.even_at.map_or(now, |at| at.max(now));
        let allowed = even_at < now + INTERVAL * AT_ONCE;
        if allowed {
            self.even_at = Some(even_at + INTERVAL);
        }
        allowed
    }
}

impl Server {
    /// An ICMP error about a datagram from `relay` to `peer`, as the kernel that received it says. Told to the client in a
    /// Data indication if the peer has permission, and not too often; otherwise counted.
    pub fn handle_peer_icmp(&mut self, now: Now, relay: RelayId, peer: PeerAddr, icmp: Icmp) {
        let path = self.table.get_mut(relay.allocation).and_then(|allocation| {
            let wanted = allocation.relay(relay.family).is_some()
                && icmp.is_relayed(relay.family)
                && Family::of(peer.0) == relay.family
                && allocation
                    .permissions
                    .is_permitted(peer.0.ip(), now.instant)
                && allocation.icmp.allows(now.instant);
            wanted.then_some(allocation.path)
        });
        let Some(path) = path else {
            self.stats.icmp_ignored += 1;
            return;
        };
        self.stats.icmp_relayed += 1;
        let mut id = [0; 16];
        id[4..].copy_from_slice(&self.random.transaction());
        let transaction = TransactionId::from(u128::from_be_bytes(id));
        let indication = Answer::icmp_indication(transaction, peer.0, icmp);
        self.answer(path, indication.unsigned_within(usize::MAX));
    }
}
