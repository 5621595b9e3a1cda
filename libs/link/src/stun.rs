//! As much of STUN as it takes to tell whom a check is for; [`crate::ice`] verifies the rest.

/// Length of a header. [RFC 8489 §5](https://www.rfc-editor.org/rfc/rfc8489#section-5)
const HEADER_LEN: usize = 20;

/// The first two bytes of a Binding request.
pub(crate) const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];

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
