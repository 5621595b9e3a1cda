use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use quinn_udp::{Transmit, UdpSocketState};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::recv_batch::{Meta, RecvBatch};
use crate::{MAX_GSO_BYTES, MAX_GSO_SEGMENTS};

/// How a socket is set up.
#[derive(Debug, Clone, Copy)]
pub struct UdpOptions {
    /// Bytes wanted for the kernel's receive buffer. The kernel's default of 208 KiB loses datagrams in every
    /// burst.
    pub receive_buffer: usize,
    /// Bytes wanted for the kernel's send buffer.
    pub send_buffer: usize,
    /// `SO_REUSEPORT`: several sockets of one process share the port, one per core.
    pub reuse_port: bool,
    /// Lets the kernel fragment datagrams that exceed the path's MTU. Without it such a send fails with
    /// `EMSGSIZE`, which is what a sender that chooses its own sizes wants to know.
    pub may_fragment: bool,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            receive_buffer: 8 << 20,
            send_buffer: 4 << 20,
            reuse_port: false,
            may_fragment: false,
        }
    }
}

/// A UDP socket that receives and sends many datagrams per system call. Never blocks. Sends and receives
/// with a shared reference, so a loop can hold several without locks. Who waits for it watches the descriptor.
#[derive(Debug)]
pub struct UdpSocket {
    io: std::net::UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
}

impl UdpSocket {
    /// Binds to `address` (port 0: the kernel chooses). An IPv6 socket takes IPv6 only.
    ///
    /// # Errors
    ///
    /// What the kernel says: address in use, address not ours, no such family. The buffers are a wish, never
    /// an error: without `CAP_NET_ADMIN` the kernel caps them at `net.core.rmem_max` and `wmem_max`.
    pub fn bind(address: SocketAddr, options: UdpOptions) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        enlarge(
            &socket,
            libc::SO_RCVBUFFORCE,
            options.receive_buffer,
            |s, n| s.set_recv_buffer_size(n),
        );
        enlarge(
            &socket,
            libc::SO_SNDBUFFORCE,
            options.send_buffer,
            |s, n| s.set_send_buffer_size(n),
        );
        let io = std::net::UdpSocket::from(socket);
        let state = UdpSocketState::new((&io).into())?;
        if options.may_fragment {
            allow_fragments(&io, address)?;
        }
        let local = io.local_addr()?;
        let granted = SockRef::from(&io).recv_buffer_size().unwrap_or(0);
        // Linux reports twice what it granted.
        if granted / 2 < options.receive_buffer {
            tracing::debug!(%local, granted = granted / 2, wanted = options.receive_buffer,
                "the kernel granted a smaller receive buffer; raise net.core.rmem_max");
        }
        Ok(Self { io, state, local })
    }

    /// The address the socket is bound to, with the port that the kernel chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The socket as the tokio runtime that this is called in reports it: readable. Follow that by
    /// [`Self::try_recv_batch`], and clear it when that says `WouldBlock`.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch it.
    #[allow(unsafe_code)]
    pub fn into_async(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is owned by what is registered and stays the same until that is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        Ok(registered?)
    }

    /// Takes what has arrived, at most 32 buffers of up to 64 datagrams, and calls `each` with every datagram.
    /// The slice may be changed in place. Returns the number of datagrams.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing was waiting; otherwise what the kernel reports. Neither makes the socket
    /// unusable.
    pub fn try_recv_batch(
        &self,
        batch: &mut RecvBatch,
        each: impl FnMut(&mut [u8], Meta),
    ) -> io::Result<usize> {
        let filled = batch.fill(|buffers, meta| self.receive(buffers, meta))?;
        Ok(batch.for_each(filled, self.local, each))
    }

    /// Whether the kernel would not refuse this destination for its form alone.
    pub(crate) fn reaches(&self, destination: SocketAddr) -> bool {
        is_destination(destination) && destination.is_ipv4() == self.local.is_ipv4()
    }

    pub(crate) fn receive(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [quinn_udp::RecvMeta],
    ) -> io::Result<usize> {
        self.state.recv((&self.io).into(), buffers, meta)
    }

    /// How many equal datagrams one [`Self::try_send`] may carry now; 1 once the kernel refused GSO.
    pub fn max_segments(&self) -> usize {
        self.state.max_gso_segments().clamp(1, MAX_GSO_SEGMENTS)
    }

    /// Sends `contents` as one datagram, or cut into datagrams of `segment_size` bytes (the last may be
    /// shorter) when given. Returns how many bytes the kernel took: all of them, or a multiple of
    /// `segment_size` when it has no GSO and its buffer filled halfway.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the kernel's buffer is full: nothing was sent. Others concern this destination
    /// (unreachable, too big for the path) and say nothing about the next datagram.
    pub fn try_send(
        &self,
        destination: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<usize> {
        self.try_send_from(None, destination, contents, segment_size)
    }

    /// As [`Self::try_send`], from a chosen source address: for a socket bound to the wildcard that answers
    /// from the address it was asked at. The port of `source` and an unspecified address are ignored.
    ///
    /// # Errors
    ///
    /// As [`Self::try_send`].
    pub fn try_send_from(
        &self,
        source: Option<SocketAddr>,
        destination: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<usize> {
        let source = source
            .map(|address| address.ip())
            .filter(|ip| !ip.is_unspecified());
        let segment = segment_size.filter(|&size| size > 0 && size < contents.len());
        let Some(segment) = segment else {
            return self.send_one(source, destination, contents, None);
        };
        let fits = contents.len() <= MAX_GSO_BYTES
            && contents.len().div_ceil(segment) <= self.max_segments();
        if fits {
            match self.send_one(source, destination, contents, Some(segment)) {
                // The kernel or the device cannot do GSO after all, and quinn-udp has just noted it.
                Err(e) if matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => {}
                result => return result,
            }
        }
        self.send_apart(source, destination, contents, segment)
    }

    fn send_apart(
        &self,
        source: Option<IpAddr>,
        destination: SocketAddr,
        contents: &[u8],
        segment: usize,
    ) -> io::Result<usize> {
        // As many datagrams per call as the kernel allows: 1 without GSO.
        let stride = segment * self.max_segments().min(MAX_GSO_BYTES / segment).max(1);
        let mut sent = 0;
        for piece in contents.chunks(stride) {
            let cut = (piece.len() > segment).then_some(segment);
            match self.send_one(source, destination, piece, cut) {
                Ok(bytes) => sent += bytes,
                Err(e) if sent == 0 => return Err(e),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(sent)
    }

    fn send_one(
        &self,
        src_ip: Option<IpAddr>,
        destination: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<usize> {
        // The kernel says EINVAL to port 0, and quinn-udp would take that for a missing GSO, for ever: one hostile
        // candidate would slow down everybody. The others are no destinations either.
        let reachable = self.reaches(destination)
            && src_ip.is_none_or(|ip| ip.is_ipv4() == self.local.is_ipv4());
        if !reachable {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a destination",
            ));
        }
        let transmit = Transmit {
            destination,
            ecn: None,
            contents,
            segment_size,
            src_ip,
        };
        self.state.try_send((&self.io).into(), &transmit)?;
        Ok(contents.len())
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.io.as_raw_fd()
    }
}

/// Neither port 0, nor "this network" (RFC 1122 section 3.2.1.3), nor a link-local address without its zone.
fn is_destination(address: SocketAddr) -> bool {
    let sensible = match address {
        SocketAddr::V4(v4) => v4.ip().octets()[0] != 0,
        SocketAddr::V6(v6) => {
            !v6.ip().is_unspecified() && (!v6.ip().is_unicast_link_local() || v6.scope_id() != 0)
        }
    };
    sensible && address.port() != 0
}

/// Tries the privileged option, which ignores the system's limit, and then the ordinary one.
fn enlarge(
    socket: &Socket,
    forced: libc::c_int,
    bytes: usize,
    ordinary: impl FnOnce(&Socket, usize) -> io::Result<()>,
) {
    let bytes = bytes.min(i32::MAX as usize / 2);
    if set_int_option(socket, libc::SOL_SOCKET, forced, bytes as libc::c_int).is_err()
        && let Err(error) = ordinary(socket, bytes)
    {
        tracing::debug!(%error, bytes, "the kernel refused the size of a socket buffer");
    }
}

fn allow_fragments(io: &impl AsFd, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv4() {
        return set_int_option(
            io,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_DONT,
        );
    }
    set_int_option(
        io,
        libc::IPPROTO_IPV6,
        libc::IPV6_MTU_DISCOVER,
        libc::IPV6_PMTUDISC_DONT,
    )?;
    set_int_option(io, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)
}

#[allow(unsafe_code)]
fn set_int_option(
    socket: &impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is open for the length of the borrow, and the value is an int that lives across
    // the call, with its own size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
