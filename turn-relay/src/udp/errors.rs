//! A socket's error queue: what came back as ICMP about datagrams that it sent (`ip(7)`, IP_RECVERR).

#![allow(unsafe_code)]

use crate::udp::recv::address;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use turn_relay_proto::{Family, Icmp};

/// For a sock_extended_err with an address (16 bytes of header, 16 and 28), IPV6_PKTINFO (40) and UDP_GRO, in words.
const CONTROL_WORDS: usize = 32;

/// One error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueuedError {
    /// Where the datagram went to.
    pub(crate) peer: SocketAddr,
    /// Which of our addresses the ICMP packet came to, if the socket was set up to tell.
    pub(crate) local: Option<IpAddr>,
    pub(crate) icmp: Icmp,
}

/// What [`take_error`] found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken {
    Error(QueuedError),
    /// Something else than ICMP, or from nowhere.
    Other,
    /// Nothing is left.
    Nothing,
}

/// Takes one error from the queue.
pub(crate) fn take_error(socket: BorrowedFd<'_>) -> Taken {
    let mut control = [0u64; CONTROL_WORDS];
    // SAFETY: plain C structures for which zeros are valid.
    let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of_val(&name) as libc::socklen_t;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header leads to a name and a control buffer on this stack frame, with their sizes, and to no other
    // buffer: the datagram's beginning, which the queue has too, is not wanted.
    let received = unsafe {
        libc::recvmsg(
            socket.as_raw_fd(),
            &raw mut header,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    if received < 0 {
        return Taken::Nothing;
    }
    let (icmp, local) = controls(&header);
    match (address(&name), icmp) {
        (Some(peer), Some(icmp)) => Taken::Error(QueuedError { peer, local, icmp }),
        _ => Taken::Other,
    }
}

fn controls(header: &libc::msghdr) -> (Option<Icmp>, Option<IpAddr>) {
    let (mut icmp, mut local) = (None, None);
    // SAFETY: `header` was filled by recvmsg: its control buffer holds `msg_controllen` bytes of control messages, which
    // these macros walk without leaving it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a complete header within the buffer.
    while let Some(message) = unsafe { next.as_ref() } {
        // SAFETY: the data follows the header; it is read only as the type that level and type announce.
        let data = unsafe { libc::CMSG_DATA(message) };
        match (message.cmsg_level, message.cmsg_type) {
            (libc::IPPROTO_IP, libc::IP_RECVERR) => {
                // SAFETY: the kernel puts a sock_extended_err.
                let error = unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() };
                icmp = icmp_of(Family::V4, &error);
            }
            (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) => {
                // SAFETY: as above.
                let error = unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() };
                icmp = icmp_of(Family::V6, &error);
            }
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // SAFETY: the kernel puts an in_pktinfo.
                let info = unsafe { data.cast::<libc::in_pktinfo>().read_unaligned() };
                local = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                // SAFETY: the kernel puts an in6_pktinfo.
                let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
                local = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR; `message` lies in the buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    (icmp, local)
}

/// What the network said, or what our own kernel knew before it asked the network.
fn icmp_of(family: Family, error: &libc::sock_extended_err) -> Option<Icmp> {
    let too_big = error.ee_errno == libc::EMSGSIZE as u32;
    match error.ee_origin {
        libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6 => Some(Icmp {
            kind: error.ee_type,
            code: error.ee_code,
            data: if too_big { error.ee_info } else { 0 },
        }),
        libc::SO_EE_ORIGIN_LOCAL if too_big => Some(Icmp::too_big(family, error.ee_info)),
        _ => None,
    }
}
