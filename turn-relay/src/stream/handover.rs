//! Connections of TCP move to a successor, with what is half received and half sent. Sessions of TLS cannot: their keys
//! are within the library.

use super::connection::Connection;
use super::queue::Queue;
use super::streams::Streams;
use super::{StreamKind, StreamListener};
use crate::handover::ConnectionState;
use anyhow::ensure;
use model::{ClientAddr, ServerAddr};
use nix::sys::epoll::Epoll;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use turn_relay_proto::{ConnectionId, FiveTuple};
use wire::stream::MAX_FRAME;

/// Far more connections than one event loop serves.
const MAX_SLOT: u32 = 1 << 20;

impl Streams {
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &StreamListener> {
        self.listeners.iter()
    }

    /// What can be handed over, the oldest stranger first.
    pub(crate) fn export(&self, now: Instant) -> Vec<(ConnectionState, &TcpStream)> {
        let each = self.room.slots().iter().filter_map(|(slot, connection)| {
            let (received, unsent) = connection.plain_parts()?;
            let since = connection.stranger_since;
            let state = ConnectionState {
                slot,
                client: connection.path.client.0.to_string(),
                server: connection.path.server.0.to_string(),
                received: received.to_vec(),
                unsent: unsent.to_vec(),
                without_allocation: since
                    .map(|since| now.saturating_duration_since(since).as_micros() as u64),
            };
            Some((state, &connection.socket))
        });
        let mut all: Vec<_> = each.collect();
        all.sort_by_key(|(state, _)| std::cmp::Reverse(state.without_allocation));
        all
    }

    /// A connection that another process had.
    ///
    /// # Errors
    /// When the state makes no sense, or the kernel has no room for it.
    pub(crate) fn adopt(
        &mut self,
        state: ConnectionState,
        socket: OwnedFd,
        now: Instant,
        epoll: &Epoll,
    ) -> anyhow::Result<()> {
        let slot = state.slot;
        ensure!(slot < MAX_SLOT, "connection {slot} is none");
        ensure!(state.received.len() <= MAX_FRAME, "no frame is as long");
        let path = FiveTuple {
            client: ClientAddr(state.client.parse()?),
            server: ServerAddr(state.server.parse()?),
            transport: StreamKind::Tcp.transport(ConnectionId(slot)),
        };
        let since = state.without_allocation.map(|age| {
            let since = now.checked_sub(Duration::from_micros(age));
            since.unwrap_or(now)
        });
        let mut unsent = Queue::default();
        unsent.push(&state.unsent);
        let socket = TcpStream::from(socket);
        let connection = Connection::restored(socket, path, state.received, unsent, since);
        self.watch_new(slot, &connection, epoll)?;
        let was_free = self.room.adopt(slot, connection, &mut self.stats);
        ensure!(was_free, "two connections are one");
        Ok(())
    }

    /// Whether a five-tuple is that of a connection.
    pub(crate) fn serves(&self, connection: ConnectionId, path: FiveTuple) -> bool {
        let found = self.room.get(connection.0);
        found.is_some_and(|connection| connection.path == path)
    }
}
