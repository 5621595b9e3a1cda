//! One `io_uring_enter`: messages from many sockets.

#![allow(unsafe_code)]

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use std::io;
use std::os::fd::RawFd;

/// Messages per system call.
pub(super) const MESSAGES: usize = 128;

/// A ring of one thread.
pub(super) struct Uring {
    ring: IoUring,
    results: Vec<i32>,
}

impl Uring {
    /// # Errors
    /// Where the kernel, or a sandbox, has no io_uring.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .build(MESSAGES as u32)?;
        Ok(Self {
            ring,
            results: Vec::with_capacity(MESSAGES),
        })
    }

    /// Sends at most [`MESSAGES`] and waits for all of them: for each the number of bytes, or a negative error code. Those
    /// from one socket stand together, and leave in order: after one that fails the others have `ECANCELED`.
    ///
    /// # Errors
    /// When the ring cannot be used any more. Some may have been sent.
    pub(super) fn send(&mut self, messages: &[(RawFd, *const libc::msghdr)]) -> io::Result<&[i32]> {
        self.results.clear();
        self.results.resize(messages.len(), 0);
        for (at, (socket, header)) in messages.iter().enumerate() {
            let linked = messages.get(at + 1).is_some_and(|(next, _)| next == socket);
            let entry = entry(*socket, *header, at as u64, linked);
            // SAFETY: what the header leads to is not changed or freed before the completion below is there.
            unsafe { self.ring.submission().push(&entry) }
                .map_err(|full| io::Error::other(full.to_string()))?;
        }
        let mut waiting = messages.len();
        while waiting > 0 {
            match self.ring.submit_and_wait(waiting) {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                    _ => return Err(error),
                },
            }
            for completion in self.ring.completion() {
                if let Some(result) = self.results.get_mut(completion.user_data() as usize) {
                    *result = completion.result();
                    waiting -= 1;
                }
            }
        }
        Ok(&self.results)
    }
}

fn entry(socket: RawFd, header: *const libc::msghdr, number: u64, linked: bool) -> Entry {
    let flags = (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as u32;
    let entry = opcode::SendMsg::new(types::Fd(socket), header.cast())
        .flags(flags)
        .build()
        .user_data(number);
    if linked {
        entry.flags(Flags::IO_LINK)
    } else {
        entry
    }
}
