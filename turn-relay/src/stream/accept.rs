//! Listening for connections: for each address one socket per event loop, as over UDP.

use model::ServerAddr;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;
use turn_relay_proto::{ConnectionId, Transport};

/// Connections that the kernel keeps for one event loop until they are accepted.
const BACKLOG: i32 = 1_024;
/// Bytes that the kernel takes beyond what it can send: more would only be older when it arrives.
const NOT_SENT: u32 = 128 << 10;
/// A client that acknowledges nothing for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that is silent for so long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    Tcp = 0,
    Tls = 1,
    /// Sessions over UDP.
    Dtls = 2,
}

impl StreamKind {
    pub(crate) const ALL: [Self; 3] = [Self::Tcp, Self::Tls, Self::Dtls];

    /// As a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Dtls => "dtls",
        }
    }

    pub(crate) fn transport(self, connection: ConnectionId) -> Transport {
        match self {
            Self::Tcp => Transport::Tcp(connection),
            Self::Tls => Transport::Tls(connection),
            Self::Dtls => Transport::Dtls(connection),
        }
    }
}

impl fmt::Display for StreamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// One event loop's socket for one address.
#[derive(Debug)]
pub(crate) struct StreamListener {
    pub(crate) kind: StreamKind,
    pub(crate) socket: TcpListener,
    /// With the port that the kernel chose, if 0 was asked for.
    pub(crate) address: ServerAddr,
}

/// Listens on an address, once for each event loop.
///
/// # Errors
/// What the kernel says to the address.
pub(crate) fn bind(
    kind: StreamKind,
    address: ServerAddr,
    threads: u16,
) -> io::Result<Vec<StreamListener>> {
    // With SO_REUSEPORT a second relay would silently get half of the clients of the first: so first without.
    let alone = listen(address.0, false)?;
    let address = ServerAddr(alone.local_addr()?);
    let listener = |socket| StreamListener {
        kind,
        socket,
        address,
    };
    if threads == 1 {
        return Ok(vec![listener(alone)]);
    }
    drop(alone);
    (0..threads)
        .map(|_| listen(address.0, true).map(listener))
        .collect()
}

/// What is set here is what accepted connections have, too (tcp(7)).
fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections of the process before may linger; a listening socket is still in the way.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOT_SENT)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
