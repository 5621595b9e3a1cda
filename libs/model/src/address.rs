//! One type per meaning of an address, so that a client's address cannot be used as a peer's.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(address: $inner) -> Self {
                Self(address)
            }
        }
    };
}

address!(
    /// Where a TURN client's messages come from, as the relay sees it (RFC 8656 section 3).
    ClientAddr,
    SocketAddr
);
address!(
    /// A host that a TURN client talks to through its allocation (RFC 8656 section 3).
    PeerAddr,
    SocketAddr
);
address!(
    /// The relayed transport address of an allocation (RFC 8656 section 3).
    RelayedAddr,
    SocketAddr
);
address!(
    /// A client's server-reflexive address, from XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).
    MappedAddr,
    SocketAddr
);
address!(
    /// The transport address a TURN server listens on.
    ServerAddr,
    SocketAddr
);
address!(
    /// The local address that a remote service has for one sidecar.
    VirtualIp,
    IpAddr
);
