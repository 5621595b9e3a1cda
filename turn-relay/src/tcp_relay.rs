//! TCP to peers (RFC 6062): relayed addresses that listen, connections from them to peers, and peers' sockets until a
//! client's connection is joined to them.
//!
//! An event loop has the relayed addresses of its allocations. The client's connection that is joined to a peer's may be
//! another loop's; so the peers' sockets are in [`PeerSockets`], which all loops share, and whoever joins one watches it.

use model::PeerAddr;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use rustc_hash::FxHashMap;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use turn_relay_proto::{OpenError, PeerConnectionId, RelayId};

/// Tokens of relayed addresses by slot, of connections on their way by number, and of joined ones.
const LISTENING: u64 = 1 << 50;
const CONNECTING: u64 = 1 << 51;
const JOINED: u64 = 1 << 52;
const END: u64 = 1 << 53;
/// Connections that the kernel keeps for one relayed address until they are accepted.
const BACKLOG: i32 = 64;
/// Connections that one relayed address is asked for in a turn.
const ACCEPTS: usize = 16;
/// How long nothing is accepted when the kernel has run out of something.
const PAUSE: Duration = Duration::from_millis(100);
/// A peer that acknowledges nothing for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// A peer that is silent for so long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TcpEvent {
    /// A relayed address, by slot.
    Listening(usize),
    /// A connection on its way, by number.
    Connecting(u32),
    /// Two joined connections, and whether it is the peer's.
    Joined { index: u32, peer: bool },
}

/// Whether an event is of TCP to peers: then, of what.
pub(crate) fn event(token: u64) -> Option<TcpEvent> {
    match token {
        LISTENING..CONNECTING => Some(TcpEvent::Listening((token - LISTENING) as usize)),
        CONNECTING..JOINED => Some(TcpEvent::Connecting((token - CONNECTING) as u32)),
        JOINED..END => {
            let joined = token - JOINED;
            Some(TcpEvent::Joined {
                index: (joined / 2) as u32,
                peer: joined % 2 == 1,
            })
        }
        _ => None,
    }
}

/// The token of one end of joined connections.
pub(crate) fn joined(index: u32, peer: bool) -> u64 {
    JOINED + 2 * u64::from(index) + u64::from(peer)
}

/// The sockets of connections with peers, of all event loops. Locked when one begins or ends.
#[derive(Debug, Default)]
pub(crate) struct PeerSockets(Mutex<FxHashMap<u32, Arc<TcpStream>>>);

impl PeerSockets {
    fn all(&self) -> MutexGuard<'_, FxHashMap<u32, Arc<TcpStream>>> {
        // Each change is complete before anything could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, connection: PeerConnectionId, socket: TcpStream) {
        self.all().insert(connection.number(), Arc::new(socket));
    }

    pub(crate) fn get(&self, connection: PeerConnectionId) -> Option<Arc<TcpStream>> {
        self.all().get(&connection.number()).cloned()
    }

    /// Its end, if it is not known yet. Whoever has it joined sees both directions end.
    pub(crate) fn close(&self, connection: PeerConnectionId) {
        let socket = self.all().remove(&connection.number());
        if let Some(socket) = socket {
            // It may have ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

#[derive(Debug)]
struct Connecting {
    relay: RelayId,
    connection: PeerConnectionId,
    socket: TcpStream,
}

/// Of one event loop.
#[derive(Debug)]
pub(crate) struct TcpRelays {
    /// By [`RelayId::slot`].
    listening: FxHashMap<usize, (RelayId, TcpListener)>,
    /// By number.
    connecting: FxHashMap<u32, Connecting>,
    sockets: Arc<PeerSockets>,
    /// Slots that nothing is accepted on, until then.
    paused: Vec<usize>,
    paused_until: Option<Instant>,
}

impl TcpRelays {
    pub(crate) fn new(sockets: Arc<PeerSockets>) -> Self {
        Self {
            listening: FxHashMap::default(),
            connecting: FxHashMap::default(),
            sockets,
            paused: Vec::new(),
            paused_until: None,
        }
    }

    pub(crate) fn sockets(&self) -> &PeerSockets {
        &self.sockets
    }

    /// Listens on a relayed address.
    pub(crate) fn open(
        &mut self,
        relay: RelayId,
        address: SocketAddr,
        epoll: &Epoll,
    ) -> Result<(), OpenError> {
        let failed = |error: io::Error| {
            if error.kind() == ErrorKind::AddrInUse {
                return OpenError::PortInUse;
            }
            tracing::warn!(%address, %error, "cannot listen on a relayed address");
            OpenError::Other
        };
        let listener = listen(address).map_err(failed)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENING + relay.slot() as u64);
        epoll
            .add(&listener, event)
            .map_err(|error| failed(error.into()))?;
        self.listening.insert(relay.slot(), (relay, listener));
        Ok(())
    }

    /// Closes a relayed address, if it is one of these. What came by it stays.
    pub(crate) fn close(&mut self, relay: RelayId) {
        let slot = relay.slot();
        if self
            .listening
            .get(&slot)
            .is_some_and(|(id, _)| *id == relay)
        {
            self.listening.remove(&slot);
        }
    }

    /// Connections of peers that wait at a relayed address, as many as a turn has time for. `name` names each, or wants it
    /// closed.
    pub(crate) fn accept(
        &mut self,
        slot: usize,
        now: Instant,
        epoll: &Epoll,
        mut name: impl FnMut(RelayId, PeerAddr) -> Option<PeerConnectionId>,
    ) {
        let Some((relay, listener)) = self.listening.get(&slot) else {
            return;
        };
        for _ in 0..ACCEPTS {
            match listener.accept() {
                Ok((socket, source)) => {
                    let source = SocketAddr::new(source.ip(), source.port());
                    let Some(connection) = name(*relay, PeerAddr(source)) else {
                        continue;
                    };
                    match socket.set_nonblocking(true) {
                        Ok(()) => self.sockets.put(connection, socket),
                        Err(error) => tracing::debug!(%error, "cannot serve a peer's connection"),
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                    _ => {
                        tracing::warn!(%error, "cannot accept a peer's connection");
                        watch(listener, slot, EpollFlags::empty(), epoll);
                        self.paused.push(slot);
                        self.paused_until = Some(now + PAUSE);
                        return;
                    }
                },
            }
        }
    }

    /// Begins to connect; whether that is possible.
    pub(crate) fn connect(
        &mut self,
        relay: RelayId,
        connection: PeerConnectionId,
        from: SocketAddr,
        peer: PeerAddr,
        epoll: &Epoll,
    ) -> bool {
        let number = connection.number();
        let begun = connect(from, peer.0).and_then(|socket| {
            let flags = EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT;
            epoll.add(
                &socket,
                EpollEvent::new(flags, CONNECTING + u64::from(number)),
            )?;
            Ok(socket)
        });
        match begun {
            Ok(socket) => {
                let connecting = Connecting {
                    relay,
                    connection,
                    socket,
                };
                self.connecting.insert(number, connecting);
                true
            }
            Err(error) => {
                tracing::debug!(%error, "cannot connect to a peer");
                false
            }
        }
    }

    /// A connection on its way is up, or has failed: of which relayed address, its name, and whether it is up.
    pub(crate) fn on_connected(
        &mut self,
        number: u32,
        epoll: &Epoll,
    ) -> Option<(RelayId, PeerConnectionId, bool)> {
        let Connecting {
            relay,
            connection,
            socket,
        } = self.connecting.remove(&number)?;
        let is_up = matches!(socket.take_error(), Ok(None)) && socket.peer_addr().is_ok();
        if is_up {
            // Whoever it is joined to watches it, in another loop perhaps.
            let _ = epoll.delete(&socket);
            self.sockets.put(connection, socket);
        }
        Some((relay, connection, is_up))
    }

    /// The end of a connection with a peer, wherever it is.
    pub(crate) fn close_peer(&mut self, connection: PeerConnectionId) {
        self.connecting.remove(&connection.number());
        self.sockets.close(connection);
    }

    /// When [`TcpRelays::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Accepts again where it paused.
    pub(crate) fn handle_timeout(&mut self, now: Instant, epoll: &Epoll) {
        if self.paused_until.is_none_or(|until| until > now) {
            return;
        }
        self.paused_until = None;
        for slot in self.paused.drain(..) {
            if let Some((_, listener)) = self.listening.get(&slot) {
                watch(listener, slot, EpollFlags::EPOLLIN, epoll);
            }
        }
    }
}

fn watch(listener: &TcpListener, slot: usize, flags: EpollFlags, epoll: &Epoll) {
    let mut event = EpollEvent::new(flags, LISTENING + slot as u64);
    // It is watched already: nothing is needed that could be missing.
    let _ = epoll.modify(listener, &mut event);
}

/// What is set here is what accepted connections have, too (tcp(7)).
fn socket(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of an allocation before may linger at this port.
    socket.set_reuse_address(true)?;
    // The relayed address listens, and connects to peers as well.
    socket.set_reuse_port(share)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok(socket)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // With SO_REUSEPORT it would share a port that another program of ours listens on: so first without.
    let alone = socket(address, false)?;
    alone.bind(&address.into())?;
    drop(alone);
    let socket = socket(address, true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn connect(from: SocketAddr, peer: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket(from, true)?;
    socket.bind(&from.into())?;
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}
