//! Candidates, as ours and as the wire's.

use std::net::SocketAddr;

use protocol::document::{Candidate as WireCandidate, candidate::Kind};

use crate::ice::candidate_priority;
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
    /// As the peer is told of it.
    #[must_use]
    pub fn to_wire(self) -> WireCandidate {
        let kind = match self.kind {
            CandidateKind::Host => Kind::Host,
            CandidateKind::ServerReflexive => Kind::ServerReflexive,
            CandidateKind::Relayed => Kind::Relayed,
        };
        WireCandidate {
            kind: kind.into(),
            address: self.address.to_string(),
            priority: candidate_priority(self.kind, self.address.ip()),
            related_address: String::new(),
        }
    }
}

/// What a remote candidate is, and its address.
pub(crate) fn from_wire(wire: &WireCandidate) -> Result<(CandidateKind, SocketAddr), LinkError> {
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
    Ok((kind, address))
}
