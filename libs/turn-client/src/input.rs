//! What an allocation is told, besides datagrams and the time.

use std::fmt;
use std::net::SocketAddr;

use model::RelayTransport;

/// The families that relayed addresses are wanted of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Families {
    /// One IPv4 address.
    V4,
    /// One IPv6 address.
    V6,
    /// One of each, if the relay has both ([RFC 8656 section
    /// 7.1](https://www.rfc-editor.org/rfc/rfc8656#section-7.1)); otherwise what it has.
    Both,
}

/// What an allocation begins with. [`Allocation::move_to`](crate::Allocation::move_to) changes transport and addresses.
#[derive(Debug, Clone)]
pub struct AllocationConfig {
    /// What messages travel by. Over a stream none is repeated: TCP does that.
    pub transport: RelayTransport,
    /// Whether to ask for a ticket, without which nothing moves (RFC 8016).
    pub mobile: bool,
    /// The relay. The shell sends there, and passes on only what came from there.
    pub server: SocketAddr,
    /// The socket's own address: with the relay's it makes the five-tuple.
    pub local: SocketAddr,
    /// What to ask for.
    pub families: Families,
    /// From the system's randomness, different for each allocation: transaction IDs are made from it.
    pub seed: u64,
}

/// A long-term credential ([RFC 8489 section 9.2](https://www.rfc-editor.org/rfc/rfc8489#section-9.2)).
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// At most 508 bytes of UTF-8; of a TURN REST credential `expiry:name`.
    pub username: String,
    /// As given, not prepared (OpaqueString, RFC 8265): what relays issue needs no preparation.
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
