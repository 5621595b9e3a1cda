//! A node's key and certificate: what it keeps, and how it signs.

use std::{fs, path::Path, sync::Arc, time::Duration};

use model::{NodeId, Subject, UnixTime};
use prost::Message as _;
use protocol::document::{Document, SignedDocument, document::Body};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::{
    AuthorityError, CertificateError, CertificateInfo, LEEWAY, Mesh, StateError, TlsMaterial,
    Verifier,
    files::{certificate_from_pem, certificate_pem, read, write_private, write_public},
    verifier::DOCUMENT_CONTEXT,
};

const KEY_FILE: &str = "node-key.pem";
const CERTIFICATE_FILE: &str = "node-certificate.pem";
const CA_FILE: &str = "ca-certificate.pem";

/// A node's private key. Made before the node is enrolled, and kept over renewals, so that a certificate can
/// be replaced by replacing one file.
pub struct NodeKey(KeyPair);

impl std::fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeKey")
    }
}

impl NodeKey {
    /// A new P-256 key.
    ///
    /// # Errors
    /// If the library fails.
    pub fn generate() -> Result<Self, AuthorityError> {
        Ok(Self(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?))
    }

    /// The key kept in the state directory; made, with the directory (mode 0700), if there is none.
    ///
    /// # Errors
    /// If the directory cannot be used or the file is not a key.
    pub fn load_or_generate(state_directory: &Path) -> Result<Self, StateError> {
        let path = state_directory.join(KEY_FILE);
        if let Some(pem) = read(&path)? {
            return Self::from_pem(&pem).map_err(|problem| StateError::content(&path, problem));
        }
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder
            .recursive(true)
            .create(state_directory)
            .map_err(|error| StateError::io(state_directory, error))?;
        let key =
            Self::generate().map_err(|error| StateError::content(&path, error.to_string()))?;
        write_private(&path, key.pem().as_bytes())?;
        Ok(key)
    }

    fn from_pem(pem: &str) -> Result<Self, String> {
        KeyPair::from_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|error| {
                format!("not a PEM P-256 key ({error}); remove it and enroll the node again")
            })
    }

    /// A PKCS #10 request (DER) that proves possession of this key.
    ///
    /// # Errors
    /// If the library fails.
    pub fn request(&self) -> Result<Vec<u8>, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    pub(crate) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }
}

/// A node's key and certificate, and the CA it trusts. Cheap to clone.
#[derive(Clone)]
pub struct NodeIdentity {
    key: Arc<NodeKey>,
    certificate: CertificateDer<'static>,
    ca_certificate: CertificateDer<'static>,
    info: Arc<CertificateInfo>,
    node: NodeId,
    mesh: Mesh,
}

impl std::fmt::Debug for NodeIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeIdentity")
            .field("node", &self.node)
            .field("serial", &self.info.serial)
            .field("not_after", &self.info.not_after)
            .finish_non_exhaustive()
    }
}

impl NodeIdentity {
    /// Puts the parts together (certificates as DER). Validity is not looked at: an expired identity can still
    /// be loaded, and be renewed or replaced.
    ///
    /// # Errors
    /// If the certificate is not a node's, not this key's, or not issued by this CA.
    pub fn new(
        key: NodeKey,
        certificate: Vec<u8>,
        ca_certificate: Vec<u8>,
    ) -> Result<Self, CertificateError> {
        Self::assemble(Arc::new(key), certificate.into(), ca_certificate.into())
    }

    fn assemble(
        key: Arc<NodeKey>,
        certificate: CertificateDer<'static>,
        ca_certificate: CertificateDer<'static>,
    ) -> Result<Self, CertificateError> {
        let mesh = Mesh::of(&ca_certificate)?;
        let info = CertificateInfo::read(&certificate)?;
        if info.public_key != key.0.public_key_raw() {
            return Err(CertificateError::OtherKey);
        }
        Verifier::new(&ca_certificate, None)?
            .check_chain(&certificate, info.not_after)
            .map_err(|_| CertificateError::UnknownAuthority)?;
        let Subject::Node(node) = info.spiffe_id.subject.clone() else {
            return Err(CertificateError::Malformed("it is not a node's"));
        };
        if info.spiffe_id.mesh != mesh.name {
            return Err(CertificateError::UnknownAuthority);
        }
        Ok(Self {
            key,
            certificate,
            ca_certificate,
            info: Arc::new(info),
            node,
            mesh,
        })
    }

    /// The same node and key with a renewed certificate (DER).
    ///
    /// # Errors
    /// As [`NodeIdentity::new`]; also if it is another node's.
    pub fn renewed(&self, certificate: Vec<u8>) -> Result<Self, CertificateError> {
        let new = Self::assemble(
            self.key.clone(),
            certificate.into(),
            self.ca_certificate.clone(),
        )?;
        if new.node == self.node {
            Ok(new)
        } else {
            Err(CertificateError::Malformed(
                "the renewed certificate is another node's",
            ))
        }
    }

    /// The identity kept in a state directory; `None` if the node has not been enrolled.
    ///
    /// # Errors
    /// If files are unreadable or do not belong together.
    pub fn load(state_directory: &Path) -> Result<Option<Self>, StateError> {
        let path = |name: &str| state_directory.join(name);
        let (key_path, certificate_path) = (path(KEY_FILE), path(CERTIFICATE_FILE));
        let (Some(key), Some(certificate), Some(ca)) = (
            read(&key_path)?.map(Zeroizing::new),
            read(&certificate_path)?,
            read(&path(CA_FILE))?,
        ) else {
            return Ok(None);
        };
        let key =
            NodeKey::from_pem(&key).map_err(|problem| StateError::content(&key_path, problem))?;
        let der = |file: &str, pem: &str| {
            certificate_from_pem(pem).ok_or_else(|| {
                let problem = "not a PEM certificate; remove it and enroll the node again";
                StateError::content(&path(file), problem)
            })
        };
        let identity = Self::assemble(
            Arc::new(key),
            der(CERTIFICATE_FILE, &certificate)?,
            der(CA_FILE, &ca)?,
        )
        .map_err(|error| {
            let problem = format!("{error}; remove it and enroll the node again");
            StateError::content(&certificate_path, problem)
        })?;
        Ok(Some(identity))
    }

    /// Keeps the identity: `node-key.pem` (0600), `ca-certificate.pem`, then `node-certificate.pem`, each
    /// replaced atomically. A crash in between leaves a node that is not enrolled, or the previous identity.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, state_directory: &Path) -> Result<(), StateError> {
        let key_path = state_directory.join(KEY_FILE);
        let pem = self.key.pem();
        if read(&key_path)?
            .map(Zeroizing::new)
            .is_none_or(|kept| *kept != *pem)
        {
            write_private(&key_path, pem.as_bytes())?;
        }
        let ca = certificate_pem(&self.ca_certificate);
        write_public(&state_directory.join(CA_FILE), ca.as_bytes())?;
        let certificate = certificate_pem(&self.certificate);
        write_private(
            &state_directory.join(CERTIFICATE_FILE),
            certificate.as_bytes(),
        )
    }

    /// Which node this is.
    #[must_use]
    pub const fn node_id(&self) -> &NodeId {
        &self.node
    }

    /// Which mesh it belongs to.
    #[must_use]
    pub const fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// What the certificate says: serial, validity, public key.
    #[must_use]
    pub fn certificate(&self) -> &CertificateInfo {
        &self.info
    }

    /// Until when the certificate is valid.
    #[must_use]
    pub fn not_after(&self) -> UnixTime {
        self.info.not_after
    }

    /// When to renew: at two thirds of the certificate's life.
    #[must_use]
    pub fn renew_at(&self) -> UnixTime {
        // It is valid from a little earlier than it was issued.
        let issued = self.info.not_before.saturating_add(LEEWAY);
        issued.saturating_add(self.info.not_after.since(issued) * 2 / 3)
    }

    /// The node's certificate, DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The CA certificate, DER.
    #[must_use]
    pub fn ca_certificate_der(&self) -> &[u8] {
        &self.ca_certificate
    }

    /// A PKCS #10 request (DER) for the same key, to renew with.
    ///
    /// # Errors
    /// If the library fails.
    pub fn request(&self) -> Result<Vec<u8>, AuthorityError> {
        self.key.request()
    }

    /// What TLS towards discovery needs.
    #[must_use]
    pub fn tls(&self) -> TlsMaterial {
        TlsMaterial {
            certificate_pem: certificate_pem(&self.certificate),
            key_pem: self.key.pem(),
            ca_pem: certificate_pem(&self.ca_certificate),
        }
    }

    /// Checks what others sign, as this node: documents for it or for everyone.
    ///
    /// # Errors
    /// None in practice: the CA certificate was read before.
    pub fn verifier(&self) -> Result<Verifier, CertificateError> {
        Verifier::new(&self.ca_certificate, Some(self.node.clone()))
    }

    /// Signs a document. See `docs/protocol/signed-documents.md`.
    ///
    /// # Errors
    /// If the library fails.
    pub fn sign(&self, document: &Document) -> Result<SignedDocument, AuthorityError> {
        let payload = document.encode_to_vec();
        let message = [DOCUMENT_CONTEXT, &payload].concat();
        let signature = self.key.0.sign(&message)?;
        Ok(SignedDocument {
            payload,
            signature,
            certificate: self.certificate.to_vec(),
        })
    }
}

/// A document from `now` for `lifetime`, for one node or (registrations only) for everyone.
#[must_use]
pub fn document(
    body: Body,
    audience: Option<&NodeId>,
    lifetime: Duration,
    now: UnixTime,
) -> Document {
    Document {
        issued_unix_time: now.0,
        expires_unix_time: now.saturating_add(lifetime).0,
        audience: audience.map(NodeId::to_string).unwrap_or_default(),
        body: Some(body),
    }
}
