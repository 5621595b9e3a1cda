//! The part of an event loop's turn that is about connections.

use super::{EventLoop, PUBLISH_INTERVAL};
use crate::carrying::Carrying;
use crate::stream::{StreamBuffer, StreamEvent, StreamOut, Streams};
use crate::udp::{Io, RecvBatch, SendPlan};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use std::time::{Duration, Instant};
use turn_relay_proto::{ConnectionId, Direction, Now, Traffic};

/// TLS handshakes that a turn goes on with: each may take as long as some thousand packets.
const HANDSHAKES: usize = 8;
/// How often is looked for connections whose allocation has expired, at most.
const REVIEW_INTERVAL: Duration = Duration::from_secs(5);

/// What a turn needs for streams, used again for each.
#[derive(Debug)]
pub(super) struct StreamTurn {
    pub(super) ready: Vec<EpollEvent>,
    pub(super) tcp_ready: Vec<EpollEvent>,
    pub(super) buffer: StreamBuffer,
    /// One at a time: a handshake can be too much for one turn.
    pub(super) datagram: RecvBatch,
    /// Allocations that had expired, or were ended, at the last review, and when the next may be.
    expired: u64,
    review_at: Option<Instant>,
}

impl StreamTurn {
    pub(super) fn new() -> Self {
        Self {
            ready: Vec::new(),
            tcp_ready: Vec::new(),
            buffer: StreamBuffer::new(),
            datagram: RecvBatch::new(Io::Plain),
            expired: 0,
            review_at: None,
        }
    }
}

impl EventLoop {
    /// New connections, what arrived on others, and room to write.
    pub(super) fn handle_stream_events(
        &mut self,
        now: Now,
        turn: &mut StreamTurn,
        plan: &mut SendPlan,
    ) {
        let mut handshakes = HANDSHAKES;
        let mut ready = std::mem::take(&mut turn.ready);
        for event in ready.drain(..) {
            match Streams::event(event.data()) {
                None => {}
                Some(StreamEvent::Listener(index)) => {
                    self.streams.accept(now.instant, index, &self.epoll);
                }
                Some(StreamEvent::Datagrams(index)) => {
                    let batch = &mut turn.datagram;
                    self.receive_dtls(now, index, &mut handshakes, batch, plan);
                }
                Some(StreamEvent::Connection(slot)) => {
                    let flags = event.events();
                    if flags.contains(EpollFlags::EPOLLOUT) {
                        self.streams.flush(slot, &self.epoll);
                    }
                    if !flags.difference(EpollFlags::EPOLLOUT).is_empty() {
                        if self.streams.is_handshaking(slot) {
                            // It stays ready, and others come first in the next turn.
                            if handshakes == 0 {
                                continue;
                            }
                            handshakes -= 1;
                        }
                        self.receive_from_stream(now, slot, &mut turn.buffer, plan);
                    }
                }
            }
        }
        turn.ready = ready;
    }

    fn receive_from_stream(
        &mut self,
        now: Now,
        slot: u32,
        buffer: &mut StreamBuffer,
        plan: &mut SendPlan,
    ) {
        let Some((path, mut frames)) = self.streams.receive(slot, buffer) else {
            return;
        };
        if let Some(name) = self.streams.take_server_name(slot) {
            self.server.handle_server_name(ConnectionId(slot), &name);
        }
        let mut to_peer = Traffic::default();
        loop {
            let mut carrying = Carrying {
                now,
                server: &mut self.server,
                listeners: &self.listeners,
                relays: &self.relays,
                out: plan.start(),
                streams: self.streams.start_plan(),
            };
            let may_be_joined = carrying.carry_stream(path, &mut frames, &mut to_peer);
            let Carrying { out, streams, .. } = carrying;
            let unsent = out.flush();
            self.account(&unsent);
            self.send_streams(streams);
            self.drain_outputs(now, plan);
            if !may_be_joined {
                break;
            }
            let connection = ConnectionId(slot);
            if self.streams.begin_joined(connection, frames.rest()) {
                return;
            }
        }
        let has_allocation = self.server.has_allocation(path);
        self.streams
            .handle_received(now.instant, slot, &frames, to_peer, has_allocation);
    }

    /// Sends what was gathered for connections.
    pub(super) fn send_streams(&mut self, out: StreamOut<'_>) {
        let dropped = self.streams.send(out, &self.epoll);
        if dropped.packets > 0 {
            self.server.stats_mut().unsent(Direction::ToClient, dropped);
        }
    }

    /// Whose time is over is closed; what ended takes its allocation with it.
    pub(super) fn end_stream_turn(&mut self, now: Now, turn: &mut StreamTurn, plan: &mut SendPlan) {
        self.review(now.instant, turn);
        self.streams.handle_timeout(now.instant, &self.epoll);
        self.streams.flush_answers(&self.epoll);
        while let Some(path) = self.streams.poll_closed() {
            self.server.handle_connection_closed(now, path);
            // Time alone may have closed it.
            self.publish_at
                .get_or_insert(now.instant + PUBLISH_INTERVAL);
        }
        self.end_joined();
        self.drain_outputs(now, plan);
        self.send_dtls(plan);
        self.streams.end_turn();
    }

    fn review(&mut self, now: Instant, turn: &mut StreamTurn) {
        let stats = self.server.stats();
        let expired = stats.allocations_expired + stats.allocations_revoked;
        if expired == turn.expired || turn.review_at.is_some_and(|at| at > now) {
            return;
        }
        turn.expired = expired;
        turn.review_at = Some(now + REVIEW_INTERVAL);
        let server = &mut self.server;
        self.streams.review(now, |path| server.has_allocation(path));
    }
}
