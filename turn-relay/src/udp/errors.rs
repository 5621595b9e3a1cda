//! A socket's error queue: what came back as ICMP about datagrams that it sent (`ip(7)`, IP_RECVERR).

#![allow(unsafe_code)]

use crate::udp::control::{Controls, address, controls};
use std::net::{IpAddr, SocketAddr};
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
    let Controls { local, error, .. } = controls(&header);
    let icmp = error.and_then(|(family, error)| icmp_of(family, &error));
    match (address(&name), icmp) {
        (Some(peer), Some(icmp)) => Taken::Error(QueuedError { peer, local, icmp }),
        _ => Taken::Other,
    }
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
