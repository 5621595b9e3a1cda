//! The sockets of relayed addresses, found by their slot.

use crate::udp::{self, Io, SocketOptions};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use turn_relay_proto::{OpenError, RelayId};

/// One relayed address and its socket.
#[derive(Debug)]
pub(crate) struct RelaySocket {
    pub(crate) id: RelayId,
    pub(crate) socket: UdpSocket,
}

/// By [`RelayId::slot`]: a peer's packet finds its allocation, and a client's its socket, by index.
#[derive(Debug)]
pub(crate) struct RelaySockets {
    slots: Vec<Option<RelaySocket>>,
    options: SocketOptions,
}

impl RelaySockets {
    pub(crate) fn new(io: Io) -> Self {
        Self {
            slots: Vec::new(),
            options: SocketOptions {
                gro: io == Io::Gso,
                ..SocketOptions::default()
            },
        }
    }

    /// Binds a socket and keeps it.
    pub(crate) fn open(
        &mut self,
        id: RelayId,
        address: SocketAddr,
    ) -> Result<&RelaySocket, OpenError> {
        let socket = udp::bind(address, &self.options).map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                return OpenError::PortInUse;
            }
            tracing::warn!(%address, %error, "cannot open a socket for a relayed address");
            OpenError::Other
        })?;
        let slot = id.slot();
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        Ok(self.slots[slot].insert(RelaySocket { id, socket }))
    }

    /// Closing removes it from epoll too.
    pub(crate) fn close(&mut self, id: RelayId) {
        if let Some(slot) = self.slots.get_mut(id.slot())
            && slot.as_ref().is_some_and(|open| open.id == id)
        {
            *slot = None;
        }
    }

    pub(crate) fn at(&self, slot: usize) -> Option<&RelaySocket> {
        self.slots.get(slot)?.as_ref()
    }

    pub(crate) fn get(&self, id: RelayId) -> Option<&RelaySocket> {
        self.at(id.slot()).filter(|open| open.id == id)
    }
}
