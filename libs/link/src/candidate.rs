//! Candidates, in the three forms they take: ours, `rtc-ice`'s, and the wire's.

use std::net::SocketAddr;

use protocol::document::{Candidate as WireCandidate, candidate::Kind};
use rtc_ice::candidate::candidate_host::CandidateHostConfig;
use rtc_ice::candidate::candidate_relay::CandidateRelayConfig;
use rtc_ice::candidate::candidate_server_reflexive::CandidateServerReflexiveConfig;
use rtc_ice::candidate::{Candidate, CandidateConfig};

use crate::output::LinkError;

/// Where a candidate's address comes from.
/// [RFC 8445 §5.1.1](https://www.rfc-editor.org/rfc/rfc8445#section-5.1.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CandidateKind {
    /// An address of an own interface.
    Host,
    /// The address a STUN server saw.
    ServerReflexive,
    /// An address a relay lends.
    Relayed,
}

/// An address this end can be reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalCandidate {
    /// Where the address comes from.
    pub kind: CandidateKind,
    /// The address peers send to.
    pub address: SocketAddr,
    /// What this end sends from: the host socket's address, or the relayed address itself.
    pub base: SocketAddr,
}

impl LocalCandidate {
    pub(crate) fn to_ice(self) -> Result<Candidate, LinkError> {
        build(self.kind, self.address, self.base)
    }

    pub(crate) fn to_wire(self) -> WireCandidate {
        let kind = match self.kind {
            CandidateKind::Host => Kind::Host,
            CandidateKind::ServerReflexive => Kind::ServerReflexive,
            CandidateKind::Relayed => Kind::Relayed,
        };
        WireCandidate {
            kind: kind.into(),
            address: self.address.to_string(),
            priority: 0,
            related_address: String::new(),
        }
    }
}

/// A remote candidate as `rtc-ice` wants it, and its address.
pub(crate) fn from_wire(wire: &WireCandidate) -> Result<(Candidate, SocketAddr), LinkError> {
    let bad = || LinkError::BadCandidate(wire.address.chars().take(64).collect());
    let address: SocketAddr = wire.address.parse().map_err(|_| bad())?;
    if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
        return Err(bad());
    }
    let kind = match wire.kind() {
        Kind::Host => CandidateKind::Host,
        Kind::ServerReflexive => CandidateKind::ServerReflexive,
        Kind::Relayed => CandidateKind::Relayed,
        Kind::Unspecified => return Err(bad()),
    };
    Ok((build(kind, address, address)?, address))
}

fn build(
    kind: CandidateKind,
    address: SocketAddr,
    base: SocketAddr,
) -> Result<Candidate, LinkError> {
    let base_config = CandidateConfig {
        network: "udp".to_owned(),
        address: address.ip().to_string(),
        port: address.port(),
        component: 1,
        ..CandidateConfig::default()
    };
    let rel_addr = base.ip().to_string();
    let rel_port = base.port();
    let built = match kind {
        CandidateKind::Host => CandidateHostConfig {
            base_config,
            ..CandidateHostConfig::default()
        }
        .new_candidate_host(),
        CandidateKind::ServerReflexive => CandidateServerReflexiveConfig {
            base_config,
            rel_addr,
            rel_port,
            url: None,
        }
        .new_candidate_server_reflexive(),
        CandidateKind::Relayed => CandidateRelayConfig {
            base_config,
            rel_addr,
            rel_port,
            url: None,
        }
        .new_candidate_relay(),
    };
    built.map_err(|_| LinkError::BadCandidate(address.to_string()))
}
