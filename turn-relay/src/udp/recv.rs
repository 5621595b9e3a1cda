//! Receiving: one `recvmmsg` fills up to [`BATCH`] buffers, each with one datagram or with as many as the kernel joined.

#![allow(unsafe_code)]

use crate::udp::Io;
use crate::udp::control::{Controls, address, controls};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use turn_relay_proto::Burst;

/// Buffers per system call.
const BATCH: usize = 64;
/// The kernel joins at most this much.
const BUFFER: usize = 65_536;
/// From one buffer to the next: not a multiple of a page, or short datagrams would all want the same lines of the cache.
const STRIDE: usize = BUFFER + 1_280;
/// Once so much was received by a system call, the next takes fewer buffers: what is received should still be in the
/// cache when it is sent.
const PLENTY: usize = 256 * 1024;
const QUARTER: usize = PLENTY / 4;
const BUFFERS_OF_PLENTY: usize = 8;
/// For UDP_GRO (24 bytes with its header) and IPV6_PKTINFO (40), in words, for their alignment.
const CONTROL_WORDS: usize = 16;

/// Room for one batch. Pointers lead from the headers to the other boxes, whose contents never move.
pub(crate) struct RecvBatch {
    memory: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[[u64; CONTROL_WORDS]]>,
    _iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    io: Io,
    /// Buffers for the next system call.
    wanted: usize,
    /// Buffers that the last one wrote to: only their headers are set again.
    touched: usize,
}

/// What one system call brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// Buffers that were filled.
    pub(crate) buffers: usize,
    /// Bytes in them.
    pub(crate) bytes: usize,
    /// Whether more may be waiting. If not, the socket becomes ready again when something arrives.
    pub(crate) more: bool,
}

/// What one buffer was filled with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'b> {
    /// Datagrams of `segment` bytes; the last may be shorter.
    pub(crate) bytes: &'b [u8],
    pub(crate) segment: usize,
    pub(crate) source: SocketAddr,
    /// Which of our addresses it was sent to, if the socket was set up to tell.
    pub(crate) local: Option<IpAddr>,
}

impl<'b> Received<'b> {
    /// How many datagrams there are.
    pub(crate) fn count(&self) -> u64 {
        self.bytes.len().div_ceil(self.segment.max(1)).max(1) as u64
    }

    /// The datagrams. An empty datagram is one, too.
    pub(crate) fn burst(&self) -> Burst<'b> {
        Burst::new(self.bytes, self.segment)
    }
}

impl RecvBatch {
    pub(crate) fn new(io: Io) -> Self {
        let batch = if io == Io::Plain { 1 } else { BATCH };
        let mut memory = vec![0u8; batch * STRIDE].into_boxed_slice();
        // SAFETY: both are plain C structures for which zeros are valid.
        let (name, header): (libc::sockaddr_storage, libc::mmsghdr) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        let mut names = vec![name; batch].into_boxed_slice();
        let mut controls = vec![[0u64; CONTROL_WORDS]; batch].into_boxed_slice();
        let mut iovecs: Box<[libc::iovec]> = memory
            .chunks_exact_mut(STRIDE)
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: BUFFER,
            })
            .collect();
        let mut headers = vec![header; batch].into_boxed_slice();
        for (index, header) in headers.iter_mut().enumerate() {
            header.msg_hdr.msg_name = (&raw mut names[index]).cast();
            header.msg_hdr.msg_iov = &raw mut iovecs[index];
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = (&raw mut controls[index]).cast();
        }
        Self {
            memory,
            names,
            controls,
            _iovecs: iovecs,
            headers,
            io,
            wanted: batch,
            touched: batch,
        }
    }

    /// Takes what has arrived.
    ///
    /// # Errors
    /// What the kernel says, except that nothing is waiting.
    pub(crate) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<Taken> {
        for header in &mut self.headers[..self.touched] {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = size_of::<[u64; CONTROL_WORDS]>();
        }
        self.touched = self.wanted;
        let result = if self.io == Io::Plain {
            self.receive_one(socket)
        } else {
            self.receive_many(socket)
        };
        match result {
            Ok(buffers) => {
                let more = buffers == self.wanted;
                let bytes = self.headers[..buffers].iter().map(|h| h.msg_len as usize);
                let bytes = bytes.sum::<usize>();
                self.wanted = match bytes {
                    PLENTY.. => BUFFERS_OF_PLENTY.min(self.headers.len()),
                    // Buffers filled to less than that on average are many again.
                    ..QUARTER => self.headers.len(),
                    _ => self.wanted,
                };
                self.touched = buffers;
                Ok(Taken {
                    buffers,
                    bytes,
                    more,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.touched = 1;
                Ok(Taken::default())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Taken {
                more: true,
                ..Taken::default()
            }),
            Err(error) => Err(error),
        }
    }

    fn receive_many(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: each header leads to a name, a control buffer and one iovec of this object, with their sizes; they
        // live and stay in place as long as it. No reference to them exists during the call.
        let filled = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.wanted as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        usize::try_from(filled).map_err(|_| io::Error::last_os_error())
    }

    fn receive_one(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let header = &mut self.headers[0];
        // SAFETY: as above, for the first header alone.
        let len = unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                &raw mut header.msg_hdr,
                libc::MSG_DONTWAIT,
            )
        };
        let len = u32::try_from(len).map_err(|_| io::Error::last_os_error())?;
        header.msg_len = len;
        Ok(1)
    }

    /// One of the buffers that [`RecvBatch::fill`] filled; `None` if it is from no address that we know.
    pub(crate) fn get(&self, index: usize) -> Option<Received<'_>> {
        let header = &self.headers[index];
        let len = (header.msg_len as usize).min(BUFFER);
        let bytes = &self.memory[index * STRIDE..][..len];
        let Controls { segment, local, .. } = controls(&header.msg_hdr);
        Some(Received {
            bytes,
            segment: segment.unwrap_or(len),
            source: address(&self.names[index])?,
            local,
        })
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch")
            .field("buffers", &self.controls.len())
            .finish_non_exhaustive()
    }
}
