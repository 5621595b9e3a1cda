//! RFC 8489 section 9.2: the long-term credential mechanism.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, REALM, Relay};
use stun_types::attribute::{
    AttributeStaticType, AttributeWrite, Nonce, PasswordAlgorithm, PasswordAlgorithmValue,
    PasswordAlgorithms, Realm, Software, Userhash, Username,
};
use stun_types::message::{
    IntegrityAlgorithm, Message, MessageWrite, MessageWriteExt, MessageWriteVec,
};
use turn_types::attribute::RequestedTransport;
use turn_types::message::ALLOCATE;

fn challenged(relay: &mut Relay, client: &Client) -> String {
    let answer = client.exchange(relay, &client.unsigned(ALLOCATE, &[]));
    answer.get::<Nonce>().unwrap().nonce().to_owned()
}

/// An Allocate request from chosen parts.
fn request(client: &Client, attributes: &[&dyn AttributeWrite]) -> Vec<u8> {
    let mut writer = Message::builder_request(ALLOCATE, MessageWriteVec::new());
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    writer.add_attribute(&udp).unwrap();
    for attribute in attributes {
        writer.add_attribute(*attribute).unwrap();
    }
    let credentials = client.credentials();
    writer
        .add_message_integrity(&credentials, client.algorithm)
        .unwrap();
    writer.finish()
}

#[test]
fn a_request_without_integrity_is_challenged_with_realm_nonce_and_algorithms() {
    let mut relay = Relay::new();
    let client = Client::new("192.0.2.1:4000");
    // Large enough for all of the answer: see abuse.rs for those that are not.
    let software = Software::new("a client with a name of some length").unwrap();
    let answer = client.exchange(&mut relay, &client.unsigned(ALLOCATE, &[&software]));
    assert_eq!(answer.code(), 401);
    assert_eq!(answer.get::<Realm>().unwrap().realm(), REALM);
    let nonce: Nonce = answer.get().unwrap();
    // Section 9.2: nonce cookie and the bit "Password algorithms".
    assert!(nonce.nonce().starts_with("obMatJos2gAAA"));
    let offered: PasswordAlgorithms = answer.get().unwrap();
    assert_eq!(
        offered.algorithms(),
        [PasswordAlgorithmValue::SHA256, PasswordAlgorithmValue::MD5]
    );
    // What a stranger need not know.
    assert!(!answer.message().has_attribute(Software::TYPE));
    assert_eq!(relay.stats().error_responses(401), 1);
}

#[test]
fn the_password_opens_the_door_with_sha1_and_with_sha256() {
    for algorithm in [IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256] {
        let mut relay = Relay::new();
        let mut client = Client::new("192.0.2.1:4000");
        client.algorithm = algorithm;
        client.allocate(&mut relay);
    }
}

#[test]
fn a_wrong_password_an_unknown_user_and_a_wrong_realm_are_challenged_again() {
    let mut relay = Relay::new();
    for (user, password) in [("alice", "builder"), ("mallory", "wonderland")] {
        let mut client = Client::named("192.0.2.1:4000", user, password);
        client.nonce = Some(challenged(&mut relay, &client));
        let answer = client.exchange(&mut relay, &client.signed(ALLOCATE, &[]));
        assert_eq!(answer.code(), 401, "{user}");
        assert!(answer.get::<Nonce>().is_some());
    }
    let client = Client::new("192.0.2.1:4000");
    let nonce = challenged(&mut relay, &client);
    let wrong_realm = request(
        &client,
        &[
            &Username::new("alice").unwrap(),
            &Realm::new("east").unwrap(),
            &Nonce::new(&nonce).unwrap(),
        ],
    );
    assert_eq!(client.exchange(&mut relay, &wrong_realm).code(), 401);
    assert_eq!(relay.stats().allocations, 0);
}

#[test]
fn integrity_without_user_realm_or_nonce_is_a_bad_request() {
    let mut relay = Relay::new();
    let client = Client::new("192.0.2.1:4000");
    let nonce = Nonce::new(&challenged(&mut relay, &client)).unwrap();
    let (user, realm) = (Username::new("alice").unwrap(), Realm::new(REALM).unwrap());
    let parts: [&dyn AttributeWrite; 3] = [&user, &realm, &nonce];
    for missing in 0..3 {
        let mut some = parts.to_vec();
        some.remove(missing);
        let answer = client.exchange(&mut relay, &request(&client, &some));
        assert_eq!(answer.code(), 400, "without {missing}");
        assert!(answer.get::<Nonce>().is_none());
    }
    assert_eq!(
        client
            .exchange(&mut relay, &request(&client, &parts))
            .code(),
        0
    );
}

#[test]
fn a_nonce_goes_stale_after_an_hour_and_with_another_address() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.nonce = Some(challenged(&mut relay, &client));
    relay.pass(3_601);
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let answer = client.exchange(&mut relay, &client.signed(ALLOCATE, &[&udp]));
    assert_eq!(answer.code(), 438);
    client.nonce = Some(answer.get::<Nonce>().unwrap().nonce().to_owned());
    let mut elsewhere = client.clone();
    elsewhere.address.set_port(4001);
    let answer = elsewhere.exchange(&mut relay, &elsewhere.signed(ALLOCATE, &[&udp]));
    assert_eq!(answer.code(), 438);
    assert_eq!(client.try_allocate(&mut relay, &[]).code(), 0);
}

#[test]
fn a_stale_nonce_with_a_wrong_password_is_401_not_438() {
    let mut relay = Relay::new();
    let mut client = Client::named("192.0.2.1:4000", "alice", "wrong");
    client.nonce = Some("made up".into());
    let answer = client.exchange(&mut relay, &client.signed(ALLOCATE, &[]));
    assert_eq!(answer.code(), 401);
}

#[test]
fn an_offer_of_algorithms_that_was_changed_on_its_way_is_a_bad_request() {
    let mut relay = Relay::new();
    let client = Client::new("192.0.2.1:4000");
    let nonce = Nonce::new(&challenged(&mut relay, &client)).unwrap();
    let (user, realm) = (Username::new("alice").unwrap(), Realm::new(REALM).unwrap());
    let md5 = PasswordAlgorithmValue::MD5;
    let only_md5 = PasswordAlgorithms::new(&[md5]);
    let chosen = PasswordAlgorithm::new(md5);
    let bids: [&[&dyn AttributeWrite]; 3] = [
        &[&user, &realm, &nonce, &only_md5, &chosen],
        &[&user, &realm, &nonce, &only_md5],
        &[&user, &realm, &nonce, &chosen],
    ];
    for bid in bids {
        let answer = client.exchange(&mut relay, &request(&client, bid));
        assert_eq!(answer.code(), 400);
    }
}

#[test]
fn a_userhash_stands_for_a_user() {
    let mut relay = Relay::new();
    let client = Client::new("192.0.2.1:4000");
    let nonce = Nonce::new(&challenged(&mut relay, &client)).unwrap();
    let realm = Realm::new(REALM).unwrap();
    let hash = Userhash::new(Userhash::compute("alice", REALM));
    let answer = client.exchange(&mut relay, &request(&client, &[&hash, &realm, &nonce]));
    assert_eq!(answer.code(), 0);
    let stranger = Userhash::new(Userhash::compute("mallory", REALM));
    let answer = client.exchange(&mut relay, &request(&client, &[&stranger, &realm, &nonce]));
    assert_eq!(answer.code(), 401);
}

#[test]
fn what_follows_the_integrity_is_not_acted_on() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.nonce = Some(challenged(&mut relay, &client));
    // REQUESTED-TRANSPORT only after MESSAGE-INTEGRITY: not there.
    let mut bytes = client.signed(ALLOCATE, &[]);
    bytes.extend([0x00, 0x19, 0, 4, 17, 0, 0, 0]);
    let length = (bytes.len() - 20) as u16;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    assert_eq!(client.exchange(&mut relay, &bytes).code(), 400);
}
