//! STUN messages in datagrams ([RFC 8489](https://www.rfc-editor.org/rfc/rfc8489)), read without copying.
//!
//! ```text
//!  0                   1                   2                   3
//! +-+-+-----------------------------+-----------------------------+
//! |0 0|   Message Type (14 bits)    |       Message Length        |
//! +-+-+-----------------------------+-----------------------------+
//! |                    Magic Cookie 0x2112A442                    |
//! +---------------------------------------------------------------+
//! |                 Transaction ID (96 bits)                      |
//! +---------------------------------------------------------------+
//! |  attributes: type (16), length (16), value, padding to 4      |
//! ```
//!
//! [`Message`] walks the attributes once, checks every boundary and the FINGERPRINT, and then shows only those that come
//! before MESSAGE-INTEGRITY: an attribute that someone on the path appended is never seen (RFC 8489 section 14.5). Types
//! of attributes and the writer are those of `stun-types` and `turn-types`; its reader is not used because it logs a
//! warning for each malformed message, which whoever sends them would then be in charge of.

pub mod write;

use stun_types::attribute::{
    AttributeStaticType, AttributeType, Fingerprint, MessageIntegrity, MessageIntegritySha256,
    RawAttribute,
};
use stun_types::message::{MessageClass, MessageType, Method, StunParseError, TransactionId};
use thiserror::Error;

/// Bytes before the attributes.
pub const HEADER_LEN: usize = 20;
/// Bytes 4 to 7 of each message (RFC 8489 section 5).
pub const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// Why bytes are not a STUN message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Too short, wrong cookie, or a length field that is not the datagram's.
    #[error("not a STUN header")]
    Header,
    /// An attribute exceeds the message, or follows FINGERPRINT.
    #[error("malformed STUN attributes")]
    Attributes,
    /// FINGERPRINT is there and wrong (RFC 8489 section 14.7).
    #[error("STUN FINGERPRINT does not match")]
    Fingerprint,
}

/// An attribute is there, but its value is not what its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed value of STUN attribute {0:#06x}")]
pub struct Malformed(pub u16);

/// Which of the two integrity attributes a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntegrityKind {
    /// MESSAGE-INTEGRITY: HMAC-SHA1, 20 bytes (RFC 8489 section 14.5).
    Sha1,
    /// MESSAGE-INTEGRITY-SHA256: 16 to 32 bytes (RFC 8489 section 14.6).
    Sha256,
}

/// What has to be verified with a key that only the caller has.
#[derive(Debug, Clone, Copy)]
pub struct Integrity<'a> {
    pub kind: IntegrityKind,
    /// The HMAC as received, perhaps truncated (only for [`IntegrityKind::Sha256`]).
    pub hmac: &'a [u8],
    /// The first four bytes of the HMAC's text: the header with the length as it was when the HMAC was made.
    pub head: [u8; 4],
    /// The rest of the HMAC's text.
    pub text: &'a [u8],
}

/// A STUN message whose attributes are well-formed and whose FINGERPRINT, if any, is right.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    kind: MessageType,
    /// Where the attributes to be believed end.
    covered: usize,
    integrity: Option<Integrity<'a>>,
}

impl<'a> Message<'a> {
    /// Reads a datagram that is exactly one STUN message.
    ///
    /// # Errors
    /// As [`DecodeError`] says. Never panics.
    pub fn decode(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let header: &[u8; HEADER_LEN] = datagram.first_chunk().ok_or(DecodeError::Header)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] & 0xC0 != 0
            || header[4..8] != MAGIC_COOKIE
            || !length.is_multiple_of(4)
            || length + HEADER_LEN != datagram.len()
        {
            return Err(DecodeError::Header);
        }
        let kind = MessageType::from_bytes(header).map_err(|_| DecodeError::Header)?;
        let mut message = Self {
            bytes: datagram,
            kind,
            covered: datagram.len(),
            integrity: None,
        };
        message.walk()?;
        Ok(message)
    }

    fn walk(&mut self) -> Result<(), DecodeError> {
        let mut offset = HEADER_LEN;
        let mut tail = false;
        while offset < self.bytes.len() {
            let (kind, value) = attribute_at(self.bytes, offset).ok_or(DecodeError::Attributes)?;
            let end = offset + 4 + value.len().next_multiple_of(4);
            if end > self.bytes.len() {
                return Err(DecodeError::Attributes);
            }
            match kind {
                MessageIntegrity::TYPE if !tail => {
                    self.set_integrity(IntegrityKind::Sha1, offset, value)?;
                }
                // It may follow MESSAGE-INTEGRITY, and is then the stronger of the two.
                MessageIntegritySha256::TYPE
                    if self.integrity.is_none_or(|i| i.kind == IntegrityKind::Sha1) =>
                {
                    self.set_integrity(IntegrityKind::Sha256, offset, value)?;
                }
                Fingerprint::TYPE => {
                    if end != self.bytes.len() {
                        return Err(DecodeError::Attributes);
                    }
                    let fingerprint: Fingerprint =
                        parse(value).map_err(|_| DecodeError::Attributes)?;
                    let expected = Fingerprint::compute(&[&self.bytes[..offset]]);
                    if *fingerprint.fingerprint() != expected {
                        return Err(DecodeError::Fingerprint);
                    }
                }
                // Either covered, or after the integrity and to be ignored.
                _ => {
                    offset = end;
                    continue;
                }
            }
            if !tail {
                self.covered = offset;
                tail = true;
            }
            offset = end;
        }
        Ok(())
    }

    fn set_integrity(
        &mut self,
        kind: IntegrityKind,
        offset: usize,
        hmac: &'a [u8],
    ) -> Result<(), DecodeError> {
        let valid = match kind {
            IntegrityKind::Sha1 => hmac.len() == 20,
            IntegrityKind::Sha256 => {
                (16..=32).contains(&hmac.len()) && hmac.len().is_multiple_of(4)
            }
        };
        if !valid {
            return Err(DecodeError::Attributes);
        }
        // At most 65 535 - 20, because the length field of the message says so.
        let length = (offset + 4 + hmac.len() - HEADER_LEN) as u16;
        let [l0, l1] = length.to_be_bytes();
        self.integrity = Some(Integrity {
            kind,
            hmac,
            head: [self.bytes[0], self.bytes[1], l0, l1],
            text: &self.bytes[4..offset],
        });
        Ok(())
    }

    /// The whole message, with what follows the integrity.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of the whole message, with what follows the integrity.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub fn class(&self) -> MessageClass {
        self.kind.class()
    }

    pub fn method(&self) -> Method {
        self.kind.method()
    }

    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 16];
        id[4..].copy_from_slice(&self.bytes[8..HEADER_LEN]);
        u128::from_be_bytes(id).into()
    }

    /// The integrity attribute, the stronger one if there are both.
    pub fn integrity(&self) -> Option<Integrity<'a>> {
        self.integrity
    }

    /// The attributes that integrity covers (all, if there is none), in their order.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            bytes: &self.bytes[..self.covered],
            offset: HEADER_LEN,
        }
    }

    /// The value of the first attribute of this type; later ones are ignored (RFC 8489 section 14).
    pub fn value(&self, wanted: AttributeType) -> Option<&'a [u8]> {
        self.attributes()
            .find_map(|(kind, value)| (kind == wanted).then_some(value))
    }

    pub fn has(&self, wanted: AttributeType) -> bool {
        self.value(wanted).is_some()
    }

    /// The first attribute of this type as a value of its Rust type.
    ///
    /// # Errors
    /// When it is there but malformed.
    pub fn attribute<A>(&self) -> Result<Option<A>, Malformed>
    where
        A: AttributeStaticType + for<'r> TryFrom<&'r RawAttribute<'r>, Error = StunParseError>,
    {
        let Some(value) = self.value(A::TYPE) else {
            return Ok(None);
        };
        parse(value).map(Some)
    }
}

/// Reads the value of an attribute of type `A`.
///
/// # Errors
/// When it is malformed.
pub fn parse<A>(value: &[u8]) -> Result<A, Malformed>
where
    A: AttributeStaticType + for<'r> TryFrom<&'r RawAttribute<'r>, Error = StunParseError>,
{
    let raw = RawAttribute::new(A::TYPE, value);
    A::try_from(&raw).map_err(|_| Malformed(A::TYPE.value()))
}

/// Iterator over types and values.
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (AttributeType, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, value) = attribute_at(self.bytes, self.offset)?;
        self.offset += 4 + value.len().next_multiple_of(4);
        Some((kind, value))
    }
}

fn attribute_at(bytes: &[u8], offset: usize) -> Option<(AttributeType, &[u8])> {
    let (header, rest) = bytes.get(offset..)?.split_first_chunk::<4>()?;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let kind = AttributeType::new(u16::from_be_bytes([header[0], header[1]]));
    Some((kind, rest.get(..len)?))
}
