//! How an event loop stops and leaves all it has to a successor, and how one begins with what another left.

use super::{EventLoop, watch_relay};
use crate::handover::{ConnectionState, Frozen, InheritedShard, ShardState, Then};
use anyhow::Context;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Instant;
use turn_relay_proto::Transport;

/// What was taken over, for the log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Adoption {
    pub(crate) allocations: usize,
    pub(crate) left_out: usize,
    pub(crate) connections: usize,
}

impl Adoption {
    pub(crate) fn add(&mut self, more: Self) {
        self.allocations += more.allocations;
        self.left_out += more.left_out;
        self.connections += more.connections;
    }
}

impl EventLoop {
    /// Between two turns: writes down everything, and waits to be told what then.
    pub(super) fn freeze(&self, frozen: &Sender<Frozen>, then: &Receiver<Then>) -> Then {
        let exported = self.server.export(self.clock.now());
        let mut sockets: Vec<RawFd> = Vec::new();
        sockets.extend(self.listeners.iter().map(|l| l.socket.as_raw_fd()));
        sockets.extend(self.streams.listeners().map(|l| l.socket.as_raw_fd()));
        let dtls = self.streams.dtls().listeners().iter();
        sockets.extend(dtls.map(|l| l.socket.as_raw_fd()));
        sockets.extend(self.relays.shared().iter().map(AsRawFd::as_raw_fd));
        let relays = exported.relays.iter();
        let own: Vec<RawFd> = relays
            .filter_map(|id| self.relays.own_socket(*id))
            .collect();
        let relays = own.len() as u32;
        sockets.extend(own);
        let mut connections: Vec<ConnectionState> = Vec::new();
        for (state, socket) in self.streams.export(self.clock.now()) {
            connections.push(state);
            sockets.push(socket.as_raw_fd());
        }
        let state = ShardState {
            core: exported.state,
            shared: self.relays.shared().len() as u32,
            relays,
            connections,
        };
        // Whoever asked may have given up.
        if frozen.send(Frozen { state, sockets }).is_err() {
            return Then::GoOn;
        }
        then.recv().unwrap_or(Then::GoOn)
    }

    /// Goes on where another left off, before the first turn.
    ///
    /// # Errors
    /// When it left something that cannot be understood, or the kernel has no room.
    pub(crate) fn adopt(
        &mut self,
        mut shard: InheritedShard,
        now: Instant,
    ) -> anyhow::Result<Adoption> {
        let mut adoption = Adoption {
            connections: shard.connections.len(),
            ..Adoption::default()
        };
        for (state, socket) in shard.connections {
            self.streams.adopt(state, socket, now, &self.epoll)?;
        }
        let (listeners, streams) = (&self.listeners, &self.streams);
        let imported = self
            .server
            .import(&shard.core, now, |path| match path.transport {
                Transport::Udp => listeners.iter().any(|l| l.serves(path.server)),
                Transport::Tcp(connection) => streams.serves(connection, path),
                _ => false,
            })?;
        adoption.allocations = imported.allocations;
        adoption.left_out = imported.left_out;
        let shared = shard.relays.is_empty();
        for adopted in imported.relays {
            let socket = match shard.relays.get_mut(adopted.position) {
                _ if shared => None,
                Some(socket) => Some(socket.take().context("a socket is missing")?),
                None => anyhow::bail!("a socket is missing"),
            };
            let socket = socket.map(Into::into);
            let opened = self.relays.adopt(adopted.relay, adopted.address, socket)?;
            if let Some(socket) = opened {
                watch_relay(&self.epoll, adopted.relay, socket)?;
            }
        }
        let server = &mut self.server;
        // Allocations that could not be handed over.
        self.streams.review(now, |path| server.has_allocation(path));
        self.store();
        Ok(adoption)
    }
}
