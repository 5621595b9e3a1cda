//! Reading STUN messages, with messages that `stun-types` wrote and with bytes that nobody should have written.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use stun_types::attribute::{AttributeStaticType, Nonce, Realm, Software, Username};
use stun_types::message::{
    BINDING, IntegrityAlgorithm, LongTermCredentials, Message as Crate, MessageClass, MessageWrite,
    MessageWriteExt, MessageWriteVec,
};
use turnpike_wire::stun::{DecodeError, IntegrityKind, Message};

fn written(integrity: &[IntegrityAlgorithm], fingerprint: bool) -> Vec<u8> {
    let mut writer = Crate::builder_request(BINDING, MessageWriteVec::new());
    writer
        .add_attribute(&Username::new("user").unwrap())
        .unwrap();
    writer.add_attribute(&Realm::new("realm").unwrap()).unwrap();
    let credentials = LongTermCredentials::new("user".into(), "pass".into());
    for algorithm in integrity {
        let key = credentials.to_key("realm".into()).into();
        writer.add_message_integrity(&key, *algorithm).unwrap();
    }
    if fingerprint {
        writer.add_fingerprint().unwrap();
    }
    writer.finish()
}

#[test]
fn header_and_attributes_are_those_that_were_written() {
    let bytes = written(&[], true);
    let message = Message::decode(&bytes).unwrap();
    let theirs = Crate::from_bytes(&bytes).unwrap();
    assert_eq!(message.class(), MessageClass::Request);
    assert_eq!(message.method(), BINDING);
    assert_eq!(message.transaction_id(), theirs.transaction_id());
    assert_eq!(message.value(Username::TYPE), Some(&b"user"[..]));
    assert_eq!(message.value(Realm::TYPE), Some(&b"realm"[..]));
    assert!(!message.has(Nonce::TYPE));
    assert!(message.integrity().is_none());
}

#[test]
fn sha256_is_preferred_where_both_integrities_are_given() {
    let (sha1, sha256) = (IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256);
    let bytes = written(&[sha1, sha256], true);
    let kind = Message::decode(&bytes).unwrap().integrity().unwrap().kind;
    assert_eq!(kind, IntegrityKind::Sha256);
    let bytes = written(&[sha1], false);
    let integrity = Message::decode(&bytes).unwrap().integrity().unwrap();
    assert_eq!(integrity.kind, IntegrityKind::Sha1);
    assert_eq!(integrity.text.len() + 4 + 24, bytes.len());
}

#[test]
fn an_attribute_after_the_integrity_is_not_seen() {
    let mut bytes = written(&[IntegrityAlgorithm::Sha1], false);
    bytes.extend([0x80, 0x22, 0, 4, b'e', b'v', b'i', b'l']);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let message = Message::decode(&bytes).unwrap();
    assert!(message.has(Username::TYPE));
    assert!(!message.has(Software::TYPE));
    assert!(message.integrity().is_some());
}

#[test]
fn a_wrong_fingerprint_a_wrong_length_and_a_wrong_cookie_are_refused() {
    let good = written(&[], true);
    let mut bytes = good.clone();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(
        Message::decode(&bytes).err(),
        Some(DecodeError::Fingerprint)
    );
    let mut bytes = good.clone();
    bytes[5] ^= 1;
    assert_eq!(Message::decode(&bytes).err(), Some(DecodeError::Header));
    let mut bytes = good.clone();
    bytes.extend([0; 4]);
    assert_eq!(Message::decode(&bytes).err(), Some(DecodeError::Header));
    let mut bytes = good;
    bytes[23] = 200;
    assert_eq!(Message::decode(&bytes).err(), Some(DecodeError::Attributes));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes: Vec<u8>, header: bool) {
        if header && bytes.len() >= 20 {
            bytes.truncate(bytes.len() / 4 * 4);
            let length = (bytes.len() - 20) as u16;
            bytes[0] &= 0x3F;
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            bytes[4..8].copy_from_slice(&turnpike_wire::stun::MAGIC_COOKIE);
        }
        if let Ok(message) = Message::decode(&bytes) {
            let total: usize = message.attributes().map(|(_, value)| 4 + value.len()).sum();
            prop_assert!(total + 20 <= bytes.len());
        }
    }

    #[test]
    fn a_flipped_bit_never_panics(at in 0usize..200, bit in 0u8..8) {
        let mut bytes = written(&[IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256], true);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let _ = Message::decode(&bytes).map(|message| message.attributes().count());
    }
}
