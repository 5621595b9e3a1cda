//! Offer → accept, or refuse with a reason the other side can log.

use std::net::IpAddr;

use model::{NetworkName, NodeId, RelayName, Role};
use protocol::document;
use turn_client::Reservations;

use crate::{
    links::{LinkLimits, Links},
    policy::Export,
};

/// Bindings one offer or one `Bind` may carry.
pub const MAX_BINDINGS: usize = 256;

/// Bindings one link may have: all services that two activators can export, and as many names below wildcards as one node
/// may use.
pub const MAX_LINK_BINDINGS: usize = 768;

/// Candidates one offer may carry: each costs a permission and a channel on the relay.
pub const MAX_CANDIDATES: usize = 16;

/// Allocations one link uses; one is enough, a second bridges the loss of a relay.
pub const MAX_FOOTHOLDS: usize = 2;

/// Why an offer is refused. What `Display` says goes to the offerer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefuseReason {
    /// Made to an earlier run of this activator.
    #[error(
        "the offer is for instance {offered:016x} of this activator, which is now {current:016x}"
    )]
    WrongInstance {
        /// Of the offer.
        offered: u64,
        /// Now.
        current: u64,
    },
    /// Activators answer, they do not offer.
    #[error("only workloads may offer links")]
    NotAWorkload,
    /// There is no way for packets: no relay, and nothing in the offer that could be reached without one.
    #[error("this activator holds no allocation in network `{0}` now")]
    NoFoothold(NetworkName),
    /// The node has as many links as it may have.
    #[error("this node already has {0} links with this activator, which is its limit")]
    TooManyLinksOfNode(usize),
    /// The activator has as many links as it may have.
    #[error("this activator already has {0} links, which is its limit")]
    TooManyLinks(usize),
    /// The offer cannot be used.
    #[error("malformed offer: {0}")]
    Malformed(&'static str),
    /// No binding could be accepted; the reason of the first.
    #[error("{0}")]
    NoBinding(String),
    /// Going away.
    #[error("this activator is shutting down")]
    ShuttingDown,
}

/// An offer that may become a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The relays whose allocations the link gets as relayed candidates.
    pub relays: Vec<RelayName>,
}

/// Decides about everything of an offer but its bindings. No side effect.
///
/// # Errors
/// The reason to refuse it.
pub fn resolve(
    node: &NodeId,
    offer: &document::Offer,
    instance: u64,
    limits: LinkLimits,
    links: &Links,
    reservations: &Reservations,
) -> Result<Acceptance, RefuseReason> {
    if node.role != Role::Workload {
        return Err(RefuseReason::NotAWorkload);
    }
    if offer.instance != instance {
        return Err(RefuseReason::WrongInstance {
            offered: offer.instance,
            current: instance,
        });
    }
    let Some(description) = &offer.description else {
        return Err(RefuseReason::Malformed("it has no session description"));
    };
    if description.candidates.len() > MAX_CANDIDATES {
        return Err(RefuseReason::Malformed("it has too many candidates"));
    }
    if description.dtls_fingerprint.len() != 32 {
        return Err(RefuseReason::Malformed(
            "its DTLS fingerprint is not a SHA-256 digest",
        ));
    }
    if offer.bindings.len() > MAX_BINDINGS {
        return Err(RefuseReason::Malformed("it has too many bindings"));
    }
    if links.len() >= limits.total {
        return Err(RefuseReason::TooManyLinks(links.len()));
    }
    let of_node = links.count_of(node);
    if of_node >= limits.per_node {
        return Err(RefuseReason::TooManyLinksOfNode(of_node));
    }
    let relays: Vec<RelayName> = reservations
        .footholds_in(&node.network)
        .take(MAX_FOOTHOLDS)
        .map(|(relay, _)| relay.clone())
        .collect();
    // Without a relay there may still be a direct way, if the offerer says where it is.
    if relays.is_empty() && description.candidates.is_empty() {
        return Err(RefuseReason::NoFoothold(node.network.clone()));
    }
    Ok(Acceptance { relays })
}

/// The reason to refuse an offer of which no binding was accepted; an offer without bindings is fine, they can
/// come later on the `control` channel.
///
/// # Errors
/// The reason to refuse it.
pub fn check_results(results: &[document::BindingResult]) -> Result<(), RefuseReason> {
    match results.first() {
        Some(first) if results.iter().all(|result| !result.accepted) => {
            Err(RefuseReason::NoBinding(first.reason.clone()))
        }
        _ => Ok(()),
    }
}

/// A binding decoded: at least one virtual IP, each of its own family and a host's address.
///
/// # Errors
/// What is wrong with it, for the other side.
pub fn decode_binding(binding: &document::Binding) -> Result<VirtualIps, &'static str> {
    fn address<const N: usize>(bytes: &[u8]) -> Result<Option<[u8; N]>, &'static str> {
        if bytes.is_empty() {
            return Ok(None);
        }
        bytes
            .try_into()
            .map(Some)
            .map_err(|_| "a virtual IP has the wrong length")
    }
    let ipv4 = address::<4>(&binding.virtual_ipv4)?.map(std::net::Ipv4Addr::from);
    let ipv6 = address::<16>(&binding.virtual_ipv6)?.map(std::net::Ipv6Addr::from);
    if ipv4.is_none() && ipv6.is_none() {
        return Err("it has no virtual IP");
    }
    if ipv4.is_some_and(|a| a.is_unspecified() || a.is_multicast() || a.is_broadcast())
        || ipv6.is_some_and(|a| a.is_unspecified() || a.is_multicast())
    {
        return Err("a virtual IP is not a host's address");
    }
    Ok(VirtualIps { ipv4, ipv6 })
}

/// The addresses one service has for one sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtualIps {
    /// For A records.
    pub ipv4: Option<std::net::Ipv4Addr>,
    /// For AAAA records.
    pub ipv6: Option<std::net::Ipv6Addr>,
}

impl VirtualIps {
    /// Both, as far as there are any.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + Clone + use<> {
        let ipv6 = self.ipv6.map(IpAddr::V6);
        self.ipv4.map(IpAddr::V4).into_iter().chain(ipv6)
    }
}

/// Whether a service can be reached by one of these virtual IPs.
///
/// # Errors
/// The reason why not, for the other side.
pub fn check_families(export: &Export, virtual_ips: VirtualIps) -> Result<(), String> {
    let reachable = (virtual_ips.ipv4.is_some() && !export.ipv4.is_empty())
        || (virtual_ips.ipv6.is_some() && !export.ipv6.is_empty());
    if reachable {
        return Ok(());
    }
    Err(format!(
        "`{}` has no address of the virtual IP's family",
        export.name
    ))
}
