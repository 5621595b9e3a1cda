//! One way to a relay that is open: a UDP socket, or a connection over TCP or TLS. Takes messages; knows the padding that
//! ChannelData has on a stream ([RFC 8656 section 12.5](https://www.rfc-editor.org/rfc/rfc8656#section-12.5)), nothing else
//! of what they say.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, BorrowedFd},
};

use bytes::BytesMut;
use net::{
    MAX_GSO_BYTES, MAX_GSO_SEGMENTS, Poller, SendBatch, Stream, TlsTo, UdpOptions, UdpSocket,
};
use wire::{channel_data, stream::padding};

/// Bytes that may wait for the kernel per relay, as datagrams.
const SEND_LIMIT: usize = 4 << 20;
/// The same on a stream, where what waits is late: the connections inside slow down by what is dropped.
const STREAM_LIMIT: usize = 512 << 10;

/// An open way.
#[derive(Debug)]
pub(crate) struct Carrier {
    pub(crate) server: SocketAddr,
    pub(crate) socket: Socket,
    blocked: bool,
    /// What the poller was told of `blocked`.
    watched: bool,
    /// Messages that were not taken, here or by the kernel.
    pub(crate) refused: u64,
}

#[derive(Debug)]
pub(crate) enum Socket {
    Datagrams(UdpSocket, SendBatch),
    Stream(Box<OpenStream>),
}

#[derive(Debug)]
pub(crate) struct OpenStream {
    stream: Stream,
    open: bool,
    /// What waits to be sent, from the first byte that the kernel has not.
    outbound: Vec<u8>,
    /// What was received and is no whole message yet.
    pub(crate) inbound: BytesMut,
}

impl Carrier {
    /// Opens a UDP socket.
    pub(crate) fn datagrams(server: SocketAddr, poller: &Poller) -> io::Result<Self> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0), UdpOptions::default())?;
        poller.watch(&socket, false)?;
        let socket = Socket::Datagrams(socket, SendBatch::new(SEND_LIMIT));
        Ok(Self::new(server, socket, false))
    }

    /// Begins a connection.
    pub(crate) fn stream(
        server: SocketAddr,
        tls: Option<TlsTo>,
        poller: &Poller,
    ) -> io::Result<Self> {
        let stream = Stream::connect(server, tls)?;
        poller.watch(&stream, true)?;
        let stream = OpenStream {
            stream,
            open: false,
            outbound: Vec::new(),
            inbound: BytesMut::new(),
        };
        Ok(Self::new(server, Socket::Stream(Box::new(stream)), true))
    }

    const fn new(server: SocketAddr, socket: Socket, blocked: bool) -> Self {
        Self {
            server,
            socket,
            blocked,
            watched: blocked,
            refused: 0,
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        match &self.socket {
            Socket::Datagrams(socket, _) => socket.local_addr(),
            Socket::Stream(stream) => stream.stream.local_addr(),
        }
    }

    /// Whether nothing waits to be sent.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.socket {
            Socket::Datagrams(_, outbound) => outbound.is_empty(),
            Socket::Stream(stream) => stream.outbound.is_empty(),
        }
    }

    /// Sends datagrams of `segment` bytes, the last may be shorter, in ChannelData: a burst at once, unless others wait; one
    /// alone with the next flush.
    pub(crate) fn send_channel_data(&mut self, channel: u16, payload: &[u8], segment: usize) {
        let left = match &mut self.socket {
            Socket::Datagrams(..) if payload.len() > segment => {
                self.flush();
                self.send_burst(channel, payload, segment)
            }
            Socket::Datagrams(..) => payload,
            Socket::Stream(stream) => {
                self.refused += stream.send_channel_data(channel, payload, segment);
                return;
            }
        };
        for datagram in left.chunks(segment) {
            self.send(&[&header(channel, datagram), datagram]);
        }
    }

    /// Sends a burst in ChannelData, unless others wait; gives what is left.
    fn send_burst<'a>(&mut self, channel: u16, payload: &'a [u8], segment: usize) -> &'a [u8] {
        let Socket::Datagrams(socket, outbound) = &self.socket else {
            return payload;
        };
        let framed = segment + channel_data::HEADER_LEN;
        let most = (MAX_GSO_BYTES / framed).clamp(1, MAX_GSO_SEGMENTS);
        let mut left = payload;
        while !left.is_empty() && outbound.is_empty() {
            let (burst, rest) = left.split_at(left.len().min(most * segment));
            let last = burst.chunks(segment).next_back().unwrap_or(burst);
            // All but the last have the same header.
            let headers = [
                header(channel, burst.get(..segment).unwrap_or(burst)),
                header(channel, last),
            ];
            let datagrams = burst.chunks(segment).len();
            let mut parts = [IoSlice::new(&[]); 2 * MAX_GSO_SEGMENTS];
            for (index, (pair, datagram)) in
                parts.chunks_mut(2).zip(burst.chunks(segment)).enumerate()
            {
                pair[0] = IoSlice::new(&headers[usize::from(index + 1 == datagrams)]);
                pair[1] = IoSlice::new(datagram);
            }
            let parts = parts.get(..2 * datagrams).unwrap_or_default();
            match socket.try_send_parts(self.server, parts, framed) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return left,
                Err(error) => {
                    self.refused += datagrams as u64;
                    tracing::debug!(server = %self.server, %error, "sending to the relay");
                }
            }
            left = rest;
        }
        left
    }

    /// Queues one message, put together from parts. `false`: there was no room.
    pub(crate) fn send(&mut self, parts: &[&[u8]]) -> bool {
        let sent = match &mut self.socket {
            Socket::Stream(stream) => stream.push(parts),
            Socket::Datagrams(_, outbound) => {
                outbound.push(None, self.server, parts).is_ok() || {
                    self.flush();
                    match &mut self.socket {
                        Socket::Datagrams(_, outbound) => {
                            outbound.push(None, self.server, parts).is_ok()
                        }
                        Socket::Stream(_) => false,
                    }
                }
            }
        };
        self.refused += u64::from(!sent);
        sent
    }

    /// Sends what is queued, as far as the kernel takes it.
    pub(crate) fn flush(&mut self) {
        match &mut self.socket {
            Socket::Datagrams(_, outbound) if outbound.is_empty() => self.blocked = false,
            Socket::Datagrams(socket, outbound) => {
                let flushed = outbound.flush(socket);
                self.blocked = flushed.blocked;
                self.refused += flushed.refused as u64;
                if let Some(error) = flushed.error {
                    tracing::debug!(server = %self.server, %error, "sending to the relay");
                }
            }
            Socket::Stream(stream) => {
                stream.flush();
                let waits = stream.open && !stream.outbound.is_empty();
                self.blocked = waits || stream.stream.wants_write();
            }
        }
    }

    /// Has the poller say when the kernel takes more, if it did not take all.
    pub(crate) fn watch(&mut self, poller: &Poller) {
        if std::mem::replace(&mut self.watched, self.blocked) != self.blocked {
            // It was watched before, so it can be.
            let _ = poller.watch(&*self, self.blocked);
        }
    }

    /// Says good-bye, where the transport has a word for it.
    pub(crate) fn close(&mut self) {
        self.flush();
        if let Socket::Stream(stream) = &mut self.socket {
            stream.stream.close();
        }
    }
}

impl OpenStream {
    /// Gets on with a connection; whether it has come to be open by that.
    ///
    /// # Errors
    /// When it came to nothing, or is over.
    pub(crate) fn drive(&mut self) -> io::Result<bool> {
        if self.open {
            return Ok(false);
        }
        self.open = self.stream.drive()?;
        Ok(self.open)
    }

    /// Reads what has arrived.
    ///
    /// # Errors
    /// When the connection is over.
    pub(crate) fn receive(&mut self) -> io::Result<()> {
        if !self.open {
            return Ok(());
        }
        match self.stream.try_recv(&mut self.inbound) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result.map(drop),
        }
    }

    /// As many messages with one system call as it takes; gives how many found no room.
    fn send_channel_data(&mut self, channel: u16, payload: &[u8], segment: usize) -> u64 {
        const PADDING: [u8; 3] = [0; 3];
        let mut refused = 0;
        for burst in payload.chunks(segment * MAX_GSO_SEGMENTS) {
            let datagrams = burst.chunks(segment).len();
            let last = burst.chunks(segment).next_back().unwrap_or(burst);
            let headers = [
                header(channel, burst.get(..segment).unwrap_or(burst)),
                header(channel, last),
            ];
            let mut parts = [IoSlice::new(&[]); 3 * MAX_GSO_SEGMENTS];
            for (index, (three, datagram)) in
                parts.chunks_mut(3).zip(burst.chunks(segment)).enumerate()
            {
                three[0] = IoSlice::new(&headers[usize::from(index + 1 == datagrams)]);
                three[1] = IoSlice::new(datagram);
                three[2] = IoSlice::new(PADDING.get(..padding(datagram.len())).unwrap_or_default());
            }
            let parts = parts.get(..3 * datagrams).unwrap_or_default();
            if !self.write(parts) {
                refused += datagrams as u64;
            }
        }
        refused
    }

    /// Queues one message with its padding.
    fn push(&mut self, parts: &[&[u8]]) -> bool {
        if self.outbound.len() > STREAM_LIMIT {
            return false;
        }
        let len: usize = parts.iter().map(|part| part.len()).sum();
        for part in parts {
            self.outbound.extend_from_slice(part);
        }
        self.outbound.resize(self.outbound.len() + padding(len), 0);
        true
    }

    /// All of the parts, now or queued, or nothing of them.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> bool {
        self.flush();
        let mut taken = 0;
        if self.open && self.outbound.is_empty() {
            // An error shows when the stream is read.
            taken = self.stream.try_send(parts).unwrap_or_default();
        } else if self.outbound.len() > STREAM_LIMIT {
            return false;
        }
        for part in parts {
            let skipped = taken.min(part.len());
            taken -= skipped;
            self.outbound
                .extend_from_slice(part.get(skipped..).unwrap_or_default());
        }
        true
    }

    fn flush(&mut self) {
        if !self.open {
            return;
        }
        let mut sent = 0;
        while sent < self.outbound.len() {
            let rest = self.outbound.get(sent..).unwrap_or_default();
            match self.stream.try_send(&[IoSlice::new(rest)]) {
                Ok(taken) if taken > 0 => sent += taken,
                // An error shows when the stream is read.
                _ => break,
            }
        }
        self.outbound.drain(..sent);
        if self.stream.wants_write() {
            let _ = self.stream.try_send(&[]);
        }
    }
}

impl AsFd for Carrier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Datagrams(socket, _) => socket.as_fd(),
            Socket::Stream(stream) => stream.stream.as_fd(),
        }
    }
}

/// The ChannelData header for one datagram; none is longer than 65 535 bytes.
fn header(channel: u16, datagram: &[u8]) -> [u8; channel_data::HEADER_LEN] {
    channel_data::header(channel, u16::try_from(datagram.len()).unwrap_or(u16::MAX))
}
