//! Connections of TCP move to a successor, with what is half received and half sent. Sessions of TLS cannot: their keys
//! are within the library.

use super::connection::Connection;
use super::queue::Queue;
use super::streams::Streams;
use super::{StreamKind, StreamListener};
use crate::handover::ConnectionState;
use anyhow::{Context, ensure};
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
        let each = self.slots.iter().zip(0..).filter_map(|(connection, slot)| {
            let connection = connection.as_deref()?;
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
        while self.slots.len() <= slot as usize {
            self.free.push(self.slots.len() as u32);
            self.slots.push(None);
        }
        let free = self.free.iter().position(|free| *free == slot);
        self.free
            .swap_remove(free.context("two connections are one")?);
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
        let stats = self.stats.of_mut(StreamKind::Tcp);
        stats.connections += 1;
        if let Some(since) = since {
            stats.strangers += 1;
            let source = path.client.0.ip();
            self.admission.add(slot, source, false, since);
        }
        self.slots[slot as usize] = Some(Box::new(connection));
        self.live += 1;
        Ok(())
    }

    /// Whether a five-tuple is that of a connection.
    pub(crate) fn serves(&self, connection: ConnectionId, path: FiveTuple) -> bool {
        let found = self
            .slots
            .get(connection.0 as usize)
            .and_then(Option::as_deref);
        found.is_some_and(|connection| connection.path == path)
    }
}
