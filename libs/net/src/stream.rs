use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

/// Bytes taken by one read.
const READ: usize = 64 << 10;
/// More than one read of TLS can bring.
const TLS_READ: usize = 33 << 10;
/// What the kernel may hold that it has not sent: beyond it a queue is better kept where it can be looked at.
const NOT_SENT: u32 = 128 << 10;
/// What was sent and is not acknowledged for so long ends the connection. Left to itself, TCP would wait for a quarter of an
/// hour, ever longer between two attempts, and a network that is back would be noticed a minute later.
const GIVEN_UP: Duration = Duration::from_secs(6);

/// What TLS needs to know of the other end.
#[derive(Debug, Clone)]
pub struct TlsTo {
    /// Roots, and the rest.
    pub config: Arc<ClientConfig>,
    /// Whom the certificate has to be for.
    pub name: ServerName<'static>,
}

/// A connection to a server over TCP, or over TLS on it, that never waits.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    local: SocketAddr,
    tls: Option<Box<ClientConnection>>,
    connected: bool,
}

impl Stream {
    /// Begins to connect. Have the poller watch it, for writing too, and call [`Self::drive`] when it is ready.
    ///
    /// # Errors
    /// When there can be no socket, or no way to the server.
    pub fn connect(server: SocketAddr, tls: Option<TlsTo>) -> io::Result<Self> {
        let domain = Domain::for_address(server);
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&TcpKeepalive::new())?;
        socket.set_tcp_user_timeout(Some(GIVEN_UP))?;
        // A matter of queues only.
        let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
        match socket.connect(&SockAddr::from(server)) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let socket = TcpStream::from(socket);
        let local = socket.local_addr()?;
        let tls = tls
            .map(|TlsTo { config, name }| ClientConnection::new(config, name))
            .transpose()
            .map_err(invalid)?;
        Ok(Self {
            socket,
            local,
            tls: tls.map(|mut tls| {
                // What may wait is the caller's to bound.
                tls.set_buffer_limit(None);
                Box::new(tls)
            }),
            connected: false,
        })
    }

    /// This end's address.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Gets on with the connection and the handshake; whether both are done, so that data can be sent.
    ///
    /// # Errors
    /// When it came to nothing: refused, unreachable, or a certificate that is not to be believed.
    pub fn drive(&mut self) -> io::Result<bool> {
        if !self.connected {
            if let Some(error) = self.socket.take_error()? {
                return Err(error);
            }
            match self.socket.peer_addr() {
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(false),
                result => drop(result?),
            }
            self.connected = true;
        }
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        if tls.is_handshaking() {
            write_tls(tls, &mut self.socket)?;
            match tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {
                    let processed = tls.process_new_packets();
                    // An alert says why.
                    let _ = write_tls(tls, &mut self.socket);
                    processed.map_err(invalid)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!tls.is_handshaking())
    }

    /// Whether something of TLS waits for the kernel.
    pub fn wants_write(&self) -> bool {
        !self.connected || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Appends what has arrived, some 64 KiB at most; how much.
    ///
    /// # Errors
    /// `WouldBlock` when nothing was waiting; otherwise the connection is over, `UnexpectedEof` when the other end
    /// closed it.
    pub fn try_recv(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let before = into.len();
        into.resize(before + READ, 0);
        let read = match &mut self.tls {
            None => self.socket.read(&mut into[before..]),
            Some(tls) => read_tls(tls, &mut self.socket, &mut into[before..]),
        };
        into.truncate(before + read.as_ref().copied().unwrap_or_default());
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            read => read,
        }
    }

    /// Sends parts, one after the other; how many bytes were taken. TLS takes all or nothing.
    ///
    /// # Errors
    /// `WouldBlock` when nothing was taken; otherwise the connection is over.
    pub fn try_send(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.write_vectored(parts);
        };
        write_tls(tls, &mut self.socket)?;
        if tls.wants_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = tls.writer().write_vectored(parts)?;
        write_tls(tls, &mut self.socket)?;
        Ok(taken)
    }

    /// Says good-bye, as far as the kernel takes it.
    pub fn close(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = write_tls(tls, &mut self.socket);
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Until the kernel takes no more.
fn write_tls(tls: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Plaintext, leaving none behind: the poller knows only of what the kernel has.
fn read_tls(
    tls: &mut ClientConnection,
    socket: &mut TcpStream,
    into: &mut [u8],
) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        match tls.reader().read(&mut into[filled..]) {
            Ok(0) if filled < into.len() => return Ok(filled),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return if filled > 0 { Ok(filled) } else { Err(error) },
        }
        if into.len() - filled < TLS_READ {
            return Ok(filled);
        }
        match tls.read_tls(socket) {
            Ok(0) if filled > 0 => return Ok(filled),
            Ok(0) => return Ok(0),
            Ok(_) => {
                tls.process_new_packets().map_err(invalid)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && filled > 0 => {
                return Ok(filled);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_connection_is_given_up_after_seconds_of_silence_and_not_after_minutes() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let server = listener.local_addr().expect("an address");
        let stream = Stream::connect(server, None).expect("a connection");
        let timeout = socket2::SockRef::from(&stream.socket).tcp_user_timeout();
        assert_eq!(timeout.expect("an option"), Some(GIVEN_UP));
    }
}
