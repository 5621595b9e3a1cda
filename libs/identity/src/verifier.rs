//! Is this document what a node of our mesh said, to us, now?
//!
//! Checked in this order: sizes; the certificate's chain, validity and purpose; revocation; the signature; and
//! only then is the payload decoded: times, audience, and that what it says of its author is true.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use model::{NodeId, Role, SpiffeId, Subject, UnixTime};
use prost::Message as _;
use protocol::document::{Document, SignedDocument, document::Body};
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{EndEntityCert, KeyUsage, aws_lc_rs::ECDSA_P256_SHA256};

use crate::{CertificateError, CertificateInfo, LEEWAY, MAX_DOCUMENT, Mesh, Serial};

/// What the signature covers before the payload, so that a signature made for one purpose is good for no other.
pub(crate) const DOCUMENT_CONTEXT: &[u8] = b"turnpike-document-v1\0";
/// An ECDSA P-256 signature in DER has at most 72 bytes.
const MAX_SIGNATURE: usize = 80;

/// Why a document is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The certificate does not chain to this mesh's CA.
    #[error("its certificate was not issued by the CA of this mesh")]
    UnknownAuthority,
    /// The signature is not this payload's by this certificate's key: somebody altered it.
    #[error("its signature is wrong: it was altered on the way, or signed with another key")]
    WrongSignature,
    /// The certificate has ended.
    #[error(
        "its certificate expired at {not_after} and it is {now}: \
         the node has not renewed it, or a clock is wrong; check the clocks of both nodes"
    )]
    CertificateExpired {
        /// Until when it was valid.
        not_after: UnixTime,
        /// Our clock.
        now: UnixTime,
    },
    /// The certificate has not begun.
    #[error(
        "its certificate is valid from {not_before} and it is {now}: \
         a clock is wrong; check the clocks of both nodes"
    )]
    CertificateNotYetValid {
        /// From when it is valid.
        not_before: UnixTime,
        /// Our clock.
        now: UnixTime,
    },
    /// An operator revoked the certificate.
    #[error("its certificate {0} is revoked")]
    Revoked(Serial),
    /// The document has ended.
    #[error("it expired at {expired} and it is {now}: it is old, or a clock is wrong")]
    DocumentExpired {
        /// Until when it was meant.
        expired: UnixTime,
        /// Our clock.
        now: UnixTime,
    },
    /// The document comes from the future.
    #[error(
        "it was issued at {issued} and it is {now}: a clock is wrong; check both nodes' clocks"
    )]
    DocumentNotYetValid {
        /// When it was issued, by its author's clock.
        issued: UnixTime,
        /// Our clock.
        now: UnixTime,
    },
    /// It was meant for somebody else.
    #[error("it is meant for `{0}`, not for this node")]
    WrongAudience(String),
    /// It claims to be of another node than the one that signed it, or one of its role may not say this.
    #[error("{0} signed it, but it speaks for another node or role")]
    WrongAuthor(NodeId),
    /// Not a signed document at all.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
}

/// A document that was verified.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Who signed it.
    pub node: NodeId,
    /// What it says.
    pub document: Document,
    /// The number of the certificate it was signed with.
    pub serial: Serial,
    /// Until when that certificate is valid.
    pub certificate_not_after: UnixTime,
}

/// Verifies signed documents. Cheap to clone; immutable, a new one is made when revocations change.
#[derive(Debug, Clone)]
pub struct Verifier {
    mesh: Mesh,
    anchor: Arc<TrustAnchor<'static>>,
    audience: Option<NodeId>,
    revoked: Arc<BTreeSet<Serial>>,
}

impl Verifier {
    /// For documents to `audience` and to everyone; without one, only those to everyone.
    ///
    /// # Errors
    /// If this is not a CA certificate (DER) of a mesh.
    pub fn new(ca_certificate: &[u8], audience: Option<NodeId>) -> Result<Self, CertificateError> {
        let mesh = Mesh::of(ca_certificate)?;
        let der = CertificateDer::from(ca_certificate);
        let anchor = webpki::anchor_from_trusted_cert(&der)
            .map_err(|_| CertificateError::Malformed("not usable as a trust anchor"))?
            .to_owned();
        Ok(Self {
            mesh,
            anchor: Arc::new(anchor),
            audience,
            revoked: Arc::default(),
        })
    }

    /// The same with other revocations.
    #[must_use]
    pub fn with_revocations(&self, revoked: BTreeSet<Serial>) -> Self {
        Self {
            revoked: Arc::new(revoked),
            ..self.clone()
        }
    }

    /// Is this certificate revoked?
    #[must_use]
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.revoked.contains(serial)
    }

    /// Verifies a document and decodes it.
    ///
    /// # Errors
    /// Why it must not be believed.
    pub fn verify(&self, signed: &SignedDocument, now: UnixTime) -> Result<Verified, VerifyError> {
        use VerifyError::Malformed;
        if signed.payload.len() > MAX_DOCUMENT {
            return Err(Malformed("longer than 16 KiB"));
        }
        if signed.signature.len() > MAX_SIGNATURE {
            return Err(VerifyError::WrongSignature);
        }
        let (info, node) = self.verify_certificate(&signed.certificate, now)?;
        let der = CertificateDer::from(signed.certificate.as_slice());
        let message = [DOCUMENT_CONTEXT, &signed.payload].concat();
        EndEntityCert::try_from(&der)
            .map_err(|_| Malformed("certificate"))?
            .verify_signature(ECDSA_P256_SHA256, &message, &signed.signature)
            .map_err(|_| VerifyError::WrongSignature)?;
        let document =
            Document::decode(signed.payload.as_slice()).map_err(|_| Malformed("payload"))?;
        self.check_times(&document, now)?;
        self.check_audience(&document)?;
        check_author(&document, &node)?;
        Ok(Verified {
            node,
            document,
            serial: info.serial,
            certificate_not_after: info.not_after,
        })
    }

    /// Verifies a node's certificate (DER) alone: chain, validity at `now`, purpose, revocation.
    ///
    /// # Errors
    /// Why it must not be believed.
    pub fn verify_certificate(
        &self,
        certificate: &[u8],
        now: UnixTime,
    ) -> Result<(CertificateInfo, NodeId), VerifyError> {
        let (info, id) = self.verify_subject(certificate, now)?;
        match id.subject {
            Subject::Node(node) => Ok((info, node)),
            Subject::Admin(_) => Err(VerifyError::Malformed("the certificate is not a node's")),
        }
    }

    /// As [`Verifier::verify_certificate`], for nodes and operators.
    ///
    /// # Errors
    /// Why it must not be believed.
    pub fn verify_subject(
        &self,
        certificate: &[u8],
        now: UnixTime,
    ) -> Result<(CertificateInfo, SpiffeId), VerifyError> {
        let info = CertificateInfo::read(certificate).map_err(|error| match error {
            CertificateError::Malformed(what) => VerifyError::Malformed(what),
            _ => VerifyError::Malformed("certificate"),
        })?;
        // The chain first: what an unknown CA says about times is of no interest.
        self.check_chain(certificate, info.not_after)?;
        if info.spiffe_id.mesh != self.mesh.name {
            return Err(VerifyError::UnknownAuthority);
        }
        self.verify_again(&info, now)?;
        let id = info.spiffe_id.clone();
        Ok((info, id))
    }

    /// What can change about a certificate that was verified before: its validity at `now`, and revocation.
    ///
    /// # Errors
    /// Why it must not be believed any more.
    pub fn verify_again(&self, info: &CertificateInfo, now: UnixTime) -> Result<(), VerifyError> {
        if now > info.not_after.saturating_add(LEEWAY) {
            return Err(VerifyError::CertificateExpired {
                not_after: info.not_after,
                now,
            });
        }
        if now.saturating_add(LEEWAY) < info.not_before {
            let not_before = info.not_before;
            return Err(VerifyError::CertificateNotYetValid { not_before, now });
        }
        if self.is_revoked(&info.serial) {
            return Err(VerifyError::Revoked(info.serial.clone()));
        }
        Ok(())
    }

    /// That the mesh's CA issued it, as a client's certificate, valid at `time`.
    pub(crate) fn check_chain(
        &self,
        certificate: &[u8],
        time: UnixTime,
    ) -> Result<(), VerifyError> {
        let der = CertificateDer::from(certificate);
        let time = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(time.0));
        EndEntityCert::try_from(&der)
            .map_err(|_| VerifyError::Malformed("certificate"))?
            .verify_for_usage(
                &[ECDSA_P256_SHA256],
                std::slice::from_ref(&*self.anchor),
                &[],
                time,
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(|error| match error {
                webpki::Error::RequiredEkuNotFoundContext(_) => {
                    VerifyError::Malformed("the certificate is not for clients")
                }
                webpki::Error::CaUsedAsEndEntity => {
                    VerifyError::Malformed("the certificate is a CA's")
                }
                _ => VerifyError::UnknownAuthority,
            })?;
        Ok(())
    }

    fn check_times(&self, document: &Document, now: UnixTime) -> Result<(), VerifyError> {
        let issued = UnixTime(document.issued_unix_time);
        let expired = UnixTime(document.expires_unix_time);
        if now > expired.saturating_add(LEEWAY) {
            return Err(VerifyError::DocumentExpired { expired, now });
        }
        if now.saturating_add(LEEWAY) < issued {
            return Err(VerifyError::DocumentNotYetValid { issued, now });
        }
        Ok(())
    }

    fn check_audience(&self, document: &Document) -> Result<(), VerifyError> {
        let for_everyone = matches!(document.body, Some(Body::Registration(_)));
        let fits = match document.audience.as_str() {
            "" => for_everyone,
            audience => self
                .audience
                .as_ref()
                .is_some_and(|node| node.to_string() == audience),
        };
        if fits {
            Ok(())
        } else {
            Err(VerifyError::WrongAudience(document.audience.clone()))
        }
    }
}

/// A registration must name its signer, who must be an activator; the rest names nobody.
fn check_author(document: &Document, signer: &NodeId) -> Result<(), VerifyError> {
    let fits = match &document.body {
        Some(Body::Registration(registration)) => {
            signer.role == Role::Activator
                && registration.network == signer.network.as_str()
                && registration.node == signer.name.as_str()
        }
        Some(Body::Offer(_)) => signer.role == Role::Workload,
        Some(Body::Answer(_)) => signer.role == Role::Activator,
        Some(Body::Refusal(_) | Body::Candidates(_) | Body::Bye(_)) => true,
        None => return Err(VerifyError::Malformed("no body that this version knows")),
    };
    if fits {
        Ok(())
    } else {
        Err(VerifyError::WrongAuthor(signer.clone()))
    }
}
