//! One `sendmmsg`: several messages from one socket, each of one datagram or of many that the kernel cuts apart.

#![allow(unsafe_code)]

use crate::udp::send::{Group, Segment};
use socket2::SockAddr;
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;

/// For UDP_SEGMENT (24 bytes with its header) and IPV6_PKTINFO (40), in words, for their alignment.
const CONTROL_WORDS: usize = 8;
static PADDING: [u8; 3] = [0; 3];

/// What one system call points to.
#[derive(Default)]
pub(super) struct Scratch {
    iovecs: Vec<libc::iovec>,
    names: Vec<SockAddr>,
    controls: Vec<[u64; CONTROL_WORDS]>,
    headers: Vec<libc::mmsghdr>,
}

impl Scratch {
    pub(super) fn clear(&mut self) {
        self.iovecs.clear();
        self.names.clear();
        self.controls.clear();
        self.headers.clear();
    }

    /// Begins a message. Until [`Scratch::send`], `msg_iovlen` counts and no pointer is set.
    pub(super) fn begin(&mut self, group: &Group, segment: Option<usize>) {
        // SAFETY: a plain C structure for which zeros are valid.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let mut control = [0; CONTROL_WORDS];
        header.msg_hdr.msg_controllen = write_controls(&mut control, segment, group.from);
        self.names.push(group.to.into());
        self.controls.push(control);
        self.headers.push(header);
    }

    /// Adds a datagram to the message last begun.
    pub(super) fn add(&mut self, segment: &Segment, prefixes: &[u8]) {
        let at = segment.prefix as usize;
        let prefix = &prefixes[at..at + usize::from(segment.prefix_len)];
        let parts = [
            (prefix.as_ptr(), prefix.len()),
            (segment.payload, segment.len as usize),
            (PADDING.as_ptr(), usize::from(segment.padding)),
        ];
        let Some(header) = self.headers.last_mut() else {
            return;
        };
        for (base, len) in parts.into_iter().filter(|(_, len)| *len > 0) {
            self.iovecs.push(libc::iovec {
                // Only read from: sendmmsg does not write to what it sends.
                iov_base: base.cast_mut().cast(),
                iov_len: len,
            });
            header.msg_hdr.msg_iovlen += 1;
        }
    }

    pub(super) fn send(&mut self, socket: RawFd) -> io::Result<usize> {
        let mut iovecs = self.iovecs.as_mut_ptr();
        let destinations = self.names.iter().zip(&mut self.controls);
        for (header, (name, control)) in self.headers.iter_mut().zip(destinations) {
            let header = &mut header.msg_hdr;
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len();
            header.msg_iov = iovecs;
            // SAFETY: the lengths of all messages add up to the number of iovecs.
            iovecs = unsafe { iovecs.add(header.msg_iovlen) };
            header.msg_control = if header.msg_controllen == 0 {
                std::ptr::null_mut()
            } else {
                control.as_mut_ptr().cast()
            };
        }
        // SAFETY: the headers lead to names, controls and iovecs in the other vectors, which do not change during the
        // call; the iovecs lead to prefixes, which do not either, and to payloads that `Outgoing` still borrows, as it
        // does the socket.
        let sent = unsafe {
            libc::sendmmsg(
                socket,
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Writes UDP_SEGMENT and the source address; the number of bytes used.
fn write_controls(
    control: &mut [u64; CONTROL_WORDS],
    segment: Option<usize>,
    from: Option<IpAddr>,
) -> usize {
    let mut used = 0;
    if let Some(size) = segment {
        // A group holds at most 65 000 bytes.
        used += put(control, used, libc::SOL_UDP, libc::UDP_SEGMENT, size as u16);
    }
    match from {
        None => {}
        Some(IpAddr::V4(ip)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(ip.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            used += put(control, used, libc::IPPROTO_IP, libc::IP_PKTINFO, info);
        }
        Some(IpAddr::V6(ip)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                ipi6_ifindex: 0,
            };
            used += put(control, used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info);
        }
    }
    used
}

/// Writes one control message at a byte offset that is a multiple of 8; the bytes it takes.
fn put<T: Copy>(
    control: &mut [u64; CONTROL_WORDS],
    offset: usize,
    level: libc::c_int,
    kind: libc::c_int,
    value: T,
) -> usize {
    // SAFETY: pure arithmetic.
    let (len, space) = unsafe {
        let size = size_of::<T>() as libc::c_uint;
        (
            libc::CMSG_LEN(size) as usize,
            libc::CMSG_SPACE(size) as usize,
        )
    };
    assert!(offset + space <= size_of_val(control));
    let header = control.as_mut_ptr().wrapping_byte_add(offset).cast();
    // SAFETY: `space` bytes from `offset` lie within `control` (asserted) and are aligned for a header; CMSG_DATA is the
    // place after it, within the same `space` bytes.
    unsafe {
        let mut message: libc::cmsghdr = std::mem::zeroed();
        message.cmsg_len = len;
        message.cmsg_level = level;
        message.cmsg_type = kind;
        std::ptr::write(header, message);
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
    }
    space
}
