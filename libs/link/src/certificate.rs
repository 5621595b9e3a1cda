//! The DTLS certificate of a process: self-signed, made anew at each start, named by its fingerprint in what the
//! node's identity signs.

use std::fmt;
use std::sync::Arc;

use rtc_crypto::{HashAlgorithm, RTCCryptoProvider};
use rtc_dtls::crypto::Certificate;

use crate::output::LinkError;

/// A key pair and self-signed P-256 certificate for DTLS; one serves all links of a process.
pub struct DtlsCertificate {
    pub(crate) certificate: Certificate,
    pub(crate) provider: Arc<dyn RTCCryptoProvider>,
    fingerprint: [u8; 32],
}

impl DtlsCertificate {
    /// Makes a certificate with a fresh key.
    ///
    /// # Errors
    /// When the cryptographic back end refuses, which no input can cause.
    pub fn generate() -> Result<Arc<Self>, LinkError> {
        let setup = |error: &dyn fmt::Display| LinkError::Setup(error.to_string());
        let provider = rtc_crypto::default_provider().map_err(|e| setup(&e))?;
        let names = vec!["turnpike".to_owned()];
        let certificate =
            Certificate::generate_self_signed(names, provider.crypto()).map_err(|e| setup(&e))?;
        let der = certificate
            .certificate
            .first()
            .ok_or_else(|| LinkError::Setup("no certificate was made".to_owned()))?;
        let fingerprint = fingerprint(&provider, der)?;
        Ok(Arc::new(Self {
            certificate,
            provider,
            fingerprint,
        }))
    }

    /// SHA-256 of the certificate's DER, as in `SessionDescription::dtls_fingerprint`.
    #[must_use]
    pub const fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

impl fmt::Debug for DtlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DtlsCertificate")
            .field("fingerprint", &hex(&self.fingerprint))
            .finish()
    }
}

pub(crate) fn fingerprint(
    provider: &Arc<dyn RTCCryptoProvider>,
    der: &[u8],
) -> Result<[u8; 32], LinkError> {
    let setup = |problem: String| LinkError::Setup(problem);
    let digest = provider
        .crypto()
        .hash(HashAlgorithm::Sha256, der)
        .map_err(|error| setup(error.to_string()))?;
    digest
        .try_into()
        .map_err(|_| setup("SHA-256 gave no 32 bytes".to_owned()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}
