//! As much of STUN as it takes to tell whom a message is for; [`crate::ice`] verifies the rest.

use stun_types::message::TransactionId;

use crate::certificate::DtlsCertificate;
use crate::output::LinkError;

/// Length of a header. [RFC 8489 §5](https://www.rfc-editor.org/rfc/rfc8489#section-5)
const HEADER_LEN: usize = 20;

/// [RFC 8489 §18.2](https://www.rfc-editor.org/rfc/rfc8489#section-18.2)
pub(crate) const BINDING: u16 = 0x001;
/// The first two bytes of a Binding request.
pub(crate) const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
/// The first two bytes of a Binding success response.
pub(crate) const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];

/// The attributes of a message, type and value, as far as they are whole.
pub(crate) fn attributes(message: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(HEADER_LEN..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [t0, t1, l0, l1, after @ ..] = rest else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = after.get(..length)?;
        rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([*t0, *t1]), value))
    })
}

/// Random bytes of the certificate's provider.
pub(crate) fn random<const N: usize>(certificate: &DtlsCertificate) -> Result<[u8; N], LinkError> {
    let mut bytes = [0; N];
    certificate
        .provider
        .random()
        .fill(&mut bytes)
        .map_err(|error| LinkError::Setup(error.to_string()))?;
    Ok(bytes)
}

/// A transaction id that nobody can guess.
pub(crate) fn random_id(certificate: &DtlsCertificate) -> Result<TransactionId, LinkError> {
    let mut id = [0; 16];
    id[4..].copy_from_slice(&random::<12>(certificate)?);
    Ok(u128::from_be_bytes(id).into())
}
