//! What goes over, beside the sockets: Protocol Buffers, as in the mind's part of it. Numbers are never used again for
//! something else. The sockets come in the order in which they are mentioned here.

/// All of it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct State {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// Clients hold nonces made with it.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) nonce_key: Vec<u8>,
    /// Microseconds since the time that nonces count from.
    #[prost(uint64, tag = "3")]
    pub(crate) nonce_age: u64,
    /// Of UDP first: each event loop has a socket for each of them.
    #[prost(message, repeated, tag = "4")]
    pub(crate) listeners: Vec<ListenerState>,
    /// As it is configured. It has a socket.
    #[prost(string, optional, tag = "5")]
    pub(crate) admin: Option<String>,
    #[prost(message, repeated, tag = "6")]
    pub(crate) shards: Vec<ShardState>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ListenerState {
    /// `udp`, or a label of `StreamKind`.
    #[prost(string, tag = "1")]
    pub(crate) transport: String,
    /// The address as it is configured.
    #[prost(string, tag = "2")]
    pub(crate) configured: String,
    /// With the port that the kernel chose, if 0 is configured.
    #[prost(string, tag = "3")]
    pub(crate) address: String,
}

/// One event loop. Its sockets: the listeners', the shared ones, those of relayed addresses, the connections'.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ShardState {
    /// `turn_relay_proto::Exported`.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) core: Vec<u8>,
    /// Sockets that relayed addresses share.
    #[prost(uint32, tag = "2")]
    pub(crate) shared: u32,
    /// Relayed addresses that have a socket: all, or none.
    #[prost(uint32, tag = "3")]
    pub(crate) relays: u32,
    #[prost(message, repeated, tag = "4")]
    pub(crate) connections: Vec<ConnectionState>,
}

/// A connection of TCP.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct ConnectionState {
    #[prost(uint32, tag = "1")]
    pub(crate) slot: u32,
    #[prost(string, tag = "2")]
    pub(crate) client: String,
    #[prost(string, tag = "3")]
    pub(crate) server: String,
    /// The beginning of a frame that was received.
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) received: Vec<u8>,
    /// What waits to be sent, perhaps from the middle of a frame on.
    #[prost(bytes = "vec", tag = "5")]
    pub(crate) unsent: Vec<u8>,
    /// For how many microseconds it has had no allocation, if it has none.
    #[prost(uint64, optional, tag = "6")]
    pub(crate) without_allocation: Option<u64>,
}
