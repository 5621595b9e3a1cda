//! One `sendmmsg` (or `sendmsg`): several messages from one socket, each of one datagram or of many that the kernel cuts apart.

#![allow(unsafe_code)]

use crate::udp::send::{Group, NONE, Run};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::ptr;

/// For UDP_SEGMENT (24 bytes with its header) and IPV6_PKTINFO (40), in words, for their alignment.
const CONTROL_WORDS: usize = 8;
static PADDING: [u8; 3] = [0; 3];

/// A destination as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C)]
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl Name {
    /// With the bytes that count.
    fn of(address: SocketAddr) -> (Self, libc::socklen_t) {
        match address {
            SocketAddr::V4(v4) => {
                let name = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from_ne_bytes(v4.ip().octets()),
                    },
                    sin_zero: [0; 8],
                };
                let len = size_of_val(&name);
                (Self { v4: name }, len as libc::socklen_t)
            }
            SocketAddr::V6(v6) => {
                let name = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr {
                        s6_addr: v6.ip().octets(),
                    },
                    sin6_scope_id: v6.scope_id(),
                };
                let len = size_of_val(&name);
                (Self { v6: name }, len as libc::socklen_t)
            }
        }
    }
}

/// What one system call points to.
#[derive(Default)]
pub(super) struct Scratch {
    iovecs: Vec<libc::iovec>,
    names: Vec<Name>,
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

    /// Adds a message of all datagrams of a group.
    pub(super) fn add(&mut self, group: &Group, runs: &[Run], prefixes: &[u8]) {
        let begun = self.begin(group, (group.count > 1).then_some(group.size));
        let mut at = group.first;
        while at != NONE {
            let run = &runs[at as usize];
            let contiguous = run.prefix_len == 0 && run.padding == 0 && run.stride == run.len;
            if contiguous {
                self.part(run.payload, run.len as usize * usize::from(run.count));
            } else {
                for number in 0..run.count {
                    self.datagram(run, number, prefixes);
                }
            }
            at = run.next;
        }
        self.end(begun);
    }

    /// Adds a message of one datagram of a group.
    pub(super) fn add_one(&mut self, group: &Group, run: &Run, number: u16, prefixes: &[u8]) {
        let begun = self.begin(group, None);
        self.datagram(run, number, prefixes);
        self.end(begun);
    }

    /// Until [`Scratch::headers`] no pointer is set. Returns the number of iovecs before this message.
    fn begin(&mut self, group: &Group, segment: Option<usize>) -> usize {
        // SAFETY: a plain C structure for which zeros are valid.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let mut control = [0; CONTROL_WORDS];
        header.msg_hdr.msg_controllen = write_controls(&mut control, segment, group.from);
        let (name, len) = Name::of(group.to);
        header.msg_hdr.msg_namelen = len;
        self.names.push(name);
        self.controls.push(control);
        self.headers.push(header);
        self.iovecs.len()
    }

    fn end(&mut self, begun: usize) {
        let parts = self.iovecs.len() - begun;
        if let Some(header) = self.headers.last_mut() {
            header.msg_hdr.msg_iovlen = parts;
        }
    }

    fn datagram(&mut self, run: &Run, number: u16, prefixes: &[u8]) {
        let at = run.prefix as usize;
        let prefix = &prefixes[at..at + usize::from(run.prefix_len)];
        self.part(prefix.as_ptr(), prefix.len());
        let offset = usize::from(number) * run.stride as usize;
        self.part(run.payload.wrapping_add(offset), run.len as usize);
        self.part(PADDING.as_ptr(), usize::from(run.padding));
    }

    fn part(&mut self, base: *const u8, len: usize) {
        if len > 0 {
            self.iovecs.push(libc::iovec {
                // Only read from: sendmmsg does not write to what it sends.
                iov_base: base.cast_mut().cast(),
                iov_len: len,
            });
        }
    }

    /// The messages, which lead to what was added; until something else is.
    pub(super) fn headers(&mut self) -> &mut [libc::mmsghdr] {
        let mut iovecs = self.iovecs.as_mut_ptr();
        let destinations = self.names.iter_mut().zip(&mut self.controls);
        for (header, (name, control)) in self.headers.iter_mut().zip(destinations) {
            let header = &mut header.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_iov = iovecs;
            // SAFETY: the lengths of all messages add up to the number of iovecs.
            iovecs = unsafe { iovecs.add(header.msg_iovlen) };
            header.msg_control = if header.msg_controllen == 0 {
                ptr::null_mut()
            } else {
                control.as_mut_ptr().cast()
            };
        }
        &mut self.headers
    }

    /// Sends the messages; how many the kernel took. One message needs no `sendmmsg`, which some sandboxes lack.
    pub(super) fn send(&mut self, socket: RawFd) -> io::Result<usize> {
        const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let headers = self.headers();
        if let [only] = &headers[..] {
            // SAFETY: as below.
            let sent = unsafe { libc::sendmsg(socket, &raw const only.msg_hdr, FLAGS) };
            return if sent >= 0 {
                Ok(1)
            } else {
                Err(io::Error::last_os_error())
            };
        }
        // SAFETY: the headers lead to names, controls and iovecs in the other vectors, which do not change during the
        // call; the iovecs lead to prefixes, which do not either, and to payloads that `Outgoing` still borrows, as it
        // does the socket.
        let sent = unsafe {
            libc::sendmmsg(
                socket,
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                FLAGS,
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
        ptr::write(header, message);
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
    }
    space
}
