//! All connections of one event loop, and the sockets they come from.

mod datagrams;
mod strangers;

use super::connection::{Connection, Scratch};
use super::dtls::{DTLS, DtlsSessions, DtlsSetup};
use super::outgoing::{StreamOut, StreamPlan};
use super::room::{Guest, Room};
use super::splices::Splices;
use super::tls::Session;
use super::{CloseReason, RefuseReason, StreamBuffer, StreamLimits, StreamListener, StreamStats};
use crate::tcp_relay::PeerSockets;
use ipnet::IpNet;
use model::{ClientAddr, ServerAddr};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use rustls::ServerConfig;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use turn_relay_proto::{ConnectionId, FiveTuple, Traffic};
use wire::stream::Frames;

/// Tokens of listeners, by index, and of connections, by slot; all others are below.
const LISTENERS: u64 = 1 << 48;
const CONNECTIONS: u64 = 1 << 49;
/// Of the sockets of DTLS, by index.
const DATAGRAMS: u64 = LISTENERS + (1 << 32);
/// Connections that one listener is asked for in a turn.
const ACCEPTS: usize = 64;
/// How long nothing is accepted when the kernel has run out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEvent {
    Listener(usize),
    Connection(u32),
    /// A socket of DTLS.
    Datagrams(usize),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(super) listeners: Vec<StreamListener>,
    tls: Option<Arc<ServerConfig>>,
    pub(super) proxies: Arc<[IpNet]>,
    pub(super) room: Room<Connection>,
    dirty: Vec<u32>,
    paused_until: Option<Instant>,
    pub(super) stats: StreamStats,
    scratch: Scratch,
    plan: StreamPlan,
    pub(super) splices: Splices,
    /// The connection that was joined just now, and where it is among the joined ones.
    pub(super) joined: Option<(ConnectionId, u32)>,
    pub(super) dtls: DtlsSessions,
}

/// What [`Streams`] is made from.
#[derive(Debug)]
pub(crate) struct StreamSetup {
    pub(crate) listeners: Vec<StreamListener>,
    /// For those listeners that need it.
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) limits: StreamLimits,
    /// Load balancers, whose connections begin with a PROXY header.
    pub(crate) proxies: Arc<[IpNet]>,
    /// Of all event loops.
    pub(crate) peers: Arc<PeerSockets>,
    pub(crate) dtls: DtlsSetup,
}

impl Streams {
    /// Watches the listeners.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub(crate) fn new(setup: StreamSetup, epoll: &Epoll, now: Instant) -> io::Result<Self> {
        let StreamSetup {
            listeners,
            tls,
            limits,
            proxies,
            peers: _,
            dtls,
        } = setup;
        for (index, listener) in dtls.listeners.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, DATAGRAMS + index as u64);
            epoll.add(&listener.socket, event)?;
        }
        for (index, listener) in listeners.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENERS + index as u64);
            epoll.add(&listener.socket, event)?;
        }
        Ok(Self {
            listeners,
            tls,
            proxies,
            room: Room::new(limits),
            dirty: Vec::new(),
            paused_until: None,
            stats: StreamStats::default(),
            scratch: Scratch::default(),
            plan: StreamPlan::default(),
            splices: Splices::default(),
            joined: None,
            dtls: DtlsSessions::new(dtls, limits, now),
        })
    }

    /// Whether an event is of a stream: then, of what.
    pub(crate) fn event(token: u64) -> Option<StreamEvent> {
        match token {
            CONNECTIONS..=0x0002_FFFF_FFFF_FFFF => {
                Some(StreamEvent::Connection((token - CONNECTIONS) as u32))
            }
            DATAGRAMS..CONNECTIONS => Some(StreamEvent::Datagrams((token - DATAGRAMS) as usize)),
            LISTENERS..DATAGRAMS => Some(StreamEvent::Listener((token - LISTENERS) as usize)),
            _ => None,
        }
    }

    /// From now on; no connection is closed for it that is beyond a bound already.
    pub(crate) fn set_limits(&mut self, limits: StreamLimits) {
        self.room.set_limits(limits);
        self.dtls.room.set_limits(limits);
    }

    pub(crate) fn stats(&self) -> &StreamStats {
        &self.stats
    }

    /// Takes connections that wait, as many as a turn has time for.
    pub(crate) fn accept(&mut self, now: Instant, index: usize, epoll: &Epoll) {
        for _ in 0..ACCEPTS {
            let Some(listener) = self.listeners.get(index) else {
                return;
            };
            match listener.socket.accept() {
                Ok((socket, source)) => self.admit(now, index, socket, source, epoll),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        let kind = listener.kind;
                        self.refuse(kind, RefuseReason::System);
                        tracing::warn!(%error, "cannot accept a connection");
                        self.paused_until = Some(now + PAUSE);
                        self.watch_listeners(EpollFlags::empty(), epoll);
                        return;
                    }
                },
            }
        }
    }

    fn watch_listeners(&self, flags: EpollFlags, epoll: &Epoll) {
        for (index, listener) in self.listeners.iter().enumerate() {
            let mut event = EpollEvent::new(flags, LISTENERS + index as u64);
            // It is watched already: nothing is needed that could be missing.
            let _ = epoll.modify(&listener.socket, &mut event);
        }
    }

    fn refuse(&mut self, kind: super::StreamKind, reason: RefuseReason) {
        self.stats.of_mut(kind).refused[reason as usize] += 1;
    }

    fn admit(
        &mut self,
        now: Instant,
        index: usize,
        socket: TcpStream,
        source: SocketAddr,
        epoll: &Epoll,
    ) {
        let (kind, address) = (self.listeners[index].kind, self.listeners[index].address);
        // Of a load balancer's clients each is looked at when it is known.
        let whose = (!self.is_proxy(source)).then(|| source.ip());
        if let Some(reason) = self.room.refusal(whose) {
            return self.refuse(kind, reason);
        }
        let slot = self.room.slots().next();
        let opened = self.open(slot, index, socket, source, address, now);
        let watched = opened.and_then(|connection| {
            self.watch_new(slot, &connection, epoll)?;
            Ok(connection)
        });
        match watched {
            Ok(connection) => self.room.admit(now, connection, &mut self.stats),
            Err(error) => {
                tracing::debug!(%error, "cannot serve a connection");
                self.refuse(kind, RefuseReason::System);
            }
        }
    }

    fn open(
        &self,
        slot: u32,
        index: usize,
        socket: TcpStream,
        source: SocketAddr,
        address: ServerAddr,
        now: Instant,
    ) -> io::Result<Connection> {
        let kind = self.listeners[index].kind;
        socket.set_nonblocking(true)?;
        let server = if address.0.ip().is_unspecified() {
            ServerAddr(plain(socket.local_addr()?))
        } else {
            address
        };
        let path = FiveTuple {
            client: ClientAddr(plain(source)),
            server,
            transport: kind.transport(ConnectionId(slot)),
        };
        let session = match (kind, &self.tls) {
            (super::StreamKind::Tcp, _) => None,
            (super::StreamKind::Tls, Some(config)) => {
                let session = Session::new(config).map_err(io::Error::other)?;
                Some(Box::new(session))
            }
            (super::StreamKind::Tls, None) | (super::StreamKind::Dtls, _) => {
                return Err(ErrorKind::Unsupported.into());
            }
        };
        let mut connection = Connection::new(socket, kind, path, session, now);
        let is_proxy = self.is_proxy(source);
        connection.proxy = is_proxy.then(Box::default);
        Ok(connection)
    }

    /// Whether a connection is there and still has its TLS handshake to do, which costs more than anything else.
    pub(crate) fn is_handshaking(&self, slot: u32) -> bool {
        let connection = self.room.get(slot);
        connection.is_some_and(|connection| !connection.is_established())
    }

    /// The name that a client asked for in its TLS handshake: once, when that is complete.
    pub(crate) fn take_server_name(&mut self, slot: u32) -> Option<Box<str>> {
        self.room.get_mut(slot)?.take_server_name()
    }

    /// Reads from a connection: its five-tuple, and the frames that arrived.
    pub(crate) fn receive<'b>(
        &mut self,
        slot: u32,
        buffer: &'b mut StreamBuffer,
    ) -> Option<(FiveTuple, Frames<'b>)> {
        if self.room.get_mut(slot)?.proxy.is_some() {
            // What is behind it is reported again.
            self.receive_header(slot);
            return None;
        }
        let connection = self.room.get_mut(slot)?;
        let was_established = connection.is_established();
        let received = connection.receive(buffer);
        let (path, kind) = (connection.path, connection.kind);
        let limit = connection.frame_limit();
        if !was_established && connection.is_established() {
            self.stats.of_mut(kind).handshakes += 1;
        }
        self.mark_dirty(slot);
        if let Err(reason) = received {
            self.room.close(slot, reason);
            return None;
        }
        Some((path, Frames::new(buffer.bytes(), limit)))
    }

    /// After the frames of [`Streams::receive`] are handled: what is left of them, what they brought to peers, and
    /// whether the connection has an allocation now.
    pub(crate) fn handle_received(
        &mut self,
        now: Instant,
        slot: u32,
        frames: &Frames<'_>,
        to_peer: Traffic,
        has_allocation: bool,
    ) {
        let Some(connection) = self.room.get_mut(slot) else {
            return;
        };
        let (kind, path) = (connection.kind, connection.path);
        connection.keep(frames.rest());
        add(&mut self.stats.of_mut(kind).to_peer, to_peer);
        if let Some(error) = frames.error() {
            tracing::debug!(client = %path.client, %error, "a stream without frames");
            self.room.close(slot, CloseReason::BadFrame);
        }
        self.handle_allocation(now, path, has_allocation);
    }

    /// Puts an answer behind what waits for the client; whether there was room. It is sent at the end of the turn.
    pub(crate) fn answer(&mut self, connection: ConnectionId, bytes: &[u8]) -> bool {
        if connection.0 & DTLS != 0 {
            return self.dtls.answer(connection.0, bytes);
        }
        let limit = self.room.limits().buffer;
        let Some(to) = self.room.get_mut(connection.0) else {
            return false;
        };
        match to.answer(bytes, limit) {
            Ok(()) => {
                self.mark_dirty(connection.0);
                true
            }
            Err(reason) => {
                self.room.close(connection.0, reason);
                false
            }
        }
    }

    fn mark_dirty(&mut self, slot: u32) {
        if let Some(connection) = self.room.get_mut(slot)
            && !connection.is_dirty
            && !connection.is_idle()
        {
            connection.is_dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Begins a plan; [`Streams::send`] ends it.
    pub(crate) fn start_plan<'b>(&mut self) -> StreamOut<'b> {
        self.plan.start()
    }

    /// Sends what was gathered; what had to be dropped.
    pub(crate) fn send(&mut self, mut out: StreamOut<'_>, epoll: &Epoll) -> Traffic {
        let mut all_dropped = Traffic::default();
        out.group();
        for frames in out.frames.chunk_by(|a, b| a.connection == b.connection) {
            let mut all = Traffic::default();
            for frame in frames {
                add(&mut all, one(frame.payload.len()));
            }
            let slot = frames[0].connection.0;
            if slot & DTLS != 0 {
                add(&mut all_dropped, self.send_datagrams(slot, frames, all));
                continue;
            }
            let limit = self.room.limits().buffer;
            let Some(to) = self.room.get_mut(slot) else {
                add(&mut all_dropped, all);
                continue;
            };
            let stats = self.stats.of_mut(to.kind);
            match to.send(frames, limit, &mut self.scratch) {
                Ok(dropped) => {
                    stats.to_client.packets += all.packets - dropped.packets;
                    stats.to_client.bytes += all.bytes - dropped.bytes;
                    add(&mut stats.dropped, dropped);
                    add(&mut all_dropped, dropped);
                }
                Err(reason) => {
                    add(&mut stats.dropped, all);
                    add(&mut all_dropped, all);
                    self.room.close(slot, reason);
                }
            }
            self.watch(slot, epoll);
        }
        self.plan.give_back(out);
        all_dropped
    }

    /// Sends what waits on a connection, because there is room again.
    pub(crate) fn flush(&mut self, slot: u32, epoll: &Epoll) {
        let Some(connection) = self.room.get_mut(slot) else {
            return;
        };
        connection.is_dirty = false;
        if let Err(reason) = connection.flush(&mut self.scratch) {
            self.room.close(slot, reason);
        }
        self.watch(slot, epoll);
    }

    /// Has the kernel tell when something arrives, and when there is room if something waits for it.
    pub(super) fn watch_new(
        &self,
        slot: u32,
        connection: &Connection,
        epoll: &Epoll,
    ) -> io::Result<()> {
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, connection.is_watched);
        let event = EpollEvent::new(flags, CONNECTIONS + u64::from(slot));
        Ok(epoll.add(&connection.socket, event)?)
    }

    /// Has the kernel tell when there is room, while something waits for it.
    fn watch(&mut self, slot: u32, epoll: &Epoll) {
        let Some(connection) = self.room.get_mut(slot) else {
            return;
        };
        let wanted = !connection.is_idle();
        if wanted == connection.is_watched {
            return;
        }
        connection.is_watched = wanted;
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, wanted);
        let mut event = EpollEvent::new(flags, CONNECTIONS + u64::from(slot));
        if epoll.modify(&connection.socket, &mut event).is_err() {
            self.room.close(slot, CloseReason::Broken);
        }
    }

    /// Finds out whose time is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant, epoll: &Epoll) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.watch_listeners(EpollFlags::EPOLLIN, epoll);
        }
        self.dtls.handle_timeout(now);
        self.room.handle_timeout(now);
    }

    /// When [`Streams::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let next = [
            self.resume_joined_at(),
            self.paused_until,
            self.room.poll_timeout(),
            self.dtls.poll_timeout(),
        ];
        next.into_iter().flatten().min()
    }

    /// Sends all answers of a turn.
    pub(crate) fn flush_answers(&mut self, epoll: &Epoll) {
        while let Some(slot) = self.dirty.pop() {
            self.flush(slot, epoll);
        }
    }

    /// Closes the next connection that is to be closed: its five-tuple is over.
    pub(crate) fn poll_closed(&mut self) -> Option<FiveTuple> {
        match self.room.poll_closed(&mut self.stats) {
            Some((_, connection)) => Some(connection.path),
            None => self.dtls.poll_closed(&mut self.stats),
        }
    }

    /// The turn is over: what ended in it may be used again.
    pub(crate) fn end_turn(&mut self) {
        self.splices.end_turn();
        self.dtls.room.end_turn();
        self.room.end_turn();
    }
}

/// Scope and flow label are left out, as over UDP: they are not part of a transport address.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

fn one(bytes: usize) -> Traffic {
    Traffic {
        packets: 1,
        bytes: bytes as u64,
    }
}

fn add(to: &mut Traffic, more: Traffic) {
    to.packets += more.packets;
    to.bytes += more.bytes;
}
