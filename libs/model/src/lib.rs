//! The nouns every other crate speaks with: names, node identities, time and revision counters, and an
//! address type per meaning. No protocol, no I/O, no clock.

#![forbid(unsafe_code)]

mod name;
mod export_name;
mod node;
mod counter;
mod address;
mod relay_access;
mod relay_uri;

pub use address::{ClientAddr, MappedAddr, PeerAddr, RelayedAddr, ServerAddr, VirtualIp};
pub use counter::{LeaseId, Revision, UnixTime};
pub use export_name::{ExportName, Exports, Match};
pub use name::{
    MAX_SERVICE_NAME, MeshName, NameError, NetworkName, NodeName, RelayName, ServiceName,
};
pub use node::{NodeId, NodeIdError, Role, SpiffeId, Subject};
pub use relay_access::{RelayAccess, RelayWay};
pub use relay_uri::{MAX_RELAY_URIS, RelayTransport, RelayUri, RelayUriError};
