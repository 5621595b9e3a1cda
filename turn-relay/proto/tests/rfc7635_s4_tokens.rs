//! Third-party tokens (RFC 7635): what an authorization server says with a key that it shares with the relay.

#![allow(clippy::unwrap_used)]

mod common;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use common::{Answer, Client, DATE, REALM, Relay, addr};
use std::sync::Arc;
use stun_types::attribute::{
    AttributeType, AttributeWrite, Nonce as NonceAttribute, RawAttribute, Realm, Username,
};
use stun_types::message::{
    IntegrityAlgorithm, Message, MessageIntegrityCredentials, MessageWrite, MessageWriteExt,
    MessageWriteVec, Method, ShortTermCredentials, TransactionId,
};
use turn_relay_proto::{Credentials, Revocations, TokenKey};
use turn_types::attribute::{Lifetime, RequestedTransport, XorPeerAddress};
use turn_types::message::{ALLOCATE, CREATE_PERMISSION, REFRESH};

const SERVER: &str = "turn.example.org";
const NORTH: [u8; 32] = *b"01234567890123456789012345678901";
const UNION: [u8; 16] = *b"1234567890123456";
const ACCESS_TOKEN: AttributeType = AttributeType::new(0x001B);
const THIRD_PARTY: AttributeType = AttributeType::new(0x802E);

fn relay() -> Relay {
    let mut relay = Relay::new();
    let mut config = relay.config.clone();
    let mut credentials = Credentials::new(REALM);
    credentials.add_user("alice", "wonderland");
    credentials.add_token_key("north", TokenKey::new(&NORTH).unwrap());
    credentials.add_token_key("union", TokenKey::new(&UNION).unwrap());
    credentials.set_server_name(SERVER.into());
    common::with_credentials(&mut config, credentials);
    relay.config = config.clone();
    relay.server.replace_config(relay.now.instant, config);
    relay
}

/// What an authorization server puts into a token.
#[derive(Clone)]
struct Token {
    kid: &'static str,
    server: &'static str,
    mac_key: Vec<u8>,
    made: u64,
    lifetime: u32,
}

impl Token {
    fn new(kid: &'static str, mac_key: &[u8; 20]) -> Self {
        Self {
            kid,
            server: SERVER,
            mac_key: mac_key.to_vec(),
            made: DATE.0,
            lifetime: 1_800,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let key = match self.kid {
            "north" => UnboundKey::new(&AES_256_GCM, &NORTH),
            _ => UnboundKey::new(&AES_128_GCM, &UNION),
        };
        let mut sealed = (self.mac_key.len() as u16).to_be_bytes().to_vec();
        sealed.extend(&self.mac_key);
        sealed.extend((self.made << 16).to_be_bytes());
        sealed.extend(self.lifetime.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key([7; 12]);
        let aad = Aad::from(self.server.as_bytes());
        let key = LessSafeKey::new(key.unwrap());
        key.seal_in_place_append_tag(nonce, aad, &mut sealed)
            .unwrap();
        [&[0, 12][..], &[7; 12], &sealed].concat()
    }
}

/// A client with a token.
struct Holder {
    client: Client,
    token: Token,
}

impl Holder {
    fn new(relay: &mut Relay, address: &str, token: Token) -> Self {
        let mut client = Client::new(address);
        let challenge = client.exchange(relay, &client.unsigned(ALLOCATE, &[]));
        let message = challenge.message();
        let name = message.raw_attribute(THIRD_PARTY).unwrap();
        assert_eq!(&*name.value, SERVER.as_bytes());
        let nonce = challenge.get::<NonceAttribute>().unwrap();
        client.nonce = Some(nonce.nonce().to_owned());
        Self { client, token }
    }

    fn send(
        &self,
        relay: &mut Relay,
        method: Method,
        token: Option<&[u8]>,
        attributes: &[&dyn AttributeWrite],
    ) -> Answer {
        let mut writer = Message::builder_request(method, MessageWriteVec::new());
        if let Some(id) = self.client.transaction {
            let kind = writer.get_type();
            writer = Message::builder(kind, id, MessageWriteVec::new());
        }
        for attribute in attributes {
            writer.add_attribute(*attribute).unwrap();
        }
        let username = Username::new(self.token.kid).unwrap();
        let nonce = NonceAttribute::new(self.client.nonce.as_deref().unwrap()).unwrap();
        let parts: [&dyn AttributeWrite; 3] = [&username, &Realm::new(REALM).unwrap(), &nonce];
        for part in parts {
            writer.add_attribute(part).unwrap();
        }
        if let Some(token) = token {
            writer
                .add_attribute(&RawAttribute::new(ACCESS_TOKEN, token))
                .unwrap();
        }
        let key = MessageIntegrityCredentials::from(ShortTermCredentials::new(
            String::from_utf8(self.token.mac_key.clone()).unwrap(),
        ));
        writer
            .add_message_integrity(&key, IntegrityAlgorithm::Sha1)
            .unwrap();
        let answer = self.client.exchange(relay, &writer.finish());
        if !matches!(answer.code(), 401 | 438) {
            answer.message().validate_integrity(&key).unwrap();
        }
        answer
    }

    fn allocate(&self, relay: &mut Relay) -> Answer {
        let udp = RequestedTransport::new(RequestedTransport::UDP);
        let lifetime = Lifetime::new(3_000);
        let token = self.token.encode();
        self.send(relay, ALLOCATE, Some(&token), &[&udp, &lifetime])
    }

    fn permit(&mut self, relay: &mut Relay) -> u16 {
        let id = TransactionId::generate();
        self.client.transaction = Some(id);
        let peer = XorPeerAddress::new(addr("10.0.0.9:9"), id);
        let code = self.send(relay, CREATE_PERMISSION, None, &[&peer]).code();
        self.client.transaction = None;
        code
    }
}

#[test]
fn a_token_allocates_and_its_key_signs_what_follows() {
    for kid in ["north", "union"] {
        let mut relay = relay();
        let mut holder = Holder::new(&mut relay, "192.0.2.1:4000", Token::new(kid, &[1; 20]));
        let answer = holder.allocate(&mut relay);
        assert_eq!(answer.code(), 0);
        // No longer than the token, with the five seconds that clocks may differ.
        assert_eq!(answer.get::<Lifetime>().unwrap().seconds(), 1_805);
        assert_eq!(holder.permit(&mut relay), 0);
        relay.pass(1_000);
        assert_eq!(holder.permit(&mut relay), 0);
        let answer = holder.send(&mut relay, REFRESH, None, &[&Lifetime::new(3_000)]);
        assert_eq!(answer.get::<Lifetime>().unwrap().seconds(), 805);
        // The allocation ends with the token, unless there is another.
        relay.pass(805);
        assert_eq!(relay.stats().allocations, 0);
    }
}

#[test]
fn a_client_that_signs_with_the_first_16_bytes_of_the_key_as_coturns_do_is_understood() {
    let mut relay = relay();
    let mut holder = Holder::new(&mut relay, "192.0.2.1:4000", Token::new("north", &[1; 20]));
    let token = holder.token.encode();
    holder.token.mac_key.truncate(16);
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let answer = holder.send(&mut relay, ALLOCATE, Some(&token), &[&udp]);
    assert_eq!(answer.code(), 0);
    assert_eq!(holder.permit(&mut relay), 0);
    holder.token.mac_key.truncate(15);
    assert_eq!(holder.permit(&mut relay), 401);
}

#[test]
fn a_new_token_of_any_issuer_takes_over_with_a_refresh() {
    let mut relay = relay();
    let mut holder = Holder::new(&mut relay, "192.0.2.1:4000", Token::new("north", &[1; 20]));
    assert_eq!(holder.allocate(&mut relay).code(), 0);
    relay.pass(1_700);
    let mut next = Token::new("union", &[2; 20]);
    next.made += 1_700;
    let old = std::mem::replace(&mut holder.token, next);
    // Not with anything else: it could be anyone's.
    assert_eq!(holder.permit(&mut relay), 401);
    let token = holder.token.encode();
    let lifetime = Lifetime::new(3_000);
    let answer = holder.send(&mut relay, REFRESH, Some(&token), &[&lifetime]);
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.get::<Lifetime>().unwrap().seconds(), 1_805);
    assert_eq!(holder.permit(&mut relay), 0);
    holder.token = old;
    assert_eq!(holder.permit(&mut relay), 401);
    // A user with a password is someone else, and the other way round.
    let mut alice = holder.client.clone();
    assert_eq!(alice.request(&mut relay, REFRESH, &[]).code(), 441);
    let mut alice = Client::new("192.0.2.1:4001");
    alice.allocate(&mut relay);
    let mut fresh = Token::new("north", &[3; 20]);
    fresh.made += 1_700;
    let intruder = Holder::new(&mut relay, "192.0.2.1:4001", fresh);
    let token = intruder.token.encode();
    let answer = intruder.send(&mut relay, REFRESH, Some(&token), &[&lifetime]);
    assert_eq!(answer.code(), 441);
}

#[test]
fn what_is_not_a_token_for_this_relay_and_this_time_is_401() {
    let right = Token::new("north", &[1; 20]);
    let late = |by: u64| Token {
        made: DATE.0 - by,
        ..right.clone()
    };
    let with = |change: fn(&mut Token)| {
        let mut token = right.clone();
        change(&mut token);
        token
    };
    let cases = [
        (right.clone(), 0),
        (late(1_804), 0),
        (late(1_805), 401),
        // Clocks differ both ways.
        (with(|t| t.made += 1_804), 0),
        (with(|t| t.made += 1_805), 401),
        (with(|t| t.server = "turn.example.com"), 401),
        (with(|t| t.lifetime = 0), 401),
        (with(|t| t.mac_key = vec![1; 15]), 401),
        (with(|t| t.mac_key = vec![1; 65]), 401),
        (with(|t| t.mac_key = vec![1; 64]), 0),
    ];
    for (number, (token, code)) in cases.into_iter().enumerate() {
        let mut relay = relay();
        let holder = Holder::new(&mut relay, "192.0.2.1:4000", token);
        assert_eq!(holder.allocate(&mut relay).code(), code, "case {number}");
    }
    // Of another issuer's key, cut short, or changed.
    let mut relay = relay();
    let holder = Holder::new(&mut relay, "192.0.2.1:4000", right.clone());
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let foreign = Token {
        kid: "union",
        ..right.clone()
    };
    let mut tokens = vec![foreign.encode()];
    let token = right.encode();
    tokens.extend((0..token.len()).map(|length| token[..length].to_vec()));
    tokens.extend((0..token.len()).map(|at| {
        let mut token = token.clone();
        token[at] ^= 1;
        token
    }));
    for token in tokens {
        let answer = holder.send(&mut relay, ALLOCATE, Some(&token), &[&udp]);
        assert_eq!(answer.code(), 401);
    }
    assert_eq!(relay.stats().allocations, 0);
    // A lifetime of years is a day.
    let mut long = Holder::new(&mut relay, "192.0.2.1:4000", right);
    long.token.lifetime = u32::MAX;
    assert_eq!(long.allocate(&mut relay).code(), 0);
    relay.pass(24 * 3_600);
    let mut later = Holder::new(&mut relay, "192.0.2.1:4001", long.token.clone());
    assert_eq!(later.allocate(&mut relay).code(), 0);
    relay.pass(10);
    later.client.address.set_port(4_002);
    let again = Holder::new(&mut relay, "192.0.2.1:4002", long.token);
    assert_eq!(again.allocate(&mut relay).code(), 401);
}

#[test]
fn a_revoked_issuer_is_refused_and_its_holders_allocations_end() {
    let mut relay = relay();
    let north = Holder::new(&mut relay, "192.0.2.1:4000", Token::new("north", &[1; 20]));
    let union = Holder::new(&mut relay, "192.0.2.2:4000", Token::new("union", &[2; 20]));
    assert_eq!(north.allocate(&mut relay).code(), 0);
    assert_eq!(union.allocate(&mut relay).code(), 0);
    let mut config = relay.config.clone();
    common::change_realm(&mut config, |realm| {
        realm.revocations = Arc::new(Revocations::new(["north"]));
    });
    let ended = relay.server.replace_config(relay.now.instant, config);
    relay.drain();
    assert_eq!(&*ended.revoked[0].name, "north");
    assert_eq!(ended.revoked.len(), 1);
    assert_eq!(relay.stats().allocations, 1);
    assert_eq!(north.allocate(&mut relay).code(), 401);
}
