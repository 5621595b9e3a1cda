//! Making sockets.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};

/// Bytes wanted for each of a socket's two buffers. The kernel takes memory only for what is queued.
const BUFFER: libc::c_int = 4 << 20;

/// How a socket is set up, beyond what all have in common.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SocketOptions {
    /// Several sockets of this process share the port.
    pub(crate) reuse_port: bool,
    /// Tell of each datagram which of our addresses it was sent to.
    pub(crate) local_address: bool,
    /// Send from addresses that lead here by a route alone.
    pub(crate) any_source: bool,
    /// Receive joined datagrams, if the kernel knows how.
    pub(crate) gro: bool,
    /// The same, or fail.
    pub(crate) must_gro: bool,
    /// Keep ICMP errors in the error queue: see [`take_error`](super::take_error).
    pub(crate) errors: bool,
}

/// A non-blocking UDP socket with large buffers. IPv6 sockets take IPv6 only.
///
/// # Errors
/// What the kernel says to the address. Buffers and GRO are wishes.
pub(crate) fn bind(address: SocketAddr, options: &SocketOptions) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if options.any_source {
        if address.is_ipv4() {
            set(&socket, libc::IPPROTO_IP, libc::IP_FREEBIND, 1)?;
        } else {
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, 1)?;
        }
    }
    socket.bind(&address.into())?;
    let larger = [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF),
    ];
    for (forced, ordinary) in larger {
        // Without CAP_NET_ADMIN the system's limit holds (net.core.rmem_max, wmem_max).
        if set(&socket, libc::SOL_SOCKET, forced, BUFFER).is_err() {
            let _ = set(&socket, libc::SOL_SOCKET, ordinary, BUFFER);
        }
    }
    if options.gro || options.must_gro {
        let set = set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
        // Linux before 5.0 has no GRO for UDP: all the same, only slower.
        if options.must_gro {
            set?;
        }
    }
    if options.local_address {
        if address.is_ipv4() {
            set(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        } else {
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
    }
    if options.errors {
        if address.is_ipv4() {
            set(&socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
        } else {
            set(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
        }
    }
    Ok(socket.into())
}

/// While it lives, what a socket sends is not fragmented, neither here nor on its way; a datagram that exceeds the known MTU
/// of its path is refused (EMSGSIZE). Linux has no such choice for a single datagram (`ip(7)`, IP_MTU_DISCOVER).
#[derive(Debug)]
pub(super) struct DontFragment {
    socket: RawFd,
    level: libc::c_int,
    option: libc::c_int,
    before: libc::c_int,
}

impl DontFragment {
    /// The socket must outlive it.
    pub(super) fn on(socket: RawFd, ipv4: bool) -> Self {
        let (level, option) = if ipv4 {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
        };
        let before = get(&socket, level, option).unwrap_or(libc::IP_PMTUDISC_WANT);
        // Linux has had it since 2.2.
        let _ = set(&socket, level, option, libc::IP_PMTUDISC_DO);
        Self {
            socket,
            level,
            option,
            before,
        }
    }
}

impl Drop for DontFragment {
    fn drop(&mut self) {
        let _ = set(&self.socket, self.level, self.option, self.before);
    }
}

#[allow(unsafe_code)]
fn get(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the value is an int on this stack frame, given with its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[allow(unsafe_code)]
fn set(
    socket: &impl AsRawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the socket is open while it is borrowed; the value is an int on this stack frame, given with its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
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
