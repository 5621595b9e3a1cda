//! RFC 5769 sections 2.1 to 2.3: messages that others wrote. Their padding is not of zeros. Section 2.4 is a test of who
//! authenticates: turn-relay-proto.

#![allow(clippy::unwrap_used)]

use stun_types::attribute::{AttributeStaticType, AttributeType, Username, XorMappedAddress};
use stun_types::message::{BINDING, MessageClass};
use turnpike_wire::stun::write::{Key, read_address};
use turnpike_wire::stun::{DecodeError, IntegrityKind, Message};

const PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";
const TRANSACTION: u128 = 0xb7e7_a701_bc34_d686_fa87_dfae;
const SOFTWARE: AttributeType = AttributeType::new(0x8022);

/// Section 2.1.
const REQUEST: &str = "00010058 2112a442 b7e7a701bc34d686fa87dfae
    80220010 5354554e207465737420636c69656e74
    00240004 6e0001ff
    80290008 932ff9b151263b36
    00060009 6576746a3a68367659 202020
    00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004 e57a3bcf";

/// Section 2.2.
const RESPONSE_WITH_IPV4: &str = "0101003c 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f72 20
    00200008 0001a147 e112a643
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004 c07d4c96";

/// Section 2.3.
const RESPONSE_WITH_IPV6: &str = "01010048 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f72 20
    00200014 0002a147 0113a9faa5d3f179bc25f4b5bed2b9d9
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
    80280004 c8fb0b4c";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

/// Decodes, and checks what all of them have in common.
fn check(bytes: &[u8], class: MessageClass) -> Message<'_> {
    let message = Message::decode(bytes).unwrap();
    assert_eq!((message.class(), message.method()), (class, BINDING));
    assert_eq!(message.transaction_id(), TRANSACTION.into());
    let integrity = message.integrity().unwrap();
    assert!(Key::new(PASSWORD, IntegrityKind::Sha1).verifies(&integrity));
    assert!(!Key::new(b"another", IntegrityKind::Sha1).verifies(&integrity));
    message
}

#[test]
fn section_2_1_the_request() {
    let bytes = bytes(REQUEST);
    let message = check(&bytes, MessageClass::Request);
    assert_eq!(message.value(SOFTWARE), Some(&b"STUN test client"[..]));
    assert_eq!(message.value(Username::TYPE), Some(&b"evtj:h6vY"[..]));
    let priority = message.value(AttributeType::new(0x0024));
    assert_eq!(priority, Some(&[0x6e, 0x00, 0x01, 0xff][..]));
    let controlled = message.value(AttributeType::new(0x8029)).unwrap();
    assert_eq!(controlled, 0x932f_f9b1_5126_3b36_u64.to_be_bytes());
}

#[test]
fn sections_2_2_and_2_3_the_responses() {
    for (hex, address) in [
        (RESPONSE_WITH_IPV4, "192.0.2.1:32853"),
        (
            RESPONSE_WITH_IPV6,
            "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
        ),
    ] {
        let bytes = bytes(hex);
        let message = check(&bytes, MessageClass::Success);
        assert_eq!(message.value(SOFTWARE), Some(&b"test vector"[..]));
        let value = message.value(XorMappedAddress::TYPE).unwrap();
        let read = read_address(value, message.transaction_id());
        assert_eq!(read, Some(address.parse().unwrap()));
    }
}

#[test]
fn a_bit_that_changed_is_noticed() {
    for hex in [REQUEST, RESPONSE_WITH_IPV4, RESPONSE_WITH_IPV6] {
        let right = bytes(hex);
        // The value of SOFTWARE, which FINGERPRINT covers, and FINGERPRINT itself.
        for at in [24, right.len() - 1] {
            let mut wrong = right.clone();
            wrong[at] ^= 1;
            assert_eq!(
                Message::decode(&wrong).unwrap_err(),
                DecodeError::Fingerprint
            );
        }
        // Without FINGERPRINT it is the integrity that tells.
        let mut wrong = right[..right.len() - 8].to_vec();
        wrong[3] -= 8;
        let key = Key::new(PASSWORD, IntegrityKind::Sha1);
        let verifies = |bytes: &[u8]| {
            let message = Message::decode(bytes).unwrap();
            key.verifies(&message.integrity().unwrap())
        };
        assert!(verifies(&wrong));
        wrong[24] ^= 1;
        assert!(!verifies(&wrong));
    }
}
