//! The mesh's certificate authority.

use std::{net::IpAddr, time::Duration};

use model::{MeshName, NodeId, NodeName, SpiffeId, Subject, UnixTime};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SanType, SerialNumber, SigningKey as _,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    LEEWAY, NodeIdentity, NodeKey,
    certificate::{self, CertificateError},
    files::{self, certificate_from_pem},
};

/// The CA's own certificate: ten years.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Certificates that only TLS checks are valid from a day earlier: a new node whose clock is behind then still
/// reaches discovery, and is told what its clock shows instead of a TLS alert.
const EARLY: Duration = Duration::from_secs(86_400);
/// Longer certificate requests are refused unread.
const MAX_REQUEST: usize = 4096;

/// A mesh: the trust domain of its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// The common name of the CA certificate.
    pub name: MeshName,
}

impl Mesh {
    /// Reads the mesh's name from its CA certificate (DER).
    ///
    /// # Errors
    /// If it is not a CA certificate whose common name is a mesh name.
    pub fn of(ca_certificate: &[u8]) -> Result<Self, CertificateError> {
        let name = certificate::common_name(ca_certificate)?
            .parse()
            .map_err(|_| CertificateError::Malformed("its common name is not a mesh name"))?;
        Ok(Self { name })
    }
}

/// Why the authority could not be made, loaded, or could not issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The CA certificate is unusable.
    #[error("CA certificate: {0}")]
    Certificate(#[from] CertificateError),
    /// The CA key is unusable, or is not the certificate's.
    #[error("CA key: {0}")]
    Key(String),
    /// The certificate request is malformed, not signed by its key, or its key is not P-256.
    #[error("certificate request: {0}")]
    Request(String),
    /// A name for a server certificate is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Name(String),
    /// The library failed.
    #[error("cannot issue a certificate: {0}")]
    Issue(#[from] rcgen::Error),
}

/// What one end of a TLS connection within the mesh needs, as PEM.
#[derive(Clone)]
pub struct TlsMaterial {
    /// This end's certificate.
    pub certificate_pem: String,
    /// This end's private key (PKCS #8).
    pub key_pem: Zeroizing<String>,
    /// What the other end's certificate must chain to.
    pub ca_pem: String,
}

impl std::fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsMaterial").finish_non_exhaustive()
    }
}

/// The CA: its certificate and its key.
pub struct Authority {
    mesh: Mesh,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("mesh", &self.mesh)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A new CA for a mesh, with a new key, valid for ten years.
    ///
    /// # Errors
    /// If the library fails.
    pub fn new(mesh: MeshName, now: UnixTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, mesh.as_str());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial());
        params.not_before = date(now.saturating_sub(EARLY));
        params.not_after = date(now.saturating_add(CA_LIFETIME));
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self {
            mesh: Mesh { name: mesh },
            certificate,
            issuer: Issuer::new(params, key),
        })
    }

    /// Loads a CA from PEM.
    ///
    /// # Errors
    /// If either is unreadable, or the key is not the certificate's.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let certificate = certificate_from_pem(certificate_pem)
            .ok_or(CertificateError::Malformed("not a PEM CERTIFICATE"))?;
        let mesh = Mesh::of(&certificate)?;
        let key = KeyPair::from_pem_and_sign_algo(key_pem, &PKCS_ECDSA_P256_SHA256)
            .map_err(|error| AuthorityError::Key(format!("not a PEM P-256 key ({error})")))?;
        if key.public_key_raw() != certificate::public_key(&certificate)? {
            return Err(AuthorityError::Key(
                "it is not the CA certificate's key".into(),
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            mesh,
            certificate,
            issuer,
        })
    }

    /// The mesh.
    #[must_use]
    pub const fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// The CA certificate, DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate
    }

    /// The CA certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        files::certificate_pem(&self.certificate)
    }

    /// The CA key, PEM (PKCS #8).
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }

    /// Issues a node's certificate for the key in a PKCS #10 request (DER), of which nothing else is used.
    /// Valid from [`LEEWAY`] before `now` until `ttl` after it. Returns DER.
    ///
    /// # Errors
    /// [`AuthorityError::Request`] if the request does not prove possession of a P-256 key.
    pub fn issue_node(
        &self,
        request: &[u8],
        node: NodeId,
        ttl: Duration,
        now: UnixTime,
    ) -> Result<Vec<u8>, AuthorityError> {
        self.issue(request, Subject::Node(node), ttl, now)
    }

    /// Issues an operator's certificate: may read everything and revoke nodes.
    ///
    /// # Errors
    /// If the library fails.
    pub fn new_admin(
        &self,
        name: NodeName,
        ttl: Duration,
        now: UnixTime,
    ) -> Result<TlsMaterial, AuthorityError> {
        let key = NodeKey::generate()?;
        let certificate = self.issue(&key.request()?, Subject::Admin(name), ttl, now)?;
        Ok(TlsMaterial {
            certificate_pem: files::certificate_pem(&certificate),
            key_pem: key.pem(),
            ca_pem: self.certificate_pem(),
        })
    }

    /// A node with a new key and certificate, made where the CA is: for tests and for operators' tools.
    ///
    /// # Errors
    /// If the library fails.
    pub fn new_node(
        &self,
        node: NodeId,
        ttl: Duration,
        now: UnixTime,
    ) -> Result<NodeIdentity, AuthorityError> {
        let key = NodeKey::generate()?;
        let certificate = self.issue_node(&key.request()?, node, ttl, now)?;
        Ok(NodeIdentity::new(
            key,
            certificate,
            self.certificate.to_vec(),
        )?)
    }

    /// A server's certificate with a new key, for these DNS names and IP addresses.
    ///
    /// # Errors
    /// [`AuthorityError::Name`] if one is neither.
    pub fn issue_server(
        &self,
        names: &[String],
        ttl: Duration,
        now: UnixTime,
    ) -> Result<TlsMaterial, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = leaf("discovery", ExtendedKeyUsagePurpose::ServerAuth);
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(ip) => SanType::IpAddress(ip),
                Err(_) => SanType::DnsName(
                    name.as_str()
                        .try_into()
                        .map_err(|_| AuthorityError::Name(name.clone()))?,
                ),
            });
        }
        params.not_before = date(now.saturating_sub(EARLY));
        params.not_after = date(now.saturating_add(ttl));
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(TlsMaterial {
            certificate_pem: files::certificate_pem(certificate.der()),
            key_pem: Zeroizing::new(key.serialize_pem()),
            ca_pem: self.certificate_pem(),
        })
    }

    /// ECDSA P-256 with SHA-256, ASN.1 DER.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        Ok(self.issuer.key().sign(message)?)
    }

    fn issue(
        &self,
        request: &[u8],
        subject: Subject,
        ttl: Duration,
        now: UnixTime,
    ) -> Result<Vec<u8>, AuthorityError> {
        let key = request_key(request)?;
        let id = SpiffeId {
            mesh: self.mesh.name.clone(),
            subject,
        };
        let name = match &id.subject {
            Subject::Node(node) => node.name.to_string(),
            Subject::Admin(name) => name.to_string(),
        };
        let mut params = leaf(&name, ExtendedKeyUsagePurpose::ClientAuth);
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        params.not_before = date(now.saturating_sub(LEEWAY));
        params.not_after = date(now.saturating_add(ttl));
        Ok(params.signed_by(&key, &self.issuer)?.der().to_vec())
    }
}

/// The public key (an uncompressed P-256 point, 65 bytes) that a PKCS #10 request (DER) proves possession of.
///
/// # Errors
/// [`AuthorityError::Request`] if it does not.
pub fn request_public_key(request: &[u8]) -> Result<Vec<u8>, AuthorityError> {
    Ok(request_key(request)?.der_bytes().to_vec())
}

fn request_key(request: &[u8]) -> Result<rcgen::PublicKey, AuthorityError> {
    if request.len() > MAX_REQUEST {
        return Err(AuthorityError::Request("longer than 4096 bytes".into()));
    }
    let request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(|error| AuthorityError::Request(error.to_string()))?;
    // The signature names the algorithm; that the key has it too is seen by its length: 04, X, Y.
    let p256 = request.public_key.algorithm() == &PKCS_ECDSA_P256_SHA256;
    if !p256 || request.public_key.der_bytes().len() != 65 {
        return Err(AuthorityError::Request("its key is not ECDSA P-256".into()));
    }
    Ok(request.public_key)
}

fn leaf(common_name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial());
    params
}

/// 16 bytes with the top bit clear and no leading zero (RFC 5280 section 4.1.2.2).
fn random_serial() -> SerialNumber {
    let mut serial = [0u8; 16];
    getrandom::fill(&mut serial).expect("the operating system has random numbers");
    serial[0] = (serial[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&serial)
}

fn date(time: UnixTime) -> OffsetDateTime {
    // X.509 cannot say more than the year 9999.
    let seconds = time.0.min(253_402_300_799);
    OffsetDateTime::from_unix_timestamp(seconds.cast_signed()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
