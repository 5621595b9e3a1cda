//! The peers we were told to let through: one permission per IP address, one channel per transport address
//! ([RFC 8656 sections 9 and 12](https://www.rfc-editor.org/rfc/rfc8656#section-9)). Owns every index of them.

mod slot;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use model::PeerAddr;
use wire::channel_data::{FIRST_CHANNEL, LAST_CHANNEL};

use slot::{Channel, Permission, Slot};

/// As many peers as there are channel numbers.
pub const MAX_PEERS: usize = (LAST_CHANNEL - FIRST_CHANNEL) as usize + 1;

/// What a ChannelBind is good for (RFC 8656 section 12).
const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// How a packet gets to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// In ChannelData with this number.
    Channel(u16),
    /// In a Send indication.
    Indication,
    /// Not at all.
    Nowhere,
}

/// What to ask the relay for after a peer was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Added {
    pub(crate) index: u16,
    pub(crate) ask_permission: bool,
    pub(crate) bind_channel: bool,
    /// The permission was there already, and nobody was told of this peer yet.
    pub(crate) ready: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Peers {
    slots: Vec<Option<Slot>>,
    by_address: BTreeMap<PeerAddr, u16>,
    permissions: BTreeMap<IpAddr, Permission>,
    /// The peer of the last packet: bulk traffic goes to one peer many times in a row.
    last: Option<(PeerAddr, u16)>,
}

impl Peers {
    /// Lets a peer in; `None` when all numbers are taken.
    pub(crate) fn add(&mut self, peer: PeerAddr, now: Instant) -> Option<Added> {
        let known = self.by_address.get(&peer).copied();
        let index = match known {
            Some(index) => index,
            None => self.free_slot(peer, now)?,
        };
        let slot = self.slots[usize::from(index)].as_mut()?;
        slot.orphaned = false;
        let bind_channel = known.is_none() || slot.released;
        if !bind_channel {
            return Some(Added {
                index,
                ask_permission: false,
                bind_channel,
                ready: false,
            });
        }
        slot.released = false;
        let entry = self.permissions.entry(peer.0.ip());
        let permission = entry.or_insert(Permission {
            peers: 0,
            granted: false,
            forbidden: false,
            due: None,
        });
        permission.peers += 1;
        let ready = permission.granted;
        slot.ready = ready;
        let ask_permission = permission.peers == 1 && !permission.granted;
        Some(Added {
            index,
            ask_permission,
            bind_channel,
            ready,
        })
    }

    fn free_slot(&mut self, peer: PeerAddr, now: Instant) -> Option<u16> {
        let slot = Slot::new(peer);
        let index = if self.slots.len() < MAX_PEERS {
            self.slots.push(None);
            self.slots.len() - 1
        } else {
            self.slots
                .iter()
                .position(|slot| slot.as_ref().is_none_or(|s| s.reusable(now)))?
        };
        if let Some(old) = self.slots[index].replace(slot) {
            self.by_address.remove(&old.peer);
            self.last = None;
        }
        self.by_address.insert(peer, index as u16);
        Some(index as u16)
    }

    /// Nobody needs this peer any more: nothing of it is refreshed.
    pub(crate) fn release(&mut self, peer: PeerAddr) {
        let Some(&index) = self.by_address.get(&peer) else {
            return;
        };
        let Some(slot) = &mut self.slots[usize::from(index)] else {
            return;
        };
        if slot.released {
            return;
        }
        slot.released = true;
        slot.channel = Channel::Unbound;
        slot.due = None;
        slot.ready = false;
        if self.last.is_some_and(|(last, _)| last == peer) {
            self.last = None;
        }
        let ip = peer.0.ip();
        if let Some(permission) = self.permissions.get_mut(&ip) {
            permission.peers -= 1;
            if permission.peers == 0 {
                self.permissions.remove(&ip);
            }
        }
    }

    /// How to send to `peer` now.
    pub(crate) fn route(&mut self, peer: PeerAddr) -> Route {
        let found = match self.last {
            Some((last, index)) if last == peer => Some(index),
            _ => self.by_address.get(&peer).copied(),
        };
        let slot = found
            .and_then(|index| Some((index, self.slots[usize::from(index)].as_mut()?)))
            .filter(|(_, slot)| !slot.released);
        if let Some((index, slot)) = slot {
            slot.used = true;
            if slot.channel == Channel::Bound {
                self.last = Some((peer, index));
                return Route::Channel(FIRST_CHANNEL + index);
            }
            let permission = self.permissions.get(&peer.0.ip());
            return match permission {
                Some(permission) if permission.forbidden => Route::Nowhere,
                // The request for its permission was made before: the relay reads that first.
                _ => Route::Indication,
            };
        }
        // A port that nobody told us of, at an address that may pass: a peer-reflexive candidate.
        let granted = self
            .permissions
            .get(&peer.0.ip())
            .is_some_and(|p| p.granted);
        if granted {
            Route::Indication
        } else {
            Route::Nowhere
        }
    }

    /// The peer of a bound channel.
    pub(crate) fn of_channel(&mut self, channel: u16) -> Option<PeerAddr> {
        let index = usize::from(channel.checked_sub(FIRST_CHANNEL)?);
        let slot = self.slots.get_mut(index)?.as_mut()?;
        if slot.released || slot.channel != Channel::Bound {
            return None;
        }
        slot.used = true;
        Some(slot.peer)
    }

    /// The relay lets `ip` through: which peers are ready that were not.
    pub(crate) fn on_permission(&mut self, ip: IpAddr, refresh: Instant) -> Vec<PeerAddr> {
        let Some(permission) = self.permissions.get_mut(&ip) else {
            return Vec::new();
        };
        permission.granted = true;
        permission.forbidden = false;
        permission.due = Some(refresh);
        let all = PeerAddr(SocketAddr::new(ip, 0))..=PeerAddr(SocketAddr::new(ip, u16::MAX));
        let mut woken = Vec::new();
        for (peer, index) in self.by_address.range(all) {
            let Some(slot) = &mut self.slots[usize::from(*index)] else {
                continue;
            };
            if slot.released {
                continue;
            }
            if !std::mem::replace(&mut slot.ready, true) {
                woken.push(*peer);
            }
        }
        woken
    }

    /// The relay does not let `ip` through, or did not answer; look again then.
    pub(crate) fn on_permission_refused(&mut self, ip: IpAddr, again: Instant) -> bool {
        let Some(permission) = self.permissions.get_mut(&ip) else {
            return false;
        };
        permission.due = Some(again);
        true
    }

    /// The relay forbids `ip`. Returns how many peers that concerns.
    pub(crate) fn on_forbidden(&mut self, ip: IpAddr) -> u64 {
        let Some(permission) = self.permissions.get_mut(&ip) else {
            return 0;
        };
        permission.granted = false;
        permission.forbidden = true;
        permission.peers as u64
    }

    /// A ChannelBind was sent: the number belongs to this peer from now on.
    pub(crate) fn on_bind_sent(&mut self, index: u16, now: Instant) {
        if let Some(slot) = &mut self.slots[usize::from(index)] {
            slot.held_until = Some(now + CHANNEL_LIFETIME);
            slot.due = None;
        }
    }

    /// The relay has bound the channel, which is as good as a permission: whether nobody was told of the peer yet.
    /// `None` for a peer that was released meanwhile.
    pub(crate) fn on_bound(
        &mut self,
        index: u16,
        peer: PeerAddr,
        now: Instant,
        again: Instant,
    ) -> Option<bool> {
        let slot = self.slot(index, peer)?;
        slot.channel = Channel::Bound;
        slot.bound_until = Some(now + CHANNEL_LIFETIME);
        slot.held_until = slot.bound_until;
        slot.due = Some(again);
        Some(!std::mem::replace(&mut slot.ready, true))
    }

    /// Goes on with Send indications; tries again then. A binding that was there is kept: it is good until its
    /// lifetime ends.
    pub(crate) fn on_bind_failed(
        &mut self,
        index: u16,
        peer: PeerAddr,
        now: Instant,
        again: Instant,
        refused: bool,
    ) -> bool {
        let Some(slot) = self.slot(index, peer) else {
            return false;
        };
        if refused || slot.bound_until.is_none_or(|until| until <= now) {
            slot.channel = Channel::Unbound;
        }
        slot.due = Some(again);
        true
    }

    fn slot(&mut self, index: u16, peer: PeerAddr) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(usize::from(index))?.as_mut()?;
        (slot.peer == peer && !slot.released).then_some(slot)
    }

    /// Whether the timer of this permission is not outdated.
    pub(crate) fn permission_is_due(&self, ip: IpAddr, at: Instant) -> bool {
        self.permissions
            .get(&ip)
            .is_some_and(|permission| permission.due == Some(at))
    }

    /// The peer to bind again when the timer of this channel is not outdated. A peer that survived a lost
    /// allocation and was not used since the last time is released instead.
    pub(crate) fn channel_is_due(&mut self, index: u16, at: Instant) -> Option<PeerAddr> {
        let slot = self.slots.get_mut(usize::from(index))?.as_mut()?;
        if slot.due != Some(at) {
            return None;
        }
        let peer = slot.peer;
        if slot.orphaned && !std::mem::take(&mut slot.used) {
            self.release(peer);
            return None;
        }
        Some(peer)
    }

    /// The allocation is gone: nothing is granted, the peers are remembered in case it comes back.
    pub(crate) fn on_lost(&mut self) {
        self.last = None;
        for slot in self.slots.iter_mut().flatten() {
            slot.channel = Channel::Unbound;
            slot.due = None;
            slot.ready = false;
            slot.orphaned = true;
            slot.used = false;
        }
        for permission in self.permissions.values_mut() {
            permission.granted = false;
            permission.due = None;
        }
    }

    /// Everything that must be asked for again: the addresses, and the channels.
    pub(crate) fn wanted(&self) -> (Vec<IpAddr>, Vec<(u16, PeerAddr)>) {
        let channels = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let slot = slot.as_ref().filter(|slot| !slot.released)?;
            Some((index as u16, slot.peer))
        });
        (
            self.permissions.keys().copied().collect(),
            channels.collect(),
        )
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Peers let in and not released.
    pub(crate) fn len(&self) -> usize {
        self.permissions
            .values()
            .map(|permission| permission.peers)
            .sum()
    }
}
