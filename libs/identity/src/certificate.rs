//! What is read from a certificate.

use std::{fmt, str::FromStr};

use model::{SpiffeId, UnixTime};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer as _, X509Certificate},
};

/// Longer ones are refused before they are parsed. Ours have about 500 bytes.
const MAX_CERTIFICATE: usize = 4096;

/// A certificate's serial number, without leading zeros. Shown as lower-case hex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Box<[u8]>);

impl Serial {
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        Self(bytes[zeros..].into())
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = CertificateError;

    /// Hex digits, an even number, 2 to 40.
    fn from_str(text: &str) -> Result<Self, CertificateError> {
        let wrong = CertificateError::Malformed("serial number: not 2 to 40 hex digits");
        if !(2..=40).contains(&text.len()) || !text.len().is_multiple_of(2) || !text.is_ascii() {
            return Err(wrong);
        }
        let byte = |i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
        bytes.map(|bytes| Self::from_bytes(&bytes)).ok_or(wrong)
    }
}

/// Why a certificate is of no use to us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not X.509, or not the kind this mesh issues.
    #[error("malformed certificate: {0}")]
    Malformed(&'static str),
    /// It belongs to another key.
    #[error("the certificate was issued for another key")]
    OtherKey,
    /// It was issued by somebody else.
    #[error("the certificate was not issued by this mesh's CA")]
    UnknownAuthority,
}

/// What a certificate of the mesh says. Read, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Whom it speaks for.
    pub spiffe_id: SpiffeId,
    /// Its number, for revocation.
    pub serial: Serial,
    /// Valid from.
    pub not_before: UnixTime,
    /// Valid until, inclusive.
    pub not_after: UnixTime,
    /// The public key: an uncompressed P-256 point (SEC 1 section 2.3.3), 65 bytes.
    pub public_key: Vec<u8>,
}

impl CertificateInfo {
    /// Reads a leaf certificate (DER) as this mesh issues them: exactly one URI among its subject alternative
    /// names, and that a SPIFFE id.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`] for everything else.
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        use CertificateError::Malformed;
        if der.len() > MAX_CERTIFICATE {
            return Err(Malformed("longer than 4096 bytes"));
        }
        let Ok(([], certificate)) = X509Certificate::from_der(der) else {
            return Err(Malformed("not DER of X.509"));
        };
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| Malformed("unreadable subject alternative name"))?
            .ok_or(Malformed("no subject alternative name"))?;
        let mut uris = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(Malformed("not exactly one URI subject alternative name"));
        };
        Ok(Self {
            spiffe_id: uri
                .parse()
                .map_err(|_| Malformed("its URI is not a SPIFFE id of a mesh"))?,
            serial: Serial::from_bytes(certificate.raw_serial()),
            not_before: unix(certificate.validity().not_before.timestamp()),
            not_after: unix(certificate.validity().not_after.timestamp()),
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }
}

/// Times before 1970 become 1970: only `not_before` of foreign certificates could be.
fn unix(seconds: i64) -> UnixTime {
    UnixTime(u64::try_from(seconds).unwrap_or(0))
}

/// The common name of a CA certificate (DER): the mesh's name.
pub(crate) fn common_name(der: &[u8]) -> Result<String, CertificateError> {
    use CertificateError::Malformed;
    if der.len() > MAX_CERTIFICATE {
        return Err(Malformed("longer than 4096 bytes"));
    }
    let Ok(([], certificate)) = X509Certificate::from_der(der) else {
        return Err(Malformed("not DER of X.509"));
    };
    if !certificate.is_ca() {
        return Err(Malformed("not a CA certificate"));
    }
    let name = certificate
        .subject()
        .iter_common_name()
        .next()
        .and_then(|name| name.as_str().ok())
        .map(str::to_owned);
    name.ok_or(Malformed("no common name"))
}

/// The public key of a certificate (DER): an uncompressed point.
pub(crate) fn public_key(der: &[u8]) -> Result<Vec<u8>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate.public_key().subject_public_key.data.to_vec()),
        _ => Err(CertificateError::Malformed("not DER of X.509")),
    }
}
