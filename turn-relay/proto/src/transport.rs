//! What is between client and server, and what happens when it is a connection that ends.

use crate::{EndReason, FiveTuple, Now, Server};

/// The shell's name for a connection, of its own choice; a small number. It may be given again when
/// [`Server::handle_connection_closed`] has been told of the end of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

impl ConnectionId {
    /// No connection: the shell never gives it.
    pub const GONE: Self = Self(u32::MAX);
}

/// The transport protocol between client and server
/// ([RFC 8656 section 3.1](https://www.rfc-editor.org/rfc/rfc8656#section-3.1)); part of the five-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp(ConnectionId),
    /// TLS over TCP.
    Tls(ConnectionId),
    /// DTLS over UDP: a connection, but one of datagrams.
    Dtls(ConnectionId),
}

impl Transport {
    /// The connection, if it is one.
    pub fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::Udp => None,
            Self::Tcp(connection) | Self::Tls(connection) | Self::Dtls(connection) => {
                Some(connection)
            }
        }
    }
}

impl Transport {
    /// Whether it is a stream of bytes, as RFC 6062 wants it.
    pub(crate) fn is_stream(self) -> bool {
        matches!(self, Self::Tcp(_) | Self::Tls(_))
    }
}

impl Server {
    /// Whether there is an allocation on a five-tuple.
    pub fn has_allocation(&mut self, path: FiveTuple) -> bool {
        self.table.find(path).is_some()
    }

    /// A client's connection has ended, and its allocation with it: nothing could reach the client by it any more. One that
    /// can move (RFC 8016) waits to be moved.
    pub fn handle_connection_closed(&mut self, now: Now, path: FiveTuple) {
        self.forget_resuming(path);
        self.forget_server_name(path);
        for lookups in self.lookups.values_mut() {
            lookups.forget_requests(path);
        }
        let Some((id, _)) = self.table.find(path) else {
            return;
        };
        if self.park(id, path) {
            return;
        }
        self.end(id, EndReason::Disconnected, now.instant);
    }
}
