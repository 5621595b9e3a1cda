//! Who is calling: the client certificate, looked at for every call.

use std::sync::Arc;

use arc_swap::ArcSwap;
use identity::{Serial, Verifier, VerifyError};
use model::{NodeId, Subject, UnixTime};
use tonic::{Request, Status};

/// Somebody with a valid certificate.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) subject: Subject,
    pub(crate) serial: Serial,
    /// DER; looked at again while a watch is open.
    pub(crate) certificate: Arc<[u8]>,
}

impl Peer {
    /// For calls that only nodes make.
    pub(crate) fn node(&self) -> Result<&NodeId, Status> {
        match &self.subject {
            Subject::Node(node) => Ok(node),
            Subject::Admin(_) => Err(Status::permission_denied("only nodes do this")),
        }
    }

    /// What its leases and watches are counted under.
    pub(crate) fn owner(&self) -> String {
        match &self.subject {
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
        let certificates = request.peer_certs();
        let leaf = certificates.as_deref().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| {
            Status::unauthenticated("no client certificate: this node must enroll first")
        })?;
        let (info, id) = self.check(leaf, now)?;
        Ok(Peer {
            subject: id.subject,
            serial: info.serial,
            certificate: leaf.as_ref().into(),
        })
    }

    /// Whether a certificate that was good still is.
    pub(crate) fn recheck(&self, peer: &Peer, now: UnixTime) -> Result<(), Status> {
        self.check(&peer.certificate, now).map(|_| ())
    }

    fn check(
        &self,
        certificate: &[u8],
        now: UnixTime,
    ) -> Result<(identity::CertificateInfo, model::SpiffeId), Status> {
        let verifier = self.verifier.load();
        verifier
            .verify_subject(certificate, now)
            .map_err(|error| match error {
                VerifyError::Revoked(serial) => Status::permission_denied(format!(
                    "this node's certificate {serial} is revoked"
                )),
                error => {
                    let mut status =
                        Status::unauthenticated(format!("the client certificate: {error}"));
                    // So that the node can tell whether it is its clock.
                    status.metadata_mut().insert("unix-time", now.0.into());
                    status
                }
            })
    }
}
