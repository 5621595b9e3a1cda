//! Who may vouch for servers that are others'.

use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::ConfigError;

/// The certificates in a PEM file that `field` names.
///
/// # Errors
/// When the file cannot be read, has none, or one that cannot be used.
pub fn authorities_in(field: &str, file: &Path) -> Result<RootCertStore, ConfigError> {
    let wrong = |problem: String| {
        let remedy = "name a PEM file with the certificates of authorities";
        ConfigError::of_field(field, file.display(), problem, remedy)
    };
    let pem = std::fs::read(file).map_err(|error| wrong(format!("cannot read it: {error}")))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("no certificate in it".into()));
    }
    Ok(roots)
}

/// This machine's own, for what `field` asks for; `file_field` could name a file instead.
///
/// # Errors
/// When it has none.
pub fn own_authorities(field: &str, file_field: &str) -> Result<RootCertStore, ConfigError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let problem = "this machine has no certificate authorities";
        let remedy =
            format!("install them (Debian: ca-certificates), or name a PEM file in {file_field}");
        return Err(ConfigError::of_field(field, "…", problem, remedy));
    }
    Ok(roots)
}
