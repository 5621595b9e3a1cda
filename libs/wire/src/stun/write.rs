//! Writing STUN messages: header, attributes, the integrity attribute when there is a key, FINGERPRINT. The length in
//! the header grows with each, as both checksums want it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, Mac};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;
use stun_types::attribute::{
    AttributeStaticType, AttributeType, Fingerprint, MessageIntegrity, MessageIntegritySha256,
};
use stun_types::message::{MessageClass, MessageType, Method, TransactionId};

use super::{HEADER_LEN, Integrity, IntegrityKind, MAGIC_COOKIE};

/// The block of both hashes: a longer key is hashed first (RFC 2104 section 2).
const BLOCK: usize = 64;

/// What an integrity attribute is made with: a long-term key (16 bytes of MD5 or 32 of SHA-256, RFC 8489 section
/// 9.2.2) or a short-term password as it is (section 9.1.1).
#[derive(Clone, Copy)]
pub struct Key {
    bytes: [u8; BLOCK],
    len: usize,
    kind: IntegrityKind,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A key for attributes of this kind.
    pub fn new(secret: &[u8], kind: IntegrityKind) -> Self {
        if secret.len() > BLOCK {
            return match kind {
                IntegrityKind::Sha1 => Self::new(&Sha1::digest(secret), kind),
                IntegrityKind::Sha256 => Self::new(&Sha256::digest(secret), kind),
            };
        }
        let mut bytes = [0; BLOCK];
        bytes[..secret.len()].copy_from_slice(secret);
        Self {
            bytes,
            len: secret.len(),
            kind,
        }
    }

    /// Which integrity attribute is made with it.
    pub const fn kind(&self) -> IntegrityKind {
        self.kind
    }

    fn mac<M: Mac + hmac::digest::KeyInit>(&self) -> M {
        <M as Mac>::new_from_slice(&self.bytes[..self.len]).expect("HMAC takes keys of any length")
    }

    /// In constant time. What is signed with another kind than this key's was not made by who knows the key.
    pub fn verifies(&self, integrity: &Integrity<'_>) -> bool {
        if integrity.kind != self.kind {
            return false;
        }
        match self.kind {
            IntegrityKind::Sha1 => {
                let mac = self.mac::<Hmac<Sha1>>().chain_update(integrity.head);
                mac.chain_update(integrity.text)
                    .verify_slice(integrity.hmac)
                    .is_ok()
            }
            IntegrityKind::Sha256 => {
                let mac = self.mac::<Hmac<Sha256>>().chain_update(integrity.head);
                mac.chain_update(integrity.text)
                    .verify_truncated_left(integrity.hmac)
                    .is_ok()
            }
        }
    }
}

/// Appends to a buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Writer<'a> {
    /// Begins a message at the end of `bytes`.
    pub fn new(
        bytes: &'a mut Vec<u8>,
        class: MessageClass,
        method: Method,
        id: TransactionId,
    ) -> Self {
        let start = bytes.len();
        let id = u128::from(id).to_be_bytes();
        bytes.extend_from_slice(&MessageType::from_class_method(class, method).to_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&MAGIC_COOKIE);
        bytes.extend_from_slice(&id[4..]);
        Self { bytes, start }
    }

    /// Appends an attribute of at most 65 535 bytes.
    pub fn add(&mut self, kind: AttributeType, value: &[u8]) {
        self.bytes.extend_from_slice(&kind.value().to_be_bytes());
        self.bytes
            .extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(value);
        let padding = value.len().next_multiple_of(4) - value.len();
        self.bytes.extend_from_slice(&[0; 3][..padding]);
        self.set_len(0);
    }

    /// An address as in XOR-MAPPED-ADDRESS, RFC 8489 section 14.2.
    pub fn add_address(&mut self, kind: AttributeType, address: SocketAddr) {
        let mut value = [0; 20];
        let mask: [u8; 16] = self.mask();
        value[2..4].copy_from_slice(&address.port().to_be_bytes());
        let len = match address.ip() {
            IpAddr::V4(v4) => {
                value[1] = 1;
                value[4..8].copy_from_slice(&v4.octets());
                8
            }
            IpAddr::V6(v6) => {
                value[1] = 2;
                value[4..].copy_from_slice(&v6.octets());
                20
            }
        };
        value[2] ^= mask[0];
        value[3] ^= mask[1];
        value[4..]
            .iter_mut()
            .zip(mask)
            .for_each(|(byte, mask)| *byte ^= mask);
        self.add(kind, &value[..len]);
    }

    /// Appends the integrity attribute; only [`Writer::finish`] may follow.
    pub fn sign(&mut self, key: &Key) {
        match key.kind {
            IntegrityKind::Sha1 => {
                self.set_len(24);
                let mac = key
                    .mac::<Hmac<Sha1>>()
                    .chain_update(&self.bytes[self.start..]);
                self.add(MessageIntegrity::TYPE, &mac.finalize().into_bytes());
            }
            IntegrityKind::Sha256 => {
                self.set_len(36);
                let mac = key
                    .mac::<Hmac<Sha256>>()
                    .chain_update(&self.bytes[self.start..]);
                self.add(MessageIntegritySha256::TYPE, &mac.finalize().into_bytes());
            }
        }
    }

    /// Appends FINGERPRINT.
    pub fn finish(mut self) {
        self.set_len(8);
        let mut crc = Fingerprint::compute(&[&self.bytes[self.start..]]);
        crc.iter_mut()
            .zip(b"STUN")
            .for_each(|(byte, mask)| *byte ^= mask);
        self.add(Fingerprint::TYPE, &crc);
    }

    fn mask(&self) -> [u8; 16] {
        let mut mask = [0; 16];
        mask.copy_from_slice(&self.bytes[self.start + 4..self.start + HEADER_LEN]);
        mask
    }

    /// The length as it will be after `more` bytes.
    fn set_len(&mut self, more: usize) {
        let len = (self.bytes.len() - self.start - HEADER_LEN + more) as u16;
        self.bytes[self.start + 2..self.start + 4].copy_from_slice(&len.to_be_bytes());
    }
}

/// Reads an address as in XOR-MAPPED-ADDRESS.
pub fn read_address(value: &[u8], id: TransactionId) -> Option<SocketAddr> {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE);
    mask[4..].copy_from_slice(&u128::from(id).to_be_bytes()[4..]);
    let (head, address) = value.split_first_chunk::<4>()?;
    let port = u16::from_be_bytes([head[2] ^ mask[0], head[3] ^ mask[1]]);
    let mut octets = [0; 16];
    octets
        .iter_mut()
        .zip(address)
        .zip(mask)
        .for_each(|((to, from), mask)| *to = from ^ mask);
    let ip = match (head[1], address.len()) {
        (1, 4) => Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
        (2, 16) => Ipv6Addr::from(octets).into(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Message;
    use super::*;
    use stun_types::attribute::XorMappedAddress;

    #[test]
    fn what_is_written_is_what_others_read() {
        let id = TransactionId::from(0x0102_0304_0506_0708_090a_0b0c_u128);
        for address in [
            "192.0.2.1:32853",
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ] {
            let address: SocketAddr = address.parse().unwrap();
            let mut bytes = vec![9; 3];
            let mut writer = Writer::new(&mut bytes, MessageClass::Request, Method::new(3), id);
            writer.add_address(XorMappedAddress::TYPE, address);
            writer.add(AttributeType::new(6), b"odd");
            let key = Key::new(b"key", IntegrityKind::Sha256);
            writer.sign(&key);
            writer.finish();
            let message = Message::decode(&bytes[3..]).unwrap();
            assert_eq!(message.transaction_id(), id);
            assert!(key.verifies(&message.integrity().unwrap()));
            let value = message.value(XorMappedAddress::TYPE).unwrap();
            assert_eq!(read_address(value, id), Some(address));
            let theirs: XorMappedAddress = message.attribute().unwrap().unwrap();
            assert_eq!(theirs.addr(id), address);
        }
    }

    #[test]
    fn a_long_password_is_hashed_as_hmac_wants_it() {
        let id = TransactionId::from(7);
        let password = [b'p'; 200];
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, MessageClass::Request, Method::new(1), id);
        writer.sign(&Key::new(&password, IntegrityKind::Sha1));
        writer.finish();
        let text: [&[u8]; 2] = [&[0, 1, 0, 24], &bytes[4..20]];
        let expected = <Hmac<Sha1> as Mac>::new_from_slice(&password)
            .unwrap()
            .chain_update(text.concat())
            .finalize()
            .into_bytes();
        assert_eq!(bytes[24..44], expected[..]);
    }

    #[test]
    fn a_weaker_signature_is_none() {
        let id = TransactionId::from(7);
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, MessageClass::Success, Method::new(3), id);
        writer.sign(&Key::new(b"key", IntegrityKind::Sha1));
        writer.finish();
        let integrity = Message::decode(&bytes).unwrap().integrity().unwrap();
        assert!(Key::new(b"key", IntegrityKind::Sha1).verifies(&integrity));
        assert!(!Key::new(b"yek", IntegrityKind::Sha1).verifies(&integrity));
        assert!(!Key::new(b"key", IntegrityKind::Sha256).verifies(&integrity));
    }
}
