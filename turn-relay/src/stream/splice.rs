//! A client's connection and a peer's, joined (RFC 6062 section 5.4): what one brings goes to the other as it is.
//!
//! Both are watched for edges. Nothing is read while the other end's kernel has no room for what was read before, so that
//! at most one read waits in each direction, and whoever sends is slowed down by TCP itself. Nor is anything read for which
//! user, realm or relay have no bandwidth left: then it waits a moment. Each direction ends by itself.

use super::connection::{Connection, Scratch};
use super::queue::Queue;
use super::{CloseReason, StreamBuffer};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Instant;
use turn_relay_proto::{Direction, JoinedMeter, PeerConnectionId};

/// Bytes that one turn carries in one direction: others want to be heard, too.
const TURN: usize = 512 << 10;
/// With less bandwidth left than for so many, nothing is read.
const LEAST: usize = 4 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Splice {
    pub(super) client: Connection,
    pub(super) peer: Arc<TcpStream>,
    pub(super) connection: PeerConnectionId,
    /// What its bytes are limited and recorded by.
    meter: JoinedMeter,
    /// What the peer's kernel has no room for.
    to_peer: Queue,
    /// Which of them will send nothing more, and which of them was told so.
    client_ended: bool,
    peer_ended: bool,
    peer_told: bool,
    client_told: bool,
    /// It is among those that wait for bandwidth.
    pub(super) is_paused: bool,
    /// Both directions of the peer's connection are over.
    pub(super) peer_gone: bool,
}

/// What a turn carried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carried {
    /// Bytes.
    pub(super) to_peer: u64,
    pub(super) to_client: u64,
    /// There may be more, without another event.
    pub(super) more: bool,
    /// There may be more, when there is bandwidth for it.
    pub(super) paused: bool,
}

impl Carried {
    fn stop(&mut self, is_limited: bool) {
        match is_limited {
            true => self.paused = true,
            false => self.more = true,
        }
    }
}

impl Splice {
    pub(super) fn new(
        client: Connection,
        peer: Arc<TcpStream>,
        connection: PeerConnectionId,
        meter: JoinedMeter,
    ) -> Self {
        Self {
            client,
            peer,
            connection,
            meter,
            to_peer: Queue::default(),
            client_ended: false,
            peer_ended: false,
            peer_told: false,
            client_told: false,
            is_paused: false,
            peer_gone: false,
        }
    }

    /// What the client sent behind its request.
    pub(super) fn begin(&mut self, bytes: &[u8]) {
        self.to_peer.push(bytes);
    }

    /// Carries what there is and what may be carried, both ways.
    ///
    /// # Errors
    /// Why it is over.
    pub(super) fn carry(
        &mut self,
        now: Instant,
        buffer: &mut StreamBuffer,
        scratch: &mut Scratch,
        carried: &mut Carried,
    ) -> Result<(), CloseReason> {
        let result = self.carry_to_client(now, buffer, scratch, carried);
        self.meter
            .carried(Direction::ToClient, carried.to_client as usize, now);
        let result = result.and_then(|()| self.carry_to_peer(now, buffer, carried));
        self.meter
            .carried(Direction::ToPeer, carried.to_peer as usize, now);
        result?;
        let is_over = self.client_told && (self.peer_told || self.peer_gone);
        if !is_over || !self.client.is_idle() {
            return Ok(());
        }
        Err(if self.client_ended {
            CloseReason::Client
        } else {
            CloseReason::Peer
        })
    }

    /// Bytes that may be read now, and whether that is less than the turn has time for.
    fn allowance(&self, direction: Direction, now: Instant) -> (usize, bool) {
        match self.meter.room(direction, now) {
            // What is left is for packets, which cannot wait.
            0..LEAST => (0, true),
            room => (room.min(TURN), room < TURN),
        }
    }

    fn carry_to_client(
        &mut self,
        now: Instant,
        buffer: &mut StreamBuffer,
        scratch: &mut Scratch,
        carried: &mut Carried,
    ) -> Result<(), CloseReason> {
        let (mut left, is_limited) = self.allowance(Direction::ToClient, now);
        loop {
            if !self.client.is_idle() {
                self.client.flush(scratch)?;
            }
            if !self.client.is_idle() {
                return Ok(());
            }
            if self.peer_ended {
                if !self.client_told {
                    self.client_told = true;
                    self.client.finish()?;
                }
                return Ok(());
            }
            if left == 0 {
                carried.stop(is_limited);
                return Ok(());
            }
            let room = buffer.room();
            let most = room.len().min(left);
            let read = match read(&self.peer, &mut room[..most])? {
                Some(0) => {
                    self.peer_ended = true;
                    continue;
                }
                Some(read) => read,
                None => return Ok(()),
            };
            carried.to_client += read as u64;
            left = left.saturating_sub(read);
            self.client.send_raw(&buffer.room()[..read], scratch)?;
        }
    }

    fn carry_to_peer(
        &mut self,
        now: Instant,
        buffer: &mut StreamBuffer,
        carried: &mut Carried,
    ) -> Result<(), CloseReason> {
        let (mut left, is_limited) = self.allowance(Direction::ToPeer, now);
        loop {
            while !self.to_peer.is_empty() {
                match write(&self.peer, self.to_peer.as_slice())? {
                    0 => return Ok(()),
                    written => {
                        self.to_peer.consume(written);
                        carried.to_peer += written as u64;
                    }
                }
            }
            if self.client_ended {
                if !self.peer_told {
                    self.peer_told = true;
                    // It may be gone already.
                    let _ = self.peer.shutdown(Shutdown::Write);
                }
                return Ok(());
            }
            if left == 0 {
                carried.stop(is_limited);
                return Ok(());
            }
            let (read, ended) = self.client.receive_raw(buffer, left)?;
            self.client_ended |= ended;
            if read == 0 && !ended {
                return Ok(());
            }
            left = left.saturating_sub(read);
            let bytes = buffer.bytes();
            let written = if bytes.is_empty() {
                0
            } else {
                write(&self.peer, bytes)?
            };
            carried.to_peer += written as u64;
            self.to_peer.push(&bytes[written..]);
        }
    }
}

/// `None` if there is nothing yet; 0 if there never will be.
fn read(mut socket: &TcpStream, buffer: &mut [u8]) -> Result<Option<usize>, CloseReason> {
    retry(|| socket.read(buffer))
}

/// 0 if the kernel has no room.
fn write(mut socket: &TcpStream, bytes: &[u8]) -> Result<usize, CloseReason> {
    Ok(retry(|| socket.write(bytes))?.unwrap_or(0))
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> Result<Option<usize>, CloseReason> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => return Ok(None),
                _ => return Err(CloseReason::Peer),
            },
        }
    }
}
