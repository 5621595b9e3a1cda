//! Everything that can enter the core, apart from the datagrams themselves.

use model::{ClientAddr, ServerAddr, UnixTime};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// The time at which something enters. The core has no clock.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For lifetimes: never goes back.
    pub instant: Instant,
    /// For credentials that expire at a date.
    pub unix: UnixTime,
}

/// How a client reaches the server: client address, server address, and UDP
/// ([RFC 8656 section 3](https://www.rfc-editor.org/rfc/rfc8656#section-3)). An allocation belongs to exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiveTuple {
    pub client: ClientAddr,
    pub server: ServerAddr,
}

impl Hash for FiveTuple {
    // Clients differ; the server's addresses are few and only compared.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let port = self.client.0.port();
        match self.client.0.ip() {
            IpAddr::V4(ip) => state.write_u64(u64::from(ip.to_bits()) << 16 | u64::from(port)),
            IpAddr::V6(ip) => {
                state.write_u128(ip.to_bits());
                state.write_u16(port);
            }
        }
    }
}

/// An address family; the discriminant is the index in arrays of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4 = 0,
    V6 = 1,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

/// Names one allocation for ever: the index is used again, the pair is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Names one relayed transport address, and so one socket of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayId {
    pub(crate) allocation: AllocationId,
    pub(crate) family: Family,
}

impl RelayId {
    /// A small number that no other living relay has: an index for the shell's table of sockets. Used again after
    /// [`Output::CloseRelay`](crate::Output::CloseRelay).
    pub fn slot(self) -> usize {
        self.allocation.index as usize * 2 + self.family as usize
    }
}

/// Why the shell could not open a socket for a relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another program has the port: another one is tried.
    PortInUse,
    /// No descriptor, no such address, no permission: trying again would not help.
    Other,
}
