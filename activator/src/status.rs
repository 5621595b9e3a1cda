//! What `/status` shows.

use serde::Serialize;
use service_kit::status::LinkStatus;

/// Everything, for people and for `turnpike status`.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Status {
    /// `network/role/name`.
    pub(crate) node: String,
    pub(crate) instance: String,
    pub(crate) discovery_connected: bool,
    /// The addresses that relays see of this host's sockets, `ip:port`.
    pub(crate) reflexive: Vec<String>,
    pub(crate) allocations: Vec<AllocationStatus>,
    pub(crate) links: Vec<LinkStatus>,
    pub(crate) services: Vec<String>,
    /// Names below wildcards that somebody asked for lately, by name; at most 256.
    pub(crate) names: Vec<NameStatus>,
}

/// What this network's DNS said of a name.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NameStatus {
    pub(crate) name: String,
    /// Those that are used.
    pub(crate) addresses: Vec<String>,
    /// Why there are none.
    pub(crate) problem: Option<String>,
    /// Links that are bound to it.
    pub(crate) links: usize,
}

/// One allocation that should be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AllocationStatus {
    pub(crate) relay: String,
    pub(crate) network: String,
    pub(crate) server: Option<String>,
    /// How the relay is spoken to now: `udp`, `tcp` or `tls`.
    pub(crate) transport: Option<String>,
    pub(crate) relayed: Vec<String>,
    /// `waiting` for a credential, `allocating`, `allocated`; `ending` where the relay drains.
    pub(crate) state: &'static str,
    pub(crate) peers: usize,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}
