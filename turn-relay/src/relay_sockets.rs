//! The sockets of relayed addresses: one for each, or one for all of an event loop and family.

use crate::udp::{self, Io, SocketOptions};
use rustc_hash::FxHashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use turn_relay_proto::{OpenError, RelayId};

/// One relayed address.
#[derive(Debug)]
struct RelaySocket {
    id: RelayId,
    via: Via,
}

#[derive(Debug)]
enum Via {
    Own(UdpSocket),
    /// The shared socket of this index, from this address.
    Shared(usize, IpAddr),
}

/// By [`RelayId::slot`]: a peer's packet finds its allocation, and a client's its socket, by index.
#[derive(Debug)]
pub(crate) struct RelaySockets {
    slots: Vec<Option<RelaySocket>>,
    options: SocketOptions,
    /// One for each family at most; none where each relayed address has its own.
    shared: Vec<UdpSocket>,
    /// What is told apart by address on the shared sockets.
    by_address: FxHashMap<IpAddr, RelayId>,
}

/// Binds the sockets that all relayed addresses of one event loop share: on every address of this machine, and `port`.
///
/// # Errors
/// When the port is in use.
pub(crate) fn bind_shared(families: [bool; 2], port: u16, io: Io) -> io::Result<Vec<UdpSocket>> {
    let options = SocketOptions {
        local_address: true,
        any_source: true,
        gro: io.joins(),
        errors: true,
        ..SocketOptions::default()
    };
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let wanted = any.into_iter().zip(families).filter(|(_, wanted)| *wanted);
    wanted
        .map(|(ip, _)| udp::bind(SocketAddr::new(ip, port), &options))
        .collect()
}

impl RelaySockets {
    /// `shared` is empty where each relayed address has a socket of its own.
    pub(crate) fn new(io: Io, shared: Vec<UdpSocket>) -> Self {
        Self {
            slots: Vec::new(),
            options: SocketOptions {
                gro: io.joins(),
                errors: true,
                ..SocketOptions::default()
            },
            shared,
            by_address: FxHashMap::default(),
        }
    }

    pub(crate) fn shared(&self) -> &[UdpSocket] {
        &self.shared
    }

    /// Makes a relayed address. Returns its own socket, if it has one, for whoever watches it.
    pub(crate) fn open(
        &mut self,
        id: RelayId,
        address: SocketAddr,
    ) -> Result<Option<&UdpSocket>, OpenError> {
        let via = if self.shared.is_empty() {
            Via::Own(self.bind(address)?)
        } else {
            self.share(id, address)?
        };
        Ok(self.insert(id, via))
    }

    /// A relayed address that another process had, with its own socket, if it has one.
    ///
    /// # Errors
    /// When it has none, and there is none to share.
    pub(crate) fn adopt(
        &mut self,
        id: RelayId,
        address: SocketAddr,
        socket: Option<UdpSocket>,
    ) -> io::Result<Option<&UdpSocket>> {
        let via = match socket {
            Some(socket) => Via::Own(socket),
            None => self
                .share(id, address)
                .map_err(|_| io::Error::from(io::ErrorKind::AddrNotAvailable))?,
        };
        Ok(self.insert(id, via))
    }

    fn share(&mut self, id: RelayId, address: SocketAddr) -> Result<Via, OpenError> {
        let of_family = |socket: &UdpSocket| {
            let local = socket.local_addr();
            local.is_ok_and(|local| local.is_ipv4() == address.is_ipv4())
        };
        let index = self.shared.iter().position(of_family);
        self.by_address.insert(address.ip(), id);
        Ok(Via::Shared(index.ok_or(OpenError::Other)?, address.ip()))
    }

    fn insert(&mut self, id: RelayId, via: Via) -> Option<&UdpSocket> {
        let slot = id.slot();
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        match &self.slots[slot].insert(RelaySocket { id, via }).via {
            Via::Own(socket) => Some(socket),
            Via::Shared(..) => None,
        }
    }

    /// The descriptor of a relayed address's own socket.
    pub(crate) fn own_socket(&self, id: RelayId) -> Option<RawFd> {
        let (open, socket) = self.at(id.slot())?;
        (open == id).then(|| socket.as_raw_fd())
    }

    fn bind(&self, address: SocketAddr) -> Result<UdpSocket, OpenError> {
        udp::bind(address, &self.options).map_err(|error| {
            if error.kind() == io::ErrorKind::AddrInUse {
                return OpenError::PortInUse;
            }
            tracing::warn!(%address, %error, "cannot open a socket for a relayed address");
            OpenError::Other
        })
    }

    /// Closing a socket removes it from epoll too.
    pub(crate) fn close(&mut self, id: RelayId) {
        let Some(slot) = self.slots.get_mut(id.slot()) else {
            return;
        };
        if slot.as_ref().is_some_and(|open| open.id == id)
            && let Some(RelaySocket {
                via: Via::Shared(_, ip),
                ..
            }) = slot.take()
        {
            self.by_address.remove(&ip);
        }
    }

    /// The socket of a relayed address that goes to another event loop.
    pub(crate) fn give_away(&mut self, id: RelayId) -> Option<UdpSocket> {
        let slot = self.slots.get_mut(id.slot())?;
        let own = slot.take_if(|open| open.id == id && matches!(open.via, Via::Own(_)))?;
        match own.via {
            Via::Own(socket) => Some(socket),
            Via::Shared(..) => None,
        }
    }

    /// A socket that came from another event loop.
    pub(crate) fn take_over(&mut self, id: RelayId, socket: UdpSocket) {
        let slot = id.slot();
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        let via = Via::Own(socket);
        self.slots[slot] = Some(RelaySocket { id, via });
    }

    /// A relayed address with a socket of its own.
    pub(crate) fn at(&self, slot: usize) -> Option<(RelayId, &UdpSocket)> {
        let open = self.slots.get(slot)?.as_ref()?;
        match &open.via {
            Via::Own(socket) => Some((open.id, socket)),
            Via::Shared(..) => None,
        }
    }

    /// Whose a datagram is that came to this address on a shared socket.
    pub(crate) fn at_address(&self, ip: IpAddr) -> Option<RelayId> {
        self.by_address.get(&ip).copied()
    }

    /// The socket to send from, and the address where the socket alone does not tell.
    pub(crate) fn sender(&self, id: RelayId) -> Option<(BorrowedFd<'_>, Option<IpAddr>)> {
        let open = self.slots.get(id.slot())?.as_ref()?;
        if open.id != id {
            return None;
        }
        Some(match &open.via {
            Via::Own(socket) => (socket.as_fd(), None),
            Via::Shared(index, ip) => (self.shared.get(*index)?.as_fd(), Some(*ip)),
        })
    }
}
