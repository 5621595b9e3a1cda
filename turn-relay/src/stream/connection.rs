//! One connection: reading, writing, and what waits in both directions.

use super::outgoing::Frame;
use super::proxy_header::ProxyHeader;
use super::queue::Queue;
use super::room::Guest;
use super::tls::{Ended, Session, TlsError};
use super::{CloseReason, StreamKind};
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;
use turn_relay_proto::{FiveTuple, Traffic};
use wire::stream::{Frames, MAX_FRAME};

/// Bytes that one read takes from a client with an allocation, and from a stranger: others want to be heard, too.
const READ: usize = 128 << 10;
const STRANGERS_READ: usize = 8 << 10;
/// The longest frame of a stranger: any request fits.
const STRANGERS_FRAME: usize = 4 << 10;
/// Bytes of answers that wait for a stranger; for others this much is kept free of relayed data.
const ANSWERS: usize = 32 << 10;
/// Frames per `writev`: three parts each, and at most 1 024 parts.
const FRAMES: usize = 340;
/// Bytes that are encrypted and written together: four records, if they are full.
const SEALED: usize = 64 << 10;
/// So many frames that leave together, and fewer, have a record of their own each: clients that take a record for a
/// message, as coturn's do, then lose none. More are a stream in full flow, for which full records are half the work.
const APART: usize = 32;
/// Memory that an empty tail may keep.
const KEPT: usize = 4 << 10;

/// Room for what one read brings, used for all connections of an event loop.
pub(crate) struct StreamBuffer {
    /// What was read, after what was left of the read before.
    raw: Box<[u8]>,
    len: usize,
    /// Of TLS, the content of the records.
    plain: Vec<u8>,
    is_plain: bool,
}

impl StreamBuffer {
    pub(crate) fn new() -> Self {
        Self {
            raw: vec![0; MAX_FRAME + READ].into_boxed_slice(),
            len: 0,
            plain: Vec::with_capacity(MAX_FRAME + READ),
            is_plain: false,
        }
    }

    /// Room for a read of something else.
    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.raw[..SEALED]
    }

    /// Frames, the last perhaps not whole.
    pub(super) fn bytes(&self) -> &[u8] {
        if self.is_plain {
            &self.plain
        } else {
            &self.raw[..self.len]
        }
    }
}

impl fmt::Debug for StreamBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBuffer")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Memory for sending, used for all connections of an event loop.
#[derive(Default)]
pub(super) struct Scratch {
    slices: Vec<IoSlice<'static>>,
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) kind: StreamKind,
    pub(super) path: FiveTuple,
    session: Option<Box<Session>>,
    /// While a load balancer has not said whose it is.
    pub(super) proxy: Option<Box<ProxyHeader>>,
    /// The beginning of a frame.
    tail: Vec<u8>,
    /// Frames that wait; of TLS, not encrypted yet.
    queue: Queue,
    /// Since when it has no allocation, if it has none.
    pub(super) stranger_since: Option<Instant>,
    /// Whether it is watched for room to write.
    pub(super) is_watched: bool,
    /// Whether there are answers that nobody tried to send.
    pub(super) is_dirty: bool,
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        kind: StreamKind,
        path: FiveTuple,
        session: Option<Box<Session>>,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            kind,
            path,
            session,
            proxy: None,
            tail: Vec::new(),
            queue: Queue::default(),
            stranger_since: Some(now),
            is_watched: false,
            is_dirty: false,
        }
    }

    /// One of TCP that another process had, with what is half received and half sent.
    pub(super) fn restored(
        socket: TcpStream,
        path: FiveTuple,
        tail: Vec<u8>,
        queue: Queue,
        stranger_since: Option<Instant>,
    ) -> Self {
        Self {
            socket,
            kind: StreamKind::Tcp,
            proxy: None,
            path,
            session: None,
            tail,
            is_watched: !queue.is_empty(),
            queue,
            stranger_since,
            is_dirty: false,
        }
    }

    /// What is half received and what waits to be sent, if no session is between them and the client.
    pub(super) fn plain_parts(&self) -> Option<(&[u8], &[u8])> {
        let plain = self.session.is_none() && self.proxy.is_none();
        plain.then(|| (&self.tail[..], self.queue.as_slice()))
    }

    /// The longest frame that it may send.
    pub(super) fn frame_limit(&self) -> usize {
        match self.stranger_since {
            Some(_) => STRANGERS_FRAME,
            None => MAX_FRAME,
        }
    }

    /// The name that the client asked for in its TLS handshake: once.
    pub(super) fn take_server_name(&mut self) -> Option<Box<str>> {
        self.session.as_mut()?.take_server_name()
    }

    /// Reads once.
    pub(super) fn receive(&mut self, buffer: &mut StreamBuffer) -> Result<(), CloseReason> {
        let most = match self.stranger_since {
            Some(_) => STRANGERS_READ,
            None => READ,
        };
        let Some(session) = &mut self.session else {
            let held = self.tail.len();
            buffer.raw[..held].copy_from_slice(&self.tail);
            let read = read(&self.socket, &mut buffer.raw[held..held + most])?;
            buffer.is_plain = false;
            buffer.len = held + read;
            return Ok(());
        };
        let held = session.take_tail();
        let end = held.len() + most;
        buffer.raw[..held.len()].copy_from_slice(&held);
        let read = read(&self.socket, &mut buffer.raw[held.len()..end])?;
        buffer.is_plain = true;
        buffer.plain.clear();
        buffer.plain.extend_from_slice(&self.tail);
        let received = &mut buffer.raw[..held.len() + read];
        match session.decrypt(received, &mut buffer.plain) {
            Ok(Ended(false)) => {}
            Ok(Ended(true)) => return Err(CloseReason::Client),
            Err(error) => return Err(self.on_tls_error(&error)),
        }
        self.flush_wire().map(drop)
    }

    /// Reads once, as it is, about `most` bytes: how many, and whether there will be no more.
    pub(super) fn receive_raw(
        &mut self,
        buffer: &mut StreamBuffer,
        most: usize,
    ) -> Result<(usize, bool), CloseReason> {
        let most = most.min(READ);
        let ended_or = |result| match result {
            Ok(read) => Ok((read, false)),
            Err(CloseReason::Client) => Ok((0, true)),
            Err(reason) => Err(reason),
        };
        let Some(session) = &mut self.session else {
            let (read, ended) = ended_or(read(&self.socket, &mut buffer.raw[..most]))?;
            buffer.is_plain = false;
            buffer.len = read;
            return Ok((read, ended));
        };
        let held = session.take_tail();
        let end = held.len() + most;
        buffer.raw[..held.len()].copy_from_slice(&held);
        let (read, ended) = ended_or(read(&self.socket, &mut buffer.raw[held.len()..end]))?;
        buffer.is_plain = true;
        buffer.plain.clear();
        let received = &mut buffer.raw[..held.len() + read];
        match session.decrypt(received, &mut buffer.plain) {
            Ok(Ended(closed)) => {
                self.flush_wire()?;
                Ok((buffer.plain.len(), ended || closed))
            }
            Err(error) => Err(self.on_tls_error(&error)),
        }
    }

    /// Sends bytes as they are, while nothing waits; what the kernel does not take waits.
    pub(super) fn send_raw(
        &mut self,
        bytes: &[u8],
        scratch: &mut Scratch,
    ) -> Result<(), CloseReason> {
        let Some(session) = &mut self.session else {
            let written = write(|| (&self.socket).write(bytes))?;
            self.queue.push(&bytes[written..]);
            return Ok(());
        };
        match session.encrypt([bytes].into_iter(), &mut scratch.sealed) {
            Ok(()) => self.flush_wire().map(drop),
            Err(error) => Err(self.on_tls_error(&error)),
        }
    }

    /// Nothing more will be sent: the client is told.
    pub(super) fn finish(&mut self) -> Result<(), CloseReason> {
        let Some(session) = &mut self.session else {
            // It may be gone already.
            let _ = self.socket.shutdown(Shutdown::Write);
            return Ok(());
        };
        match session.close_notify() {
            Ok(()) => self.flush_wire().map(drop),
            Err(error) => Err(self.on_tls_error(&error)),
        }
    }

    /// Keeps what no whole frame was made of.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        self.tail.clear();
        self.tail.extend_from_slice(rest);
        if rest.is_empty() {
            self.tail.shrink_to(KEPT);
        }
    }

    fn on_tls_error(&mut self, error: &TlsError) -> CloseReason {
        tracing::debug!(client = %self.path.client, %error, "TLS failed");
        // With the alert, if there is one. Whether it arrives matters to nobody.
        let _ = self.flush_wire();
        CloseReason::BadTls
    }

    /// Sends frames, as many as the kernel takes; others wait, up to `limit` bytes. What is beyond is dropped.
    pub(super) fn send(
        &mut self,
        frames: &[Frame<'_>],
        limit: usize,
        scratch: &mut Scratch,
    ) -> Result<Traffic, CloseReason> {
        if !self.is_watched && !self.is_idle() {
            self.flush(scratch)?;
        }
        let sent = match &self.session {
            _ if !self.is_idle() => 0,
            None => self.send_plain(frames, scratch)?,
            Some(_) => self.send_sealed(frames, scratch)?,
        };
        let mut dropped = Traffic::default();
        for frame in &frames[sent..] {
            if self.queue.len() + frame.len() > limit {
                dropped.packets += 1;
                dropped.bytes += frame.payload.len() as u64;
                continue;
            }
            for part in frame.parts() {
                self.queue.push(part);
            }
        }
        Ok(dropped)
    }

    /// Straight from where the payloads are. The number of frames that are done with.
    fn send_plain(
        &mut self,
        frames: &[Frame<'_>],
        scratch: &mut Scratch,
    ) -> Result<usize, CloseReason> {
        let mut done = 0;
        for some in frames.chunks(FRAMES) {
            let mut slices = emptied(std::mem::take(&mut scratch.slices));
            for frame in some {
                let [prefix, payload, padding] = frame.parts();
                slices.push(IoSlice::new(prefix));
                slices.push(IoSlice::new(payload));
                if !padding.is_empty() {
                    slices.push(IoSlice::new(padding));
                }
            }
            let total: usize = slices.iter().map(|slice| slice.len()).sum();
            let written = write(|| (&self.socket).write_vectored(&slices));
            scratch.slices = emptied(slices);
            let mut written = written?;
            if written == total {
                done += some.len();
                continue;
            }
            // Whole frames leave: the rest of one that has begun waits, whatever the bound.
            for frame in some {
                if written == 0 {
                    break;
                }
                done += 1;
                for part in frame.parts() {
                    let gone = written.min(part.len());
                    written -= gone;
                    self.queue.push(&part[gone..]);
                }
            }
            break;
        }
        Ok(done)
    }

    /// In records of one frame each while they are few, and of many when there are many. The number of frames that are
    /// done with.
    fn send_sealed(
        &mut self,
        frames: &[Frame<'_>],
        scratch: &mut Scratch,
    ) -> Result<usize, CloseReason> {
        let mut done = 0;
        while done < frames.len() && self.is_idle() {
            scratch.plain.clear();
            for frame in &frames[done..] {
                if !scratch.plain.is_empty() && scratch.plain.len() + frame.len() > SEALED {
                    break;
                }
                for part in frame.parts() {
                    scratch.plain.extend_from_slice(part);
                }
                done += 1;
            }
            let plain = std::mem::take(&mut scratch.plain);
            let sealed = self.seal(&plain, scratch);
            scratch.plain = plain;
            sealed?;
            self.flush_wire()?;
        }
        Ok(done)
    }

    /// Encrypts whole frames.
    fn seal(&mut self, frames: &[u8], scratch: &mut Scratch) -> Result<(), CloseReason> {
        let Some(session) = &mut self.session else {
            return Ok(());
        };
        // Their beginnings are known to be good: they were written here.
        let each = Padded(Frames::new(frames, MAX_FRAME));
        let result = if each.clone().nth(APART).is_none() {
            session.encrypt(each, &mut scratch.sealed)
        } else {
            session.encrypt([frames].into_iter(), &mut scratch.sealed)
        };
        result.map_err(|error| self.on_tls_error(&error))
    }

    /// Puts an answer behind what waits already. It is sent by [`Connection::flush`].
    pub(super) fn answer(&mut self, bytes: &[u8], limit: usize) -> Result<(), CloseReason> {
        let limit = match self.stranger_since {
            Some(_) => ANSWERS,
            None => limit + ANSWERS,
        };
        if self.queue.len() + bytes.len() > limit {
            return Err(CloseReason::AnswersUnread);
        }
        self.queue.push(bytes);
        Ok(())
    }

    /// Sends what waits, as far as the kernel takes it.
    pub(super) fn flush(&mut self, scratch: &mut Scratch) -> Result<(), CloseReason> {
        if self.session.is_none() {
            while !self.queue.is_empty() {
                let written = write(|| (&self.socket).write(self.queue.as_slice()))?;
                if written == 0 {
                    break;
                }
                self.queue.consume(written);
            }
            return Ok(());
        }
        while self.flush_wire()? && !self.queue.is_empty() {
            if !self.is_established() {
                break;
            }
            let queue = std::mem::take(&mut self.queue);
            let count = whole_frames(queue.as_slice());
            let sealed = self.seal(&queue.as_slice()[..count], scratch);
            self.queue = queue;
            sealed?;
            self.queue.consume(count);
        }
        Ok(())
    }

    /// Sends what is encrypted; whether all of it is gone.
    fn flush_wire(&mut self) -> Result<bool, CloseReason> {
        let Some(session) = &mut self.session else {
            return Ok(true);
        };
        while !session.wire.is_empty() {
            let written = write(|| (&self.socket).write(session.wire.as_slice()))?;
            if written == 0 {
                return Ok(false);
            }
            session.wire.consume(written);
        }
        Ok(true)
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.session.as_ref().is_none_or(|s| s.wire.is_empty())
    }
}

impl Guest for Connection {
    fn kind(&self) -> StreamKind {
        self.kind
    }

    fn path(&self) -> FiveTuple {
        self.path
    }

    fn is_established(&self) -> bool {
        self.proxy.is_none() && self.session.as_ref().is_none_or(|s| s.is_established())
    }

    fn stranger_since(&self) -> Option<Instant> {
        self.stranger_since
    }

    fn set_stranger_since(&mut self, since: Option<Instant>) {
        self.stranger_since = since;
    }
}

/// Frames with their padding.
#[derive(Clone)]
struct Padded<'a>(Frames<'a>);

impl<'a> Iterator for Padded<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let all = self.0.rest();
        self.0.next()?;
        Some(&all[..all.len() - self.0.rest().len()])
    }
}

/// How many of the bytes that wait, whole frames, are encrypted next: all frames that fit, and at least one.
fn whole_frames(waiting: &[u8]) -> usize {
    let mut count = 0;
    for frame in Padded(Frames::new(waiting, MAX_FRAME)) {
        if count > 0 && count + frame.len() > SEALED {
            break;
        }
        count += frame.len();
    }
    if count == 0 { waiting.len() } else { count }
}

/// An empty vector for slices that live differently, in the same memory.
fn emptied<'a>(mut slices: Vec<IoSlice<'_>>) -> Vec<IoSlice<'a>> {
    slices.clear();
    slices
        .into_iter()
        .map(|_| unreachable!("it is empty"))
        .collect()
}

/// The number of bytes read; 0 if there are none.
fn read(mut socket: &TcpStream, buffer: &mut [u8]) -> Result<usize, CloseReason> {
    loop {
        match socket.read(buffer) {
            Ok(0) => return Err(CloseReason::Client),
            Ok(read) => return Ok(read),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => return Ok(0),
                _ => return Err(CloseReason::Broken),
            },
        }
    }
}

/// The number of bytes written; 0 if the kernel has no room.
fn write(mut write: impl FnMut() -> io::Result<usize>) -> Result<usize, CloseReason> {
    loop {
        match write() {
            Ok(written) => return Ok(written),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => return Ok(0),
                _ => return Err(CloseReason::Broken),
            },
        }
    }
}
