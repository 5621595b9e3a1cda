//! All joined connections of one event loop.

use super::connection::Scratch;
use super::room::Slots;
use super::splice::{Carried, Splice};
use super::{CloseReason, StreamBuffer, Streams};
use crate::tcp_relay::joined;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use turn_relay_proto::{ConnectionId, JoinedMeter, PeerConnectionId};

/// How long those wait that there was no bandwidth for: less than a bucket holds.
const PAUSE: Duration = Duration::from_millis(20);

const WATCHED: EpollFlags = EpollFlags::EPOLLIN
    .union(EpollFlags::EPOLLOUT)
    .union(EpollFlags::EPOLLRDHUP)
    .union(EpollFlags::EPOLLET);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Splices {
    slots: Slots<Splice>,
    /// Those with more to carry, without another event.
    again: Vec<u32>,
    /// Those that wait for bandwidth, and until when.
    paused: Vec<u32>,
    resume_at: Option<Instant>,
    /// Connections with peers that have ended.
    ended: Vec<PeerConnectionId>,
    scratch: Scratch,
}

impl Splices {
    pub(super) fn end_turn(&mut self) {
        self.slots.end_turn();
    }
}

impl Streams {
    /// Takes a client's connection out of the others and joins it to a peer's. What the client has sent since goes by
    /// [`Streams::begin_joined`].
    pub(crate) fn join(
        &mut self,
        connection: ConnectionId,
        peer: Option<Arc<TcpStream>>,
        (id, meter): (PeerConnectionId, JoinedMeter),
        epoll: &Epoll,
    ) {
        let Some(mut client) = self.room.detach(connection.0, &mut self.stats) else {
            self.splices.ended.push(id);
            return;
        };
        let kind = client.kind;
        client.stranger_since = None;
        let index = self.splices.slots.next();
        let watched = peer.and_then(|peer| {
            let mut event = EpollEvent::new(WATCHED, joined(index, false));
            epoll.modify(&client.socket, &mut event).ok()?;
            epoll
                .add(&*peer, EpollEvent::new(WATCHED, joined(index, true)))
                .ok()?;
            Some(peer)
        });
        let Some(peer) = watched else {
            // It ended between its answer and now; both are closed.
            self.splices.ended.push(id);
            self.room
                .on_closed(kind, CloseReason::Peer, &mut self.stats);
            return;
        };
        self.splices
            .slots
            .insert(Splice::new(*client, peer, id, meter));
        self.joined = Some((connection, index));
        self.stats.of_mut(kind).joined += 1;
    }

    /// Whether a connection was joined just now: then, what the client sent behind its request goes to the peer.
    pub(crate) fn begin_joined(&mut self, connection: ConnectionId, bytes: &[u8]) -> bool {
        let Some((of, index)) = self.joined.take() else {
            return false;
        };
        if of != connection {
            return false;
        }
        if let Some(splice) = self.splice(index) {
            splice.begin(bytes);
        }
        self.splices.again.push(index);
        true
    }

    fn splice(&mut self, index: u32) -> Option<&mut Splice> {
        self.splices.slots.get_mut(index)
    }

    /// Something can be carried between two joined connections.
    pub(crate) fn carry_joined(
        &mut self,
        index: u32,
        of_peer: bool,
        flags: EpollFlags,
        now: Instant,
        buffer: &mut StreamBuffer,
    ) {
        let Some(splice) = self.splice(index) else {
            return;
        };
        if of_peer && flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            splice.peer_gone = true;
        }
        self.carry(index, now, buffer);
    }

    fn carry(&mut self, index: u32, now: Instant, buffer: &mut StreamBuffer) {
        let Self { splices, stats, .. } = self;
        let Some(splice) = splices.slots.get_mut(index) else {
            return;
        };
        let mut carried = Carried::default();
        let result = splice.carry(now, buffer, &mut splices.scratch, &mut carried);
        let kind = splice.client.kind;
        let stats = stats.of_mut(kind);
        stats.joined_to_peer += carried.to_peer;
        stats.joined_to_client += carried.to_client;
        match result {
            Ok(()) => {
                if carried.more {
                    splices.again.push(index);
                }
                if carried.paused && !splice.is_paused {
                    splice.is_paused = true;
                    splices.paused.push(index);
                    splices.resume_at.get_or_insert(now + PAUSE);
                }
            }
            Err(reason) => {
                let _ = splice.peer.shutdown(Shutdown::Both);
                splices.ended.push(splice.connection);
                splices.slots.take(index);
                stats.joined -= 1;
                self.room.on_closed(kind, reason, &mut self.stats);
            }
        }
    }

    /// Goes on with those that had more than fits into a turn, and with those that waited for bandwidth.
    pub(crate) fn carry_again(&mut self, now: Instant, buffer: &mut StreamBuffer) {
        for index in std::mem::take(&mut self.splices.again) {
            self.carry(index, now, buffer);
        }
        if self.splices.resume_at.is_some_and(|at| at <= now) {
            self.splices.resume_at = None;
            for index in std::mem::take(&mut self.splices.paused) {
                // It may have ended, and another may be there.
                if let Some(splice) = self.splice(index) {
                    splice.is_paused = false;
                    self.carry(index, now, buffer);
                }
            }
        }
    }

    /// When [`Streams::carry_again`] is due for those that wait.
    pub(super) fn resume_joined_at(&self) -> Option<Instant> {
        self.splices.resume_at
    }

    /// Whether [`Streams::carry_again`] has something to do.
    pub(crate) fn has_more_to_carry(&self) -> bool {
        !self.splices.again.is_empty()
    }

    /// The next connection with a peer that is over.
    pub(crate) fn poll_joined_ended(&mut self) -> Option<PeerConnectionId> {
        self.splices.ended.pop()
    }
}
