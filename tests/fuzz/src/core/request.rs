//! STUN messages as clients write and read them, by hand: neither the code under test nor what it is made of.

use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use std::net::{IpAddr, SocketAddr};
use stun_types::attribute::Fingerprint;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

pub(crate) const BINDING: u16 = 1;
pub(crate) const ALLOCATE: u16 = 3;
pub(crate) const REFRESH: u16 = 4;
pub(crate) const SEND: u16 = 6;
pub(crate) const CREATE_PERMISSION: u16 = 8;
pub(crate) const CHANNEL_BIND: u16 = 9;
pub(crate) const CONNECT: u16 = 10;

pub(crate) const USERNAME: u16 = 0x06;
pub(crate) const ERROR_CODE: u16 = 0x09;
pub(crate) const CHANNEL_NUMBER: u16 = 0x0C;
pub(crate) const LIFETIME: u16 = 0x0D;
pub(crate) const XOR_PEER_ADDRESS: u16 = 0x12;
pub(crate) const DATA: u16 = 0x13;
pub(crate) const REALM: u16 = 0x14;
pub(crate) const NONCE: u16 = 0x15;
pub(crate) const REQUESTED_ADDRESS_FAMILY: u16 = 0x17;
pub(crate) const EVEN_PORT: u16 = 0x18;
pub(crate) const REQUESTED_TRANSPORT: u16 = 0x19;
pub(crate) const DONT_FRAGMENT: u16 = 0x1A;
pub(crate) const PASSWORD_ALGORITHM: u16 = 0x1D;
pub(crate) const USERHASH: u16 = 0x1E;
pub(crate) const RESERVATION_TOKEN: u16 = 0x22;
pub(crate) const ADDITIONAL_ADDRESS_FAMILY: u16 = 0x8000;
pub(crate) const PASSWORD_ALGORITHMS: u16 = 0x8002;
const MESSAGE_INTEGRITY: u16 = 0x08;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x1C;
const FINGERPRINT: u16 = 0x8028;

/// How a request proves who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    None,
    Sha1,
    Sha256,
}

/// A message being written.
#[derive(Debug)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    /// `class`: 0 for a request, 1 for an indication.
    pub(crate) fn new(method: u16, class: u16, transaction: [u8; 12]) -> Self {
        let method = method & 0x0FFF;
        let kind = (method & 0x0F) | (method & 0x70) << 1 | (method & 0xF80) << 2;
        let kind = kind | (class & 1) << 4 | (class & 2) << 7;
        let mut bytes = kind.to_be_bytes().to_vec();
        bytes.extend([0, 0]);
        bytes.extend(COOKIE);
        bytes.extend(transaction);
        Self(bytes)
    }

    pub(crate) fn add(&mut self, kind: u16, value: &[u8]) {
        self.0.extend(kind.to_be_bytes());
        self.0.extend((value.len() as u16).to_be_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.set_length(0);
    }

    fn set_length(&mut self, more: usize) {
        let length = (self.0.len() - 20 + more) as u16;
        self.0[2..4].copy_from_slice(&length.to_be_bytes());
    }

    pub(crate) fn add_address(&mut self, kind: u16, address: SocketAddr) {
        let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }];
        value.extend((address.port() ^ 0x2112).to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => value.extend(ip.octets()),
            IpAddr::V6(ip) => value.extend(ip.octets()),
        }
        let mask = self.0[4..20].to_vec();
        for (byte, mask) in value[4..].iter_mut().zip(mask) {
            *byte ^= mask;
        }
        self.add(kind, &value);
    }

    /// MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256, with the key of a long-term credential.
    pub(crate) fn sign(&mut self, signature: Signature, user: &str, realm: &str, password: &str) {
        let text = format!("{user}:{realm}:{password}");
        match signature {
            Signature::None => {}
            Signature::Sha1 => self.sign_with(&Md5::digest(text)),
            Signature::Sha256 => {
                self.set_length(36);
                let key = Sha256::digest(text);
                let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length");
                mac.update(&self.0);
                self.add(MESSAGE_INTEGRITY_SHA256, &mac.finalize().into_bytes());
            }
        }
    }

    /// MESSAGE-INTEGRITY with a key of its own.
    pub(crate) fn sign_with(&mut self, key: &[u8]) {
        self.set_length(24);
        let mut mac = Hmac::<Sha1>::new_from_slice(key).expect("any length");
        mac.update(&self.0);
        self.add(MESSAGE_INTEGRITY, &mac.finalize().into_bytes());
    }

    pub(crate) fn fingerprint(&mut self) {
        self.set_length(8);
        let value = Fingerprint::compute(&[&self.0]);
        // As on the wire: stun-types gives the CRC, which is sent XORed.
        let crc = u32::from_be_bytes(value) ^ 0x5354_554E;
        self.add(FINGERPRINT, &crc.to_be_bytes());
    }
}

/// A message, read without any checks but those of bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn method(&self) -> u16 {
        let kind = self.kind();
        (kind & 0x0F) | (kind & 0xE0) >> 1 | (kind & 0x3E00) >> 2
    }

    /// 0 request, 1 indication, 2 success, 3 error.
    pub(crate) fn class(&self) -> u16 {
        let kind = self.kind();
        (kind >> 4 & 1) | (kind >> 7 & 2)
    }

    fn kind(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    pub(crate) fn transaction(&self) -> &'a [u8] {
        &self.0[8..20]
    }

    /// Attributes up to the integrity.
    pub(crate) fn attributes(&self) -> Vec<(u16, &'a [u8])> {
        let (mut rest, mut found) = (&self.0[20..], Vec::new());
        while let [k0, k1, l0, l1, after @ ..] = rest {
            let (kind, length) = (
                u16::from_be_bytes([*k0, *k1]),
                usize::from(u16::from_be_bytes([*l0, *l1])),
            );
            let Some(value) = after.get(..length) else {
                break;
            };
            if kind == MESSAGE_INTEGRITY || kind == MESSAGE_INTEGRITY_SHA256 {
                break;
            }
            found.push((kind, value));
            rest = after.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        found
    }

    pub(crate) fn get(&self, wanted: u16) -> Option<&'a [u8]> {
        let found = self.attributes();
        found
            .iter()
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| *value)
    }

    pub(crate) fn error_code(&self) -> Option<u16> {
        let value = self.get(ERROR_CODE)?;
        Some(u16::from(*value.get(2)? & 7) * 100 + u16::from(*value.get(3)?))
    }

    pub(crate) fn addresses(&self, wanted: u16) -> Vec<SocketAddr> {
        let attributes = self.attributes().into_iter();
        attributes
            .filter(|(kind, _)| *kind == wanted)
            .filter_map(|(_, value)| self.address(value))
            .collect()
    }

    fn address(&self, value: &[u8]) -> Option<SocketAddr> {
        let [_, family, p0, p1, ip @ ..] = value else {
            return None;
        };
        let port = u16::from_be_bytes([*p0, *p1]) ^ 0x2112;
        let mut ip = ip.to_vec();
        for (byte, mask) in ip.iter_mut().zip(&self.0[4..20]) {
            *byte ^= mask;
        }
        let ip: IpAddr = match family {
            1 => <[u8; 4]>::try_from(ip).ok()?.into(),
            2 => <[u8; 16]>::try_from(ip).ok()?.into(),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }
}
