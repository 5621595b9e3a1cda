//! Plain counters; the shell exports them.

/// Why a packet went nowhere. One metric label each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// Not a frame with a whole IP packet in it.
    Malformed,
    /// From a link: its source is not the sidecar's address.
    SpoofedSource,
    /// From a link: no binding for its destination.
    UnknownVirtualIp,
    /// Neither TCP, UDP nor ICMP echo.
    ForbiddenProtocol,
    /// From a link: a port that is not exported, and nothing to answer it with (the answer is counted too).
    PortNotExported,
    /// A fragment whose ports cannot be judged (RFC 3128).
    SuspiciousFragment,
    /// From the TUN: nobody holds this client address.
    UnknownClient,
    /// From the TUN: its source is not the service's address.
    ForeignSource,
    /// From the TUN: the link cannot take it now.
    LinkCongested,
    /// From a link: the TUN cannot take it now.
    TunCongested,
}

impl DropReason {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Malformed,
        Self::SpoofedSource,
        Self::UnknownVirtualIp,
        Self::ForbiddenProtocol,
        Self::PortNotExported,
        Self::SuspiciousFragment,
        Self::UnknownClient,
        Self::ForeignSource,
        Self::LinkCongested,
        Self::TunCongested,
    ];

    /// The value of the metric's `reason` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::SpoofedSource => "spoofed-source",
            Self::UnknownVirtualIp => "unknown-virtual-ip",
            Self::ForbiddenProtocol => "forbidden-protocol",
            Self::PortNotExported => "port-not-exported",
            Self::SuspiciousFragment => "suspicious-fragment",
            Self::UnknownClient => "unknown-client",
            Self::ForeignSource => "foreign-source",
            Self::LinkCongested => "link-congested",
            Self::TunCongested => "tun-congested",
        }
    }
}

/// What the forwarder has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForwardStats {
    /// Frames passed on to services.
    pub frames_to_services: u64,
    /// Bytes of IP packets in them.
    pub bytes_to_services: u64,
    /// Frames passed on to links.
    pub frames_to_links: u64,
    /// Bytes of IP packets in them.
    pub bytes_to_links: u64,
    /// TCP segments to ports not exported, answered with a reset.
    pub tcp_refused: u64,
    /// UDP datagrams to ports not exported, answered with ICMP port unreachable.
    pub udp_refused: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl ForwardStats {
    /// Counts a drop.
    pub const fn dropped(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// How many were dropped for this reason.
    #[must_use]
    pub const fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}

/// What the gateway has decided so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GatewayStats {
    /// Offers answered.
    pub offers_accepted: u64,
    /// Offers refused.
    pub offers_refused: u64,
    /// Offers for a link that is already there: ignored.
    pub offers_repeated: u64,
    /// Registrations handed to discovery.
    pub registrations: u64,
}

/// What DNS said of names below wildcards so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NameStats {
    /// Answers with addresses that may be used.
    pub found: u64,
    /// Answers that there is nothing.
    pub absent: u64,
    /// Answers with addresses of which none may be used.
    pub outside: u64,
    /// No answer, or an error.
    pub failed: u64,
    /// Bindings refused because there are too many names.
    pub limited: u64,
}
