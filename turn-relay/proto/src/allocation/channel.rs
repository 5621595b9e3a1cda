//! Channels: a number for a peer, so that four bytes of header do
//! ([RFC 8656 section 12](https://www.rfc-editor.org/rfc/rfc8656#section-12)).

use model::PeerAddr;
use rustc_hash::FxHashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Section 12: a binding lasts 10 minutes unless refreshed.
pub(crate) const LIFETIME: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel {
    pub(crate) number: u16,
    pub(crate) peer: PeerAddr,
    pub(crate) expires: Instant,
    /// Copied from the peer's permission, to spare the packet path a second look-up.
    pub(crate) permitted_until: Instant,
}

/// Number or peer belong to another binding already (section 12.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conflict;

/// The channels of one allocation with both their indexes. At most one per channel number.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    channels: Vec<Channel>,
    /// Number and position, sorted: small, and found without hashing.
    by_number: Vec<(u16, u16)>,
    by_peer: FxHashMap<PeerAddr, u16>,
    /// The position that the last packet from a peer led to: packets come in runs.
    last: u16,
}

impl Channels {
    pub(crate) fn len(&self) -> usize {
        self.channels.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter()
    }

    /// The peer that a channel number is bound to now.
    pub(crate) fn by_number(&self, number: u16, now: Instant) -> Option<PeerAddr> {
        let channel = &self.channels[self.position_of_number(number)?];
        (channel.expires > now).then_some(channel.peer)
    }

    /// The binding of a peer, if it has one now.
    pub(crate) fn by_peer(&mut self, peer: PeerAddr, now: Instant) -> Option<&Channel> {
        let hit = self
            .channels
            .get(usize::from(self.last))
            .is_some_and(|channel| channel.peer == peer);
        if !hit {
            self.last = *self.by_peer.get(&peer)?;
        }
        let channel = &self.channels[usize::from(self.last)];
        (channel.expires > now).then_some(channel)
    }

    /// Binds a number to a peer, or refreshes the binding.
    pub(crate) fn bind(
        &mut self,
        number: u16,
        peer: PeerAddr,
        now: Instant,
        permitted_until: Instant,
    ) -> Result<(), Conflict> {
        let taken = |this: &Self| {
            let of_number = this.position_of_number(number);
            let of_peer = this.by_peer.get(&peer).map(|at| usize::from(*at));
            (of_number, of_peer)
        };
        let mut found = taken(self);
        if found.0 != found.1 {
            // What stands in the way may have expired.
            self.sweep(now);
            found = taken(self);
        }
        let channel = Channel {
            number,
            peer,
            expires: now + LIFETIME,
            permitted_until,
        };
        match found {
            (None, None) => self.insert(channel),
            (Some(one), Some(other)) if one == other => self.channels[one] = channel,
            _ => return Err(Conflict),
        }
        Ok(())
    }

    /// One that was bound in another process; whether neither number nor peer are another's.
    pub(crate) fn restore(&mut self, channel: Channel) -> bool {
        let free = self.position_of_number(channel.number).is_none()
            && !self.by_peer.contains_key(&channel.peer);
        if free {
            self.insert(channel);
        }
        free
    }

    /// Tells the channels to this address that its permission was refreshed.
    pub(crate) fn permit(&mut self, ip: IpAddr, until: Instant) {
        for channel in &mut self.channels {
            if channel.peer.0.ip() == ip {
                channel.permitted_until = until;
            }
        }
    }

    /// Forgets those whose time is over.
    pub(crate) fn sweep(&mut self, now: Instant) {
        if self.channels.iter().all(|channel| channel.expires > now) {
            return;
        }
        let kept = std::mem::take(self).channels;
        for channel in kept.into_iter().filter(|channel| channel.expires > now) {
            self.insert(channel);
        }
    }

    /// Forgets those to other peers. Returns how many.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(PeerAddr) -> bool) -> usize {
        let held = self.channels.len();
        if self.channels.iter().all(|channel| keep(channel.peer)) {
            return 0;
        }
        let all = std::mem::take(self).channels;
        for channel in all.into_iter().filter(|channel| keep(channel.peer)) {
            self.insert(channel);
        }
        held - self.channels.len()
    }

    fn position_of_number(&self, number: u16) -> Option<usize> {
        let found = self.by_number.binary_search_by_key(&number, |(n, _)| *n);
        found.ok().map(|at| usize::from(self.by_number[at].1))
    }

    fn insert(&mut self, channel: Channel) {
        // Numbers are 16 bits wide and unique, so positions fit as well.
        let position = self.channels.len() as u16;
        let at = self.by_number.partition_point(|(n, _)| *n < channel.number);
        self.by_number.insert(at, (channel.number, position));
        self.by_peer.insert(channel.peer, position);
        self.channels.push(channel);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn peer(port: u16) -> PeerAddr {
        PeerAddr(([10, 0, 0, 5], port).into())
    }

    proptest! {
        /// Against a model of two plain maps.
        #[test]
        fn both_indexes_agree_whatever_is_bound_and_expires(
            steps in prop::collection::vec((0u16..6, 1u16..6, 0u64..400), 1..60),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut channels = Channels::default();
            let mut model: BTreeMap<u16, (u16, Instant)> = BTreeMap::new();
            for (number, port, wait) in steps {
                now += Duration::from_secs(wait);
                model.retain(|_, (_, expires)| *expires > now);
                let free = model.iter().all(|(n, (p, _))| (*n == number) == (*p == port));
                let bound = channels.bind(0x4000 + number, peer(port), now, now);
                prop_assert_eq!(bound.is_ok(), free);
                if free {
                    model.insert(number, (port, now + LIFETIME));
                }
                for n in 0..6 {
                    let expected = model.get(&n).map(|(p, _)| peer(*p));
                    prop_assert_eq!(channels.by_number(0x4000 + n, now), expected);
                }
                for p in 1..6 {
                    let expected = model.iter().find(|(_, (q, _))| *q == p).map(|(n, _)| 0x4000 + n);
                    let found = channels.by_peer(peer(p), now).map(|channel| channel.number);
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
