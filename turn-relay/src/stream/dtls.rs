//! Clients over DTLS 1.2: the sessions of one event loop, which share a socket for each address.
//!
//! A hello is answered with a cookie, and nothing is kept of it. Only a hello that shows its cookie begins a session, which
//! is then bounded as connections are: in number, by source prefix, in the time of its handshake and without an allocation.
//! One record is one message, in both directions.

mod hello;
mod session;

use super::outgoing::Frame;
use super::room::{Guest, Room};
use super::stats::DtlsDropReason;
use super::{CloseReason, StreamKind, StreamLimits, StreamStats};
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
pub(super) struct Connection {
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
    by_addresses: HashMap<(ClientAddr, ServerAddr), u32>,
    pub(super) room: Room<Connection>,
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
            by_addresses: HashMap::new(),
            room: Room::new(limits),
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
            let is_its_own = |slot| {
                self.room
                    .get(slot)
                    .is_some_and(|c| c.random == *hello.random)
            };
            if !found.is_some_and(is_its_own) {
                return self.greet(now, (client, server), &hello, found, stats);
            }
        }
        let Some((slot, connection)) =
            found.and_then(|slot| Some((slot, self.room.get_mut(slot)?)))
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
        let is_established = connection.session.is_established;
        if result.is_err() || (was_established && events == 0) {
            stats.dtls_dropped[DtlsDropReason::BadRecord as usize] += 1;
        }
        if let Err(error) = result {
            tracing::debug!(client = %client, %error, "DTLS: a datagram is dropped");
            // Only within the session is it certain whose alert it is.
            if was_established && session::is_alert(&error) {
                self.room.close(slot, CloseReason::BadTls);
            }
        }
        if !was_established && is_established {
            stats.of_mut(StreamKind::Dtls).handshakes += 1;
        }
        if closed {
            self.room.close(slot, CloseReason::Client);
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
        if let Some(slot) = found
            && let Some(connection) = self.room.get_mut(slot)
        {
            connection.is_replaced = true;
            self.by_addresses.remove(&(client, server));
            self.room.close(slot, CloseReason::Client);
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
        if let Some(reason) = self.room.refusal(Some(client.0.ip())) {
            stats.of_mut(StreamKind::Dtls).refused[reason as usize] += 1;
            return;
        }
        let certificate = self.setup.certificate.as_ref().and_then(|c| c.dtls());
        let (Some(certificate), Some(config)) = (certificate, self.setup.config.clone()) else {
            return;
        };
        let slot = self.room.slots().next();
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
        let connection = Connection {
            path,
            session,
            random: *hello.random,
            stranger_since: Some(now),
            timer: None,
            is_replaced: false,
        };
        self.room.admit(now, connection, stats);
        self.by_addresses.insert((client, server), slot);
        self.set_timer(now, slot);
    }

    /// One message for the client; whether it could be encrypted.
    pub(super) fn answer(&mut self, id: u32, bytes: &[u8]) -> bool {
        let Some(connection) = self.room.get_mut(id & !DTLS) else {
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
        let Some(connection) = self.room.get_mut(slot) else {
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
            let Some(connection) = self.room.get_mut(slot) else {
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
                self.room.close(slot, reason);
                continue;
            }
            self.set_timer(now, slot);
        }
        self.room.handle_timeout(now);
    }

    /// When [`DtlsSessions::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.room.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(super) fn poll_closed(&mut self, stats: &mut StreamStats) -> Option<FiveTuple> {
        let (slot, mut connection) = self.room.poll_closed(stats)?;
        connection.say_goodbye(&mut self.messages, &mut self.outgoing, &mut self.scratch);
        let path = connection.path;
        if let Some(timer) = connection.timer {
            self.timers.remove(&(timer, slot));
        }
        if !connection.is_replaced {
            self.by_addresses.remove(&(path.client, path.server));
        }
        Some(path)
    }

    /// The process ends: all clients are told.
    pub(crate) fn say_goodbye_to_all(&mut self) {
        for connection in self.room.iter_mut() {
            connection.say_goodbye(&mut self.messages, &mut self.outgoing, &mut self.scratch);
        }
    }
}

impl Connection {
    fn say_goodbye(
        &mut self,
        messages: &mut Messages,
        outgoing: &mut Vec<(FiveTuple, Vec<u8>)>,
        scratch: &mut Vec<u8>,
    ) {
        if self.session.is_established && !self.is_replaced {
            let mut said = Said::of(self.path, messages, outgoing);
            self.session.close(scratch, |event| said.on(&event));
        }
    }
}

impl Guest for Connection {
    fn kind(&self) -> StreamKind {
        StreamKind::Dtls
    }

    fn path(&self) -> FiveTuple {
        self.path
    }

    fn is_established(&self) -> bool {
        self.session.is_established
    }

    fn stranger_since(&self) -> Option<Instant> {
        self.stranger_since
    }

    fn set_stranger_since(&mut self, since: Option<Instant>) {
        self.stranger_since = since;
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
