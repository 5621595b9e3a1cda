//! Who is calling: the client certificate, verified once for each connection; its validity and revocation at every call.

use std::sync::Arc;

use arc_swap::ArcSwap;
use identity::{CertificateInfo, Serial, Verifier, VerifyError};
use model::{NodeId, Subject, UnixTime};
use tonic::{Request, Status, transport::server::TlsConnectInfo};

use crate::incoming::Verified;

/// Somebody with a valid certificate.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) info: Arc<CertificateInfo>,
    /// DER.
    pub(crate) certificate: Arc<[u8]>,
}

impl Peer {
    pub(crate) fn subject(&self) -> &Subject {
        &self.info.spiffe_id.subject
    }

    /// For calls that only nodes make.
    pub(crate) fn node(&self) -> Result<&NodeId, Status> {
        match self.subject() {
            Subject::Node(node) => Ok(node),
            Subject::Admin(_) => Err(Status::permission_denied("only nodes do this")),
        }
    }

    /// What its leases and watches are counted under.
    pub(crate) fn owner(&self) -> String {
        match self.subject() {
            Subject::Node(node) => node.to_string(),
            Subject::Admin(name) => format!("admin/{name}"),
        }
    }
}

/// Knows the CA and the revocations as of now.
#[derive(Debug)]
pub(crate) struct Peers {
    verifier: ArcSwap<Verifier>,
}

impl Peers {
    pub(crate) fn new(verifier: Verifier) -> Self {
        Self {
            verifier: ArcSwap::from_pointee(verifier),
        }
    }

    pub(crate) fn verifier(&self) -> Arc<Verifier> {
        self.verifier.load_full()
    }

    pub(crate) fn set_revocations(&self, revoked: std::collections::BTreeSet<Serial>) {
        self.verifier
            .store(Arc::new(self.verifier().with_revocations(revoked)));
    }

    pub(crate) fn identify<T>(&self, request: &Request<T>, now: UnixTime) -> Result<Peer, Status> {
        let connection = request.extensions().get::<TlsConnectInfo<Verified>>();
        let certificates = connection.and_then(TlsConnectInfo::peer_certs);
        let leaf = certificates.as_deref().and_then(|chain| chain.first());
        let (Some(connection), Some(leaf)) = (connection, leaf) else {
            return Err(Status::unauthenticated(
                "no client certificate: this node must enroll first",
            ));
        };
        // The CA is the same as long as this process lives.
        if let Some(peer) = connection.get_ref().get() {
            self.recheck(peer, now)?;
            return Ok(peer.clone());
        }
        let verified = self.verifier.load().verify_subject(leaf, now);
        let (info, _) = verified.map_err(|error| refused(&error, now))?;
        let peer = connection.get_ref().get_or_init(|| Peer {
            info: Arc::new(info),
            certificate: leaf.as_ref().into(),
        });
        Ok(peer.clone())
    }

    /// Whether a certificate that was good still is.
    pub(crate) fn recheck(&self, peer: &Peer, now: UnixTime) -> Result<(), Status> {
        let verifier = self.verifier.load();
        let checked = verifier.verify_again(&peer.info, now);
        checked.map_err(|error| refused(&error, now))
    }
}

fn refused(error: &VerifyError, now: UnixTime) -> Status {
    if let VerifyError::Revoked(serial) = error {
        return Status::permission_denied(format!("this node's certificate {serial} is revoked"));
    }
    let mut status = Status::unauthenticated(format!("the client certificate: {error}"));
    // So that the node can tell whether it is its clock.
    status.metadata_mut().insert("unix-time", now.0.into());
    status
}
