/// What happened, counted since the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Allocations that came to be.
    pub allocated: u64,
    /// Allocations that were lost, whatever the reason.
    pub lost: u64,
    /// Moves to another five-tuple.
    pub moved: u64,
    /// Requests sent, not counting retransmissions.
    pub requests: u64,
    /// Requests sent again because no answer came.
    pub retransmissions: u64,
    /// Datagrams of the relay that were ignored.
    pub dropped: u64,
    /// Packets of peers.
    pub from_peers: u64,
    /// Packets to peers, encoded.
    pub to_peers: u64,
    /// Packets to peers that could not be sent: no allocation, or nobody asked for a permission.
    pub not_sent: u64,
    /// Peers that the relay forbids (403).
    pub forbidden: u64,
    /// Peers that were refused here: no allocation, wrong family, or too many.
    pub not_permitted: u64,
}
