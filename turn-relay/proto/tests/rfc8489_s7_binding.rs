//! RFC 8489 section 7.3.1: Binding requests, and what is no request at all.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay};
use stun_types::attribute::{
    AttributeStaticType, AttributeType, RawAttribute, UnknownAttributes, XorMappedAddress,
};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec,
    Method, TransactionId,
};
use turn_relay_proto::DropReason;

#[test]
fn a_client_learns_where_its_request_came_from() {
    for address in ["192.0.2.1:4000", "[2001:db8::7]:4001"] {
        let mut relay = Relay::new();
        let client = Client::new(address);
        let answer = client.exchange(&mut relay, &client.unsigned(BINDING, &[]));
        let mapped: XorMappedAddress = answer.get().unwrap();
        let id = answer.message().transaction_id();
        assert_eq!(mapped.addr(id), client.address);
        assert_eq!(relay.stats().binding_requests, 1);
    }
}

#[test]
fn an_unknown_attribute_that_must_be_understood_is_named_in_a_420() {
    let mut relay = Relay::new();
    let client = Client::new("192.0.2.1:4000");
    let required = AttributeType::new(0x0030);
    let optional = AttributeType::new(0xC001);
    let request = client.unsigned(
        BINDING,
        &[
            &RawAttribute::new(required, b"abc"),
            &RawAttribute::new(optional, b""),
        ],
    );
    let answer = client.exchange(&mut relay, &request);
    assert_eq!(answer.code(), 420);
    let unknown: UnknownAttributes = answer.get().unwrap();
    assert!(unknown.has_attribute(required));
    assert!(!unknown.has_attribute(optional));
    assert_eq!(relay.stats().error_responses(420), 1);
}

#[test]
fn an_unknown_attribute_that_may_be_ignored_is() {
    let mut relay = Relay::new();
    let client = Client::new("192.0.2.1:4000");
    let optional = RawAttribute::new(AttributeType::new(0xC001), b"abc");
    let answer = client.exchange(&mut relay, &client.unsigned(BINDING, &[&optional]));
    assert!(answer.message().has_attribute(XorMappedAddress::TYPE));
}

#[test]
fn what_is_no_request_gets_no_answer() {
    let mut relay = Relay::new();
    let client = Client::new("192.0.2.1:4000").address;
    let id = TransactionId::generate();
    let message = |class, method| {
        let kind = MessageType::from_class_method(class, method);
        Message::builder(kind, id, MessageWriteVec::new()).finish()
    };
    let cases = [
        (message(MessageClass::Indication, BINDING), Outcome::Nothing),
        (
            message(MessageClass::Success, BINDING),
            Outcome::Dropped(DropReason::UnexpectedResponse),
        ),
        (
            message(MessageClass::Error, BINDING),
            Outcome::Dropped(DropReason::UnexpectedResponse),
        ),
        (
            message(MessageClass::Request, Method::new(0x00D)),
            Outcome::Dropped(DropReason::UnknownMethod),
        ),
        (
            message(MessageClass::Indication, Method::new(0x00D)),
            Outcome::Dropped(DropReason::UnknownMethod),
        ),
        (vec![], Outcome::Dropped(DropReason::NotTurn)),
        (
            b"\x16\xfe\xfd a DTLS record".to_vec(),
            Outcome::Dropped(DropReason::NotTurn),
        ),
        (vec![0; 19], Outcome::Dropped(DropReason::MalformedStun)),
        (vec![0; 20], Outcome::Dropped(DropReason::MalformedStun)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(relay.client_sends(client, &bytes), expected, "{bytes:x?}");
    }
    assert_eq!(relay.stats().dropped(DropReason::NotTurn), 2);
    assert_eq!(relay.stats().dropped(DropReason::UnexpectedResponse), 2);
}

#[test]
fn a_wrong_fingerprint_is_ignored() {
    let mut relay = Relay::new();
    let client = Client::new("192.0.2.1:4000");
    let mut writer = Message::builder_request(BINDING, MessageWriteVec::new());
    writer.add_fingerprint().unwrap();
    let mut bytes = writer.finish();
    assert!(matches!(
        relay.client_sends(client.address, &bytes),
        Outcome::Answer(_)
    ));
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(
        relay.client_sends(client.address, &bytes),
        Outcome::Dropped(DropReason::MalformedStun)
    );
}
