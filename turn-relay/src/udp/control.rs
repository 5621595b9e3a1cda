//! What the kernel writes beside a datagram: an address, and control messages (`cmsg(3)`).

#![allow(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ptr;
use turn_relay_proto::Family;

/// The control messages of one datagram, as far as the socket was set up for them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Controls {
    /// How long each datagram is of those that the kernel joined.
    pub(super) segment: Option<usize>,
    /// Which of our addresses it came to.
    pub(super) local: Option<IpAddr>,
    /// Of an error queue: what went wrong.
    pub(super) error: Option<(Family, libc::sock_extended_err)>,
}

/// Reads those of a header that `recvmsg` or `recvmmsg` has filled.
pub(super) fn controls(header: &libc::msghdr) -> Controls {
    let mut found = Controls::default();
    // SAFETY: `header` was filled by the kernel: its control buffer holds `msg_controllen` bytes of control messages,
    // which these macros walk without leaving it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a complete header within the buffer.
    while let Some(message) = unsafe { next.as_ref() } {
        // SAFETY: the data follows the header; it is read only as the type that level and type announce.
        let data = unsafe { libc::CMSG_DATA(message) };
        match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: the kernel puts an int; it may be unaligned, as all of the following.
                let size = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                found.segment = usize::try_from(size).ok();
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel puts an in_pktinfo.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                found.local = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel puts an in6_pktinfo.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                found.local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            (level @ libc::IPPROTO_IP, libc::IP_RECVERR)
            | (level @ libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                // SAFETY: the kernel puts a sock_extended_err.
                let error = unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() };
                let family = match level {
                    libc::IPPROTO_IP => Family::V4,
                    _ => Family::V6,
                };
                found.error = Some((family, error));
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR; `message` lies in the buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    found
}

/// An address that the kernel wrote; `None` if it is of no family that we know.
pub(super) fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in, and a sockaddr_storage is larger and aligned for it.
            let v4 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Some((ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            // Scope and flow label are left out: they are not part of a transport address.
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some((ip, u16::from_be(v6.sin6_port)).into())
        }
        _ => None,
    }
}
