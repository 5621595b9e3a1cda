//! Sockets of clients and peers.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use socket2::{Domain, Socket, Type};

/// As much as the kernel may join into one buffer.
const BUFFER_LEN: usize = 65_536;
/// A receiver must lose nothing while it sends: the relay's losses are counted, not ours.
pub(crate) const PATIENT: usize = 16 << 20;
/// What waits in a queue should not have left the cache when its turn comes.
pub(crate) const WARM: usize = 1 << 20;

/// The unspecified address of the same family.
pub(crate) const fn any(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// The address that this machine has towards another.
///
/// # Errors
/// There is no route.
pub(crate) fn towards(other: SocketAddr) -> Result<IpAddr> {
    let probe = UdpSocket::bind((any(other.ip()), 0)).context("a socket")?;
    probe
        .connect(other)
        .with_context(|| format!("no way to {other}"))?;
    Ok(probe.local_addr()?.ip())
}

/// A small socket that does not block, on any free port of `local`.
///
/// # Errors
/// The address is not ours, or there are no more files or ports.
pub(crate) fn plain(local: IpAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((local, 0)).with_context(|| format!("a socket on {local}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A socket for a flow, which is sent to with GSO and received from with GRO.
#[derive(Debug)]
pub(crate) struct FlowSocket {
    pub(crate) io: UdpSocket,
    state: UdpSocketState,
}

impl FlowSocket {
    /// On any free port of `local`, with room for so many bytes that were not received yet.
    ///
    /// # Errors
    /// As [`plain`].
    pub(crate) fn bind(local: IpAddr, room: usize) -> Result<Self> {
        let address = SocketAddr::new(local, 0);
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        // Beyond the system's limit where that is allowed.
        if setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &room).is_err() {
            socket.set_recv_buffer_size(room)?;
        }
        socket
            .bind(&address.into())
            .with_context(|| format!("a socket on {local}"))?;
        let io = UdpSocket::from(socket);
        let state = UdpSocketState::new((&io).into())?;
        Ok(Self { io, state })
    }

    /// Takes what the kernel has, at most one `recvmmsg`. 0 when there is nothing.
    ///
    /// # Errors
    /// What the kernel says, besides that there is nothing and that a packet sent before was refused.
    pub(crate) fn receive(&self, buffers: &mut Buffers) -> io::Result<usize> {
        let mut rest = &mut buffers.memory[..];
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| {
            let (buffer, tail) = std::mem::take(&mut rest).split_at_mut(BUFFER_LEN);
            rest = tail;
            IoSliceMut::new(buffer)
        });
        let wanted = buffers.wanted;
        let received = self.state.recv(
            (&self.io).into(),
            &mut slices[..wanted],
            &mut buffers.meta[..wanted],
        );
        match received {
            Ok(count) => Ok(count),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused => Ok(0),
                _ => Err(error),
            },
        }
    }
}

/// Room for one `recvmmsg`.
#[derive(Debug)]
pub(crate) struct Buffers {
    memory: Vec<u8>,
    meta: [RecvMeta; BATCH_SIZE],
    wanted: usize,
}

impl Buffers {
    /// Of one `recvmmsg`.
    pub(crate) const MOST: usize = BATCH_SIZE;

    /// So many, at most [`Self::MOST`].
    pub(crate) fn new(wanted: usize) -> Self {
        Self {
            memory: vec![0; BUFFER_LEN * Self::MOST],
            meta: [RecvMeta::default(); BATCH_SIZE],
            wanted: wanted.clamp(1, BATCH_SIZE),
        }
    }

    /// Of the next `recvmmsg`, so many at most.
    pub(crate) fn want(&mut self, wanted: usize) {
        self.wanted = wanted.clamp(1, Self::MOST);
    }

    /// The first `filled` buffers with the length of the datagrams in each; the last one of a buffer may be shorter.
    pub(crate) fn filled(&self, filled: usize) -> impl Iterator<Item = (&[u8], usize)> {
        let buffers = self.memory.chunks_exact(BUFFER_LEN).zip(&self.meta);
        buffers
            .take(filled)
            .map(|(buffer, meta)| (&buffer[..meta.len], meta.stride.max(1)))
    }
}
