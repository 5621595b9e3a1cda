//! MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 with a key of either password algorithm.

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;
use stun_types::attribute::{
    AttributeStaticType, MessageIntegrity, MessageIntegritySha256, RawAttribute,
};
use stun_types::message::{MessageWrite, MessageWriteVec};
use wire::stun::{Integrity, IntegrityKind};

/// A long-term key: 16 bytes from MD5 or 32 from SHA-256 (RFC 8489 section 18.5.1); or a token's, of up to 64.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Key {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl From<[u8; 16]> for Key {
    fn from(md5: [u8; 16]) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[..16].copy_from_slice(&md5);
        Self { bytes, len: 16 }
    }
}

impl From<[u8; 32]> for Key {
    fn from(sha256: [u8; 32]) -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[..32].copy_from_slice(&sha256);
        Self { bytes, len: 32 }
    }
}

fn mac<M: Mac + hmac::digest::KeyInit>(key: &Key) -> M {
    <M as Mac>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length")
}

impl Key {
    /// The block of both hashes: HMAC shortens what is longer.
    const MAX: usize = 64;

    /// RFC 7635 has 20 bytes for SHA-1 and 32 for SHA-256. `None` for fewer than 16, or more than 64.
    pub(crate) fn of_token(key: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..key.len())?.copy_from_slice(key);
        let len = key.len() as u8;
        (len >= 16).then_some(Self { bytes, len })
    }

    /// A token's key as RFC 7635 has it, and as coturn's clients use it: its first 16 bytes, as if it were made by MD5.
    pub(crate) fn as_clients_have_it(&self) -> [Self; 2] {
        let mut short = *self;
        short.bytes[16..].fill(0);
        short.len = 16;
        [*self, short]
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// In constant time. A truncated HMAC (RFC 8489 section 14.6: at least 16 bytes) is compared as far as it goes.
    pub(crate) fn verify(&self, integrity: &Integrity<'_>) -> bool {
        match integrity.kind {
            IntegrityKind::Sha1 => mac::<Hmac<Sha1>>(self)
                .chain_update(integrity.head)
                .chain_update(integrity.text)
                .verify_slice(integrity.hmac)
                .is_ok(),
            IntegrityKind::Sha256 => mac::<Hmac<Sha256>>(self)
                .chain_update(integrity.head)
                .chain_update(integrity.text)
                .verify_truncated_left(integrity.hmac)
                .is_ok(),
        }
    }
}

/// How an answer is signed: as the request was (RFC 8489 section 9.2.4).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signer {
    pub(crate) key: Key,
    pub(crate) kind: IntegrityKind,
}

impl Signer {
    /// Appends the integrity attribute.
    pub(crate) fn sign(&self, writer: &mut MessageWriteVec) {
        match self.kind {
            IntegrityKind::Sha1 => {
                append(writer, MessageIntegrity::TYPE, [0; 20], |text| {
                    mac::<Hmac<Sha1>>(&self.key)
                        .chain_update(text)
                        .finalize()
                        .into_bytes()
                        .into()
                });
            }
            IntegrityKind::Sha256 => {
                append(writer, MessageIntegritySha256::TYPE, [0; 32], |text| {
                    mac::<Hmac<Sha256>>(&self.key)
                        .chain_update(text)
                        .finalize()
                        .into_bytes()
                        .into()
                });
            }
        }
    }
}

/// The attribute goes in first, because its HMAC covers the header with a length that counts the attribute.
fn append<const N: usize>(
    writer: &mut MessageWriteVec,
    kind: stun_types::attribute::AttributeType,
    empty: [u8; N],
    hmac: impl FnOnce(&[u8]) -> [u8; N],
) {
    writer.push_attribute_unchecked(&RawAttribute::new(kind, &empty));
    let end = writer.len();
    let data = writer.mut_data();
    let value = hmac(&data[..end - N - 4]);
    data[end - N..].copy_from_slice(&value);
}
