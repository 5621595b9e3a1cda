//! Whose certificate a relay may show over TLS.

use std::{io, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// What to do about a [`TrustError`].
pub const TRUST_REMEDY: &str =
    "name a PEM file with the certificates of the CAs that relays' certificates are from";

/// Why nobody can be believed.
#[derive(Debug)]
pub enum TrustError {
    /// Of the mesh's own CA.
    Mesh(rustls::Error),
    /// The file cannot be read.
    Unreadable(io::Error),
    /// The file has none, or one that cannot be used.
    File(String),
    /// TLS cannot be set up.
    Setup(rustls::Error),
}

impl std::fmt::Display for TrustError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mesh(error) => write!(f, "the mesh's CA certificate: {error}"),
            Self::Unreadable(error) => error.fmt(f),
            Self::File(problem) => f.write_str(problem),
            Self::Setup(error) => write!(f, "TLS: {error}"),
        }
    }
}

impl std::error::Error for TrustError {}

/// What TLS to relays is made with: the mesh's CA (DER) is believed, and the certificates in the file `more` (PEM), for
/// relays that are others'. Nobody else, the system's roots included.
///
/// # Errors
/// When a certificate cannot be read.
pub fn relay_trust(mesh_ca: &[u8], more: Option<&Path>) -> Result<Arc<ClientConfig>, TrustError> {
    let mut roots = RootCertStore::empty();
    let mesh_ca = CertificateDer::from(mesh_ca.to_vec());
    roots.add(mesh_ca).map_err(TrustError::Mesh)?;
    if let Some(more) = more {
        let more = std::fs::read(more).map_err(TrustError::Unreadable)?;
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(&more) {
            let certificate = certificate.map_err(|error| TrustError::File(error.to_string()))?;
            let added = roots.add(certificate);
            added.map_err(|error| TrustError::File(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(TrustError::File("there is no certificate in it".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
