//! Clients over DTLS 1.2: the sessions of one event loop, which share a socket for each address.
//!
//! A hello is answered with a cookie, and nothing is kept of it. Only a hello that shows its cookie begins a session, which
//! is then bounded as connections are: in number, by source prefix, in the time of its handshake and without an allocation.
//! One record is one message, in both directions.

mod hello;
mod session;

use super::admission::{Admission, Over};
use super::outgoing::Frame;
use super::stats::DtlsDropReason;
use super::{CloseReason, RefuseReason, StreamKind, StreamLimits, StreamStats};
use crate::certificate::Certificate;
use crate::listener::Listener;
use hello::{Cookies, Hello, WRONG_VERSION};
use model::{ClientAddr, ServerAddr};
use session::{Event, Session};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use turn_relay_proto::{ConnectionId, FiveTuple, Traffic};

/// Set in the [`ConnectionId`] of every session, and of nothing else.
pub(super) const DTLS: u32 = 1 << 31;
/// Timers that are further away are none.
const NEVER: Duration = Duration::from_secs(24 * 3_600);
/// A timer that was due is not due again before this.
const PAUSE: Duration = Duration::from_millis(10);

/// What sessions are made with.
#[derive(Debug)]
pub(crate) struct DtlsSetup {
    pub(crate) listeners: Vec<Listener>,
    /// There is one if there are listeners.
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) config: Option<Arc<dimpl::Config>>,
    /// Nobody else knows it.
    pub(crate) cookie_key: [u8; 32],
}

impl DtlsSetup {
    /// What all sessions have in common.
    ///
    /// # Errors
    /// When the cryptography does not pass its own tests.
    pub(crate) fn config(limits: &StreamLimits) -> Result<Arc<dimpl::Config>, dimpl::Error> {
        session::config(limits.handshake)
    }
}

#[derive(Debug)]
struct Connection {
    path: FiveTuple,
    session: Session,
    /// Of the hello that it began with.
    random: [u8; 32],
    stranger_since: Option<Instant>,
    /// As it is in the order of all timers.
    timer: Option<Instant>,
    /// Another one of this client has taken its place: nothing is said any more.
    is_replaced: bool,
}

/// What sessions brought: one message after the other.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    bytes: Vec<u8>,
    each: Vec<(FiveTuple, Range<usize>)>,
}

impl Messages {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FiveTuple, &[u8])> {
        let message =
            |(path, range): &(FiveTuple, Range<usize>)| (*path, &self.bytes[range.clone()]);
        self.each.iter().map(message)
    }

    /// Those who sent them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = FiveTuple> {
        self.each
            .chunk_by(|(a, _), (b, _)| a == b)
            .map(|some| some[0].0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.each.is_empty()
    }

    fn push(&mut self, path: FiveTuple, message: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(message);
        self.each.push((path, start..self.bytes.len()));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.each.clear();
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct DtlsSessions {
    setup: DtlsSetup,
    cookies: Cookies,
    /// The time of cookies is counted from here.
    start: Instant,
    limits: StreamLimits,
    by_addresses: HashMap<(ClientAddr, ServerAddr), u32>,
    slots: Vec<Option<Box<Connection>>>,
    free: Vec<u32>,
    /// As of [`Streams`](super::Streams): free at the end of the turn.
    ended: Vec<u32>,
    closing: Vec<(u32, CloseReason)>,
    live: usize,
    admission: Admission,
    timers: BTreeSet<(Instant, u32)>,
    messages: Messages,
    /// Datagrams that leave at the end of the turn.
    outgoing: Vec<(FiveTuple, Vec<u8>)>,
    scratch: Vec<u8>,
    plain: Vec<u8>,
}

impl DtlsSessions {
    pub(super) fn new(setup: DtlsSetup, limits: StreamLimits, now: Instant) -> Self {
        Self {
            cookies: Cookies::new(&setup.cookie_key),
            setup,
            start: now,
            limits,
            by_addresses: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            ended: Vec::new(),
            closing: Vec::new(),
            live: 0,
            admission: Admission::new(limits),
            timers: BTreeSet::new(),
            messages: Messages::default(),
            outgoing: Vec::new(),
            scratch: vec![0; 2_048],
            plain: Vec::new(),
        }
    }

    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.setup.listeners
    }

    pub(super) fn set_limits(&mut self, limits: StreamLimits) {
        self.limits = limits;
        self.admission.set_limits(limits);
    }

    /// What arrived since it was asked for the last time; to be given back.
    pub(crate) fn take_messages(&mut self) -> Messages {
        std::mem::take(&mut self.messages)
    }

    pub(crate) fn give_back(&mut self, mut messages: Messages) {
        messages.clear();
        self.messages = messages;
    }

    /// What is to be sent; to be given back.
    pub(crate) fn take_outgoing(&mut self) -> Vec<(FiveTuple, Vec<u8>)> {
        std::mem::take(&mut self.outgoing)
    }

    pub(crate) fn give_back_outgoing(&mut self, mut outgoing: Vec<(FiveTuple, Vec<u8>)>) {
        outgoing.clear();
        self.outgoing = outgoing;
    }

    /// Whether it was a step of a handshake, which costs more than anything else.
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        (client, server): (ClientAddr, ServerAddr),
        datagram: &[u8],
        stats: &mut StreamStats,
    ) -> bool {
        let found = self.by_addresses.get(&(client, server)).copied();
        if let Some(hello) = Hello::decode(datagram) {
            let is_its_own =
                |slot| at(&self.slots, slot).is_some_and(|c| c.random == *hello.random);
            if !found.is_some_and(is_its_own) {
                return self.greet(now, (client, server), &hello, found, stats);
            }
        }
        let Some((slot, connection)) =
            found.and_then(|slot| Some((slot, at_mut(&mut self.slots, slot)?)))
        else {
            stats.dtls_dropped[DtlsDropReason::NoSession as usize] += 1;
            return false;
        };
        let was_established = connection.session.is_established;
        let mut said = Said::of(connection.path, &mut self.messages, &mut self.outgoing);
        let result =
            connection
                .session
                .handle_datagram(datagram, now, &mut self.scratch, |event| said.on(&event));
        let Said { events, closed, .. } = said;
        if result.is_err() || (was_established && events == 0) {
            stats.dtls_dropped[DtlsDropReason::BadRecord as usize] += 1;
        }
        if let Err(error) = result {
            tracing::debug!(client = %client, %error, "DTLS: a datagram is dropped");
            // Only within the session is it certain whose alert it is.
            if was_established && session::is_alert(&error) {
                self.closing.push((slot, CloseReason::BadTls));
            }
        }
        if !was_established && connection.session.is_established {
            stats.of_mut(StreamKind::Dtls).handshakes += 1;
        }
        if closed {
            self.closing.push((slot, CloseReason::Client));
        }
        self.set_timer(now, slot);
        !was_established
    }

    /// A hello that is not of a session that exists.
    fn greet(
        &mut self,
        now: Instant,
        (client, server): (ClientAddr, ServerAddr),
        hello: &Hello<'_>,
        found: Option<u32>,
        stats: &mut StreamStats,
    ) -> bool {
        let seconds = now.saturating_duration_since(self.start).as_secs();
        if !self.cookies.is_shown(hello, client.0, seconds) {
            let slot = ConnectionId::GONE;
            let path = FiveTuple {
                client,
                server,
                transport: StreamKind::Dtls.transport(slot),
            };
            let answer = if hello.is_served {
                stats.dtls_cookies += 1;
                self.cookies.request(hello, client.0, seconds)
            } else {
                stats.dtls_dropped[DtlsDropReason::BadHello as usize] += 1;
                WRONG_VERSION.to_vec()
            };
            self.outgoing.push((path, answer));
            return false;
        }
        // The client has begun anew (RFC 6347 section 4.2.8): it has shown that it is there.
        if let Some(connection) = found.and_then(|slot| at_mut(&mut self.slots, slot)) {
            connection.is_replaced = true;
            self.by_addresses.remove(&(client, server));
            self.closing
                .extend(found.map(|slot| (slot, CloseReason::Client)));
        }
        self.admit(now, (client, server), hello, stats);
        true
    }

    fn admit(
        &mut self,
        now: Instant,
        (client, server): (ClientAddr, ServerAddr),
        hello: &Hello<'_>,
        stats: &mut StreamStats,
    ) {
        let refused = if self.live >= self.limits.connections {
            Some(RefuseReason::Connections)
        } else if !self.admission.has_room_for(client.0.ip()) {
            Some(RefuseReason::Prefix)
        } else {
            None
        };
        if let Some(reason) = refused {
            stats.of_mut(StreamKind::Dtls).refused[reason as usize] += 1;
            return;
        }
        let certificate = self.setup.certificate.as_ref().and_then(|c| c.dtls());
        let (Some(certificate), Some(config)) = (certificate, self.setup.config.clone()) else {
            return;
        };
        let slot = self.free.last().copied();
        let slot = slot.unwrap_or(self.slots.len() as u32);
        let path = FiveTuple {
            client,
            server,
            transport: StreamKind::Dtls.transport(ConnectionId(DTLS | slot)),
        };
        let mut said = Said::of(path, &mut self.messages, &mut self.outgoing);
        let begun = Session::begin(
            config,
            certificate,
            hello,
            now,
            &mut self.scratch,
            |event| {
                said.on(&event);
            },
        );
        let session = match begun {
            Ok(session) if said.events > 0 => session,
            // Some of what it cannot read the library passes over in silence.
            result => {
                let error = result.err();
                tracing::debug!(%client, ?error, "DTLS: no session");
                stats.dtls_dropped[DtlsDropReason::BadHello as usize] += 1;
                return;
            }
        };
        if self.admission.is_full() {
            let slots = &self.slots;
            let oldest = self
                .admission
                .oldest(|slot, since| is_stranger(slots, slot, since));
            self.closing
                .extend(oldest.map(|slot| (slot, CloseReason::Evicted)));
        }
        if self.free.pop().is_none() {
            self.slots.push(None);
        }
        self.slots[slot as usize] = Some(Box::new(Connection {
            path,
            session,
            random: *hello.random,
            stranger_since: Some(now),
            timer: None,
            is_replaced: false,
        }));
        self.by_addresses.insert((client, server), slot);
        self.live += 1;
        self.admission.add(slot, client.0.ip(), true, now);
        let slots = &self.slots;
        self.admission
            .tidy(|slot, since, over| is_waited_for(slots, slot, since, over));
        let stats = stats.of_mut(StreamKind::Dtls);
        stats.accepted += 1;
        stats.connections += 1;
        stats.strangers += 1;
        self.set_timer(now, slot);
    }

    /// One message for the client; whether it could be encrypted.
    pub(super) fn answer(&mut self, id: u32, bytes: &[u8]) -> bool {
        let Some(connection) = at_mut(&mut self.slots, id & !DTLS) else {
            return false;
        };
        let mut said = Said::of(connection.path, &mut self.messages, &mut self.outgoing);
        let session = &mut connection.session;
        let sent = session.send(bytes, &mut self.scratch, |event| said.on(&event));
        sent.is_ok()
    }

    /// Frames for one client; what had to be dropped.
    pub(super) fn send(&mut self, id: u32, frames: &[Frame<'_>]) -> Traffic {
        let mut dropped = Traffic::default();
        let mut plain = std::mem::take(&mut self.plain);
        for frame in frames {
            plain.clear();
            let [prefix, payload, padding] = frame.parts();
            plain.extend_from_slice(prefix);
            plain.extend_from_slice(payload);
            // A message has it; of ChannelData it is left out, as over UDP.
            if prefix.first().is_some_and(|first| first >> 6 == 0) {
                plain.extend_from_slice(padding);
            }
            if !self.answer(id, &plain) {
                dropped.packets += 1;
                dropped.bytes += payload.len() as u64;
            }
        }
        self.plain = plain;
        dropped
    }

    fn set_timer(&mut self, now: Instant, slot: u32) {
        let Some(connection) = at_mut(&mut self.slots, slot) else {
            return;
        };
        let wanted = connection.session.timeout;
        let wanted = wanted.filter(|at| *at < now + NEVER);
        let wanted = wanted.map(|at| at.max(now + PAUSE));
        if wanted == connection.timer {
            return;
        }
        if let Some(before) = connection.timer {
            self.timers.remove(&(before, slot));
        }
        connection.timer = wanted;
        self.timers.extend(wanted.map(|at| (at, slot)));
    }

    /// Says again what was lost, and finds out whose time is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((due, slot)) = self.timers.first().copied()
            && due <= now
        {
            self.timers.pop_first();
            let Some(connection) = at_mut(&mut self.slots, slot) else {
                continue;
            };
            connection.timer = None;
            let mut said = Said::of(connection.path, &mut self.messages, &mut self.outgoing);
            let session = &mut connection.session;
            let result = session.handle_timeout(now, &mut self.scratch, |event| said.on(&event));
            if result.is_err() {
                let reason = match connection.session.is_established {
                    true => CloseReason::Broken,
                    false => CloseReason::HandshakeTimeout,
                };
                self.closing.push((slot, reason));
                continue;
            }
            self.set_timer(now, slot);
        }
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

    /// When [`DtlsSessions::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.admission.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn poll_closed(&mut self, stats: &mut StreamStats) -> Option<FiveTuple> {
        while let Some((slot, reason)) = self.closing.pop() {
            let Some(mut connection) = self.slots.get_mut(slot as usize).and_then(Option::take)
            else {
                continue;
            };
            self.say_goodbye(&mut connection);
            let path = connection.path;
            self.ended.push(slot);
            self.live -= 1;
            if let Some(timer) = connection.timer {
                self.timers.remove(&(timer, slot));
            }
            if !connection.is_replaced {
                self.by_addresses.remove(&(path.client, path.server));
            }
            let stats = stats.of_mut(StreamKind::Dtls);
            stats.connections -= 1;
            stats.closed[reason as usize] += 1;
            if connection.stranger_since.is_some() {
                stats.strangers -= 1;
                self.admission.remove(path.client.0.ip());
            }
            return Some(path);
        }
        None
    }

    fn say_goodbye(&mut self, connection: &mut Connection) {
        if connection.session.is_established && !connection.is_replaced {
            let mut said = Said::of(connection.path, &mut self.messages, &mut self.outgoing);
            let session = &mut connection.session;
            session.close(&mut self.scratch, |event| said.on(&event));
        }
    }

    /// The process ends: all clients are told.
    pub(crate) fn say_goodbye_to_all(&mut self) {
        let mut slots = std::mem::take(&mut self.slots);
        for connection in slots.iter_mut().flatten() {
            self.say_goodbye(connection);
        }
        self.slots = slots;
    }

    pub(super) fn set_stranger(
        &mut self,
        now: Instant,
        id: u32,
        is_stranger: bool,
        stats: &mut StreamStats,
    ) {
        let slot = id & !DTLS;
        let Some(connection) = at_mut(&mut self.slots, slot) else {
            return;
        };
        if connection.stranger_since.is_some() == is_stranger {
            return;
        }
        let source = connection.path.client.0.ip();
        let stats = stats.of_mut(StreamKind::Dtls);
        if is_stranger {
            connection.stranger_since = Some(now);
            stats.strangers += 1;
            self.admission.add(slot, source, false, now);
        } else {
            connection.stranger_since = None;
            stats.strangers -= 1;
            self.admission.remove(source);
        }
    }

    /// Asks for each session that had an allocation whether it still has one.
    pub(super) fn review(
        &mut self,
        now: Instant,
        has_allocation: &mut impl FnMut(FiveTuple) -> bool,
        stats: &mut StreamStats,
    ) {
        for slot in 0..self.slots.len() as u32 {
            let over = at(&self.slots, slot)
                .is_some_and(|c| c.stranger_since.is_none() && !has_allocation(c.path));
            if over {
                self.set_stranger(now, DTLS | slot, true, stats);
            }
        }
    }

    pub(super) fn end_turn(&mut self) {
        self.free.append(&mut self.ended);
    }
}

/// Where what a session says goes.
struct Said<'s> {
    path: FiveTuple,
    messages: &'s mut Messages,
    outgoing: &'s mut Vec<(FiveTuple, Vec<u8>)>,
    events: usize,
    closed: bool,
}

impl<'s> Said<'s> {
    fn of(
        path: FiveTuple,
        messages: &'s mut Messages,
        outgoing: &'s mut Vec<(FiveTuple, Vec<u8>)>,
    ) -> Self {
        Self {
            path,
            messages,
            outgoing,
            events: 0,
            closed: false,
        }
    }

    fn on(&mut self, event: &Event<'_>) {
        self.events += 1;
        match *event {
            Event::Send(datagram) => self.outgoing.push((self.path, datagram.to_vec())),
            Event::Data(message) => self.messages.push(self.path, message),
            Event::Closed => self.closed = true,
        }
    }
}

fn at(slots: &[Option<Box<Connection>>], slot: u32) -> Option<&Connection> {
    slots.get(slot as usize)?.as_deref()
}

fn at_mut(slots: &mut [Option<Box<Connection>>], slot: u32) -> Option<&mut Connection> {
    slots.get_mut(slot as usize)?.as_deref_mut()
}

fn is_stranger(slots: &[Option<Box<Connection>>], slot: u32, since: Instant) -> bool {
    at(slots, slot).is_some_and(|connection| connection.stranger_since == Some(since))
}

fn is_waited_for(slots: &[Option<Box<Connection>>], slot: u32, since: Instant, over: Over) -> bool {
    let is_late = |c: &Connection| over == Over::Stranger || !c.session.is_established;
    is_stranger(slots, slot, since) && at(slots, slot).is_some_and(is_late)
}
