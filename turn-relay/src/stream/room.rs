//! What connections of every kind have in common: a slot each, how many there may be, and who may stay without an
//! allocation.

use super::admission::{Admission, Over};
use super::{CloseReason, RefuseReason, StreamKind, StreamLimits, StreamStats};
use std::net::IpAddr;
use std::time::Instant;
use turn_relay_proto::FiveTuple;

/// Each at its number. A slot that something leaves is free at the end of the turn: events of this turn may still name it.
#[derive(Debug)]
pub(super) struct Slots<T> {
    each: Vec<Option<Box<T>>>,
    free: Vec<u32>,
    ended: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            each: Vec::new(),
            free: Vec::new(),
            ended: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.each.get(slot as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.each.get_mut(slot as usize)?.as_deref_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let each = self.each.iter().zip(0..);
        each.filter_map(|(one, slot)| Some((slot, one.as_deref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.each.iter_mut().filter_map(Option::as_deref_mut)
    }

    /// The slot that [`Slots::insert`] will put the next into.
    pub(super) fn next(&self) -> u32 {
        let free = self.free.last().copied();
        free.unwrap_or(self.each.len() as u32)
    }

    pub(super) fn insert(&mut self, new: T) {
        let slot = self.next();
        if self.free.pop().is_none() {
            self.each.push(None);
        }
        self.each[slot as usize] = Some(Box::new(new));
    }

    /// Into a certain slot; whether it was free.
    fn insert_at(&mut self, slot: u32, new: T) -> bool {
        while self.each.len() <= slot as usize {
            self.free.push(self.each.len() as u32);
            self.each.push(None);
        }
        let Some(free) = self.free.iter().position(|free| *free == slot) else {
            return false;
        };
        self.free.swap_remove(free);
        self.each[slot as usize] = Some(Box::new(new));
        true
    }

    pub(super) fn take(&mut self, slot: u32) -> Option<Box<T>> {
        let taken = self.each.get_mut(slot as usize)?.take()?;
        self.ended.push(slot);
        Some(taken)
    }

    pub(super) fn end_turn(&mut self) {
        self.free.append(&mut self.ended);
    }
}

/// What a [`Room`] has to know of a connection.
pub(super) trait Guest {
    fn kind(&self) -> StreamKind;
    fn path(&self) -> FiveTuple;
    /// Whether messages can come and go.
    fn is_established(&self) -> bool;
    /// Since when it has no allocation, if it has none.
    fn stranger_since(&self) -> Option<Instant>;
    fn set_stranger_since(&mut self, since: Option<Instant>);
}

/// Connections of one event loop, within their bounds.
#[derive(Debug)]
pub(super) struct Room<C> {
    slots: Slots<C>,
    /// What is to be closed, at the end of the turn.
    closing: Vec<(u32, CloseReason)>,
    /// With those that were detached.
    live: usize,
    limits: StreamLimits,
    admission: Admission,
}

impl<C: Guest> Room<C> {
    pub(super) fn new(limits: StreamLimits) -> Self {
        Self {
            slots: Slots::default(),
            closing: Vec::new(),
            live: 0,
            limits,
            admission: Admission::new(limits),
        }
    }

    /// From now on; no connection is closed for it that is beyond a bound already.
    pub(super) fn set_limits(&mut self, limits: StreamLimits) {
        self.limits = limits;
        self.admission.set_limits(limits);
    }

    pub(super) fn limits(&self) -> StreamLimits {
        self.limits
    }

    pub(super) fn slots(&self) -> &Slots<C> {
        &self.slots
    }

    pub(super) fn get(&self, slot: u32) -> Option<&C> {
        self.slots.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut C> {
        self.slots.get_mut(slot)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut C> {
        self.slots.iter_mut()
    }

    /// Why there is no room for one more, if there is none; without a source, its share is not asked for.
    pub(super) fn refusal(&self, source: Option<IpAddr>) -> Option<RefuseReason> {
        if self.live >= self.limits.connections {
            return Some(RefuseReason::Connections);
        }
        let fits = source.is_none_or(|source| self.admission.has_room_for(source));
        (!fits).then_some(RefuseReason::Prefix)
    }

    /// Lets a stranger in that knows the next slot; the oldest stranger goes if there are too many.
    pub(super) fn admit(&mut self, now: Instant, new: C, stats: &mut StreamStats) {
        let slots = &self.slots;
        if self.admission.is_full() {
            let is_one = |slot, since| is_stranger(slots, slot, since);
            let oldest = self.admission.oldest(is_one);
            self.closing
                .extend(oldest.map(|slot| (slot, CloseReason::Evicted)));
        }
        let (slot, source) = (self.slots.next(), new.path().client.0.ip());
        let (kind, handshaking) = (new.kind(), !new.is_established());
        self.slots.insert(new);
        self.live += 1;
        self.admission.add(slot, source, handshaking, now);
        let slots = &self.slots;
        self.admission
            .tidy(|slot, since, over| is_waited_for(slots, slot, since, over));
        let stats = stats.of_mut(kind);
        stats.accepted += 1;
        stats.connections += 1;
        stats.strangers += 1;
    }

    /// Takes one in that has been elsewhere, with its slot; whether that was free.
    pub(super) fn adopt(&mut self, slot: u32, new: C, stats: &mut StreamStats) -> bool {
        let (kind, source) = (new.kind(), new.path().client.0.ip());
        let since = new.stranger_since();
        if !self.slots.insert_at(slot, new) {
            return false;
        }
        self.live += 1;
        let stats = stats.of_mut(kind);
        stats.connections += 1;
        if let Some(since) = since {
            stats.strangers += 1;
            self.admission.add(slot, source, false, since);
        }
        true
    }

    /// A connection comes from elsewhere than it seemed; whether its source still has room.
    pub(super) fn announce(&mut self, seemed: IpAddr, source: IpAddr, is_stranger: bool) -> bool {
        let fits = self.admission.has_room_for(source);
        if is_stranger {
            self.admission.announce(seemed, source);
        }
        fits
    }

    /// It has an allocation (or moved one here), or has none any more.
    pub(super) fn set_stranger(
        &mut self,
        now: Instant,
        slot: u32,
        is_stranger: bool,
        stats: &mut StreamStats,
    ) {
        let Some(connection) = self.slots.get_mut(slot) else {
            return;
        };
        if connection.stranger_since().is_some() == is_stranger {
            return;
        }
        connection.set_stranger_since(is_stranger.then_some(now));
        let source = connection.path().client.0.ip();
        let stats = stats.of_mut(connection.kind());
        if is_stranger {
            stats.strangers += 1;
            self.admission.add(slot, source, false, now);
        } else {
            stats.strangers -= 1;
            self.admission.remove(source);
        }
    }

    /// Asks for each that had an allocation whether it still has one.
    pub(super) fn review(
        &mut self,
        now: Instant,
        has_allocation: &mut impl FnMut(FiveTuple) -> bool,
        stats: &mut StreamStats,
    ) {
        for slot in 0..self.slots.each.len() as u32 {
            let over = |c: &C| c.stranger_since().is_none() && !has_allocation(c.path());
            if self.slots.get(slot).is_some_and(over) {
                self.set_stranger(now, slot, true, stats);
            }
        }
    }

    /// Finds out whose time is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let slots = &self.slots;
        let is_one = |slot, since, over| is_waited_for(slots, slot, since, over);
        while let Some((slot, over)) = self.admission.poll_over(now, is_one) {
            let reason = match over {
                Over::Handshake => CloseReason::HandshakeTimeout,
                Over::Stranger => CloseReason::Stranger,
            };
            self.closing.push((slot, reason));
        }
    }

    /// When [`Room::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.admission.poll_timeout()
    }

    /// At the end of the turn, by [`Room::poll_closed`].
    pub(super) fn close(&mut self, slot: u32, reason: CloseReason) {
        self.closing.push((slot, reason));
    }

    /// The next that is closed, and its slot.
    pub(super) fn poll_closed(&mut self, stats: &mut StreamStats) -> Option<(u32, Box<C>)> {
        while let Some((slot, reason)) = self.closing.pop() {
            // It may be there more than once.
            if let Some(connection) = self.detach(slot, stats) {
                self.on_closed(connection.kind(), reason, stats);
                return Some((slot, connection));
            }
        }
        None
    }

    /// Takes a connection out, which goes on counting as one until [`Room::on_closed`].
    pub(super) fn detach(&mut self, slot: u32, stats: &mut StreamStats) -> Option<Box<C>> {
        let connection = self.slots.take(slot)?;
        if connection.stranger_since().is_some() {
            stats.of_mut(connection.kind()).strangers -= 1;
            self.admission.remove(connection.path().client.0.ip());
        }
        Some(connection)
    }

    /// One that was detached is over.
    pub(super) fn on_closed(
        &mut self,
        kind: StreamKind,
        reason: CloseReason,
        stats: &mut StreamStats,
    ) {
        self.live -= 1;
        let stats = stats.of_mut(kind);
        stats.connections -= 1;
        stats.closed[reason as usize] += 1;
    }

    /// The turn is over: what ended in it may be used again.
    pub(super) fn end_turn(&mut self) {
        self.slots.end_turn();
    }
}

fn is_stranger<C: Guest>(slots: &Slots<C>, slot: u32, since: Instant) -> bool {
    let connection = slots.get(slot);
    connection.is_some_and(|connection| connection.stranger_since() == Some(since))
}

fn is_waited_for<C: Guest>(slots: &Slots<C>, slot: u32, since: Instant, over: Over) -> bool {
    let is_late = |connection: &C| over == Over::Stranger || !connection.is_established();
    is_stranger(slots, slot, since) && slots.get(slot).is_some_and(is_late)
}
