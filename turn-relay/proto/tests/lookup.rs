//! Users that the site is asked about: what waits, what is remembered, and that nobody gets in for want of an answer.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Answer, Client, Outcome, REALM, Relay};
use std::time::Duration;
use stun_types::attribute::Nonce;
use stun_types::message::IntegrityAlgorithm;
use turn_relay_proto::{
    ConnectionId, Credentials, HashedPassword, LookedUp, LookupLimits, RealmUser, Transport,
};
use turn_types::attribute::RequestedTransport;
use turn_types::message::{ALLOCATE, REFRESH};

fn relay_with(limits: LookupLimits) -> Relay {
    let mut relay = Relay::new();
    let mut config = relay.config.clone();
    let mut credentials = Credentials::new(REALM);
    credentials.add_user("alice", "wonderland");
    credentials.add_secret(b"first secret");
    credentials.look_up_others(limits);
    common::with_credentials(&mut config, credentials);
    relay.config = config.clone();
    relay.server.replace_config(relay.now.instant, config);
    relay
}

fn relay() -> Relay {
    relay_with(LookupLimits {
        remembered: 100,
        waiting: 100,
    })
}

fn found(name: &str, password: &str) -> LookedUp {
    LookedUp::User {
        keys: HashedPassword::new(name, REALM, password),
        identity: None,
        remember: Duration::from_secs(60),
    }
}

const REFUSED: LookedUp = LookedUp::Refused {
    remember: Duration::from_secs(10),
};

/// A client with a nonce.
fn client(relay: &mut Relay, address: &str, name: &str) -> Client {
    let mut client = Client::named(address, name, "secret");
    let challenge = client.exchange(relay, &client.unsigned(ALLOCATE, &[]));
    client.nonce = Some(challenge.get::<Nonce>().unwrap().nonce().to_owned());
    client
}

fn allocate(client: &Client) -> Vec<u8> {
    client.signed(
        ALLOCATE,
        &[&RequestedTransport::new(RequestedTransport::UDP)],
    )
}

/// The answers to what waited.
fn answer(relay: &mut Relay, name: &str, answer: &LookedUp) -> Vec<u16> {
    let user = RealmUser {
        realm: REALM.into(),
        name: name.into(),
    };
    relay.server.handle_looked_up(relay.now, &user, answer);
    relay.drain();
    let answers = relay.take_answers().into_iter();
    answers.map(|(_, bytes)| Answer(bytes).code()).collect()
}

#[test]
fn a_request_waits_for_the_site_and_its_answer_is_remembered() {
    for algorithm in [IntegrityAlgorithm::Sha1, IntegrityAlgorithm::Sha256] {
        let mut relay = relay();
        let mut carol = client(&mut relay, "192.0.2.1:4000", "carol");
        carol.algorithm = algorithm;
        let request = allocate(&carol);
        assert_eq!(
            relay.client_sends(carol.address, &request),
            Outcome::Nothing
        );
        // A retransmission waits for the same.
        assert_eq!(
            relay.client_sends(carol.address, &request),
            Outcome::Nothing
        );
        assert_eq!(relay.asked, ["carol"]);
        assert_eq!(answer(&mut relay, "carol", &found("carol", "secret")), [0]);
        assert_eq!(relay.stats().allocations, 1);
        assert_eq!(relay.stats().allocate_requests, 3);
        // Nobody is asked again, until it is forgotten.
        assert_eq!(carol.request(&mut relay, REFRESH, &[]).code(), 0);
        relay.pass(61);
        let refresh = carol.signed(REFRESH, &[]);
        assert_eq!(
            relay.client_sends(carol.address, &refresh),
            Outcome::Nothing
        );
        assert_eq!(relay.asked, ["carol", "carol"]);
        // The site may have changed its mind.
        assert_eq!(answer(&mut relay, "carol", &REFUSED), [401]);
        assert_eq!(carol.exchange(&mut relay, &refresh).code(), 401);
        relay.pass(11);
        assert_eq!(
            relay.client_sends(carol.address, &refresh),
            Outcome::Nothing
        );
        assert_eq!(relay.stats().lookups, 3);
    }
}

#[test]
fn nobody_gets_in_with_another_password_or_without_an_answer() {
    let mut relay = relay();
    let carol = client(&mut relay, "192.0.2.1:4000", "carol");
    assert_eq!(
        relay.client_sends(carol.address, &allocate(&carol)),
        Outcome::Nothing
    );
    assert_eq!(answer(&mut relay, "carol", &LookedUp::Failed), [500]);
    assert_eq!(
        relay.client_sends(carol.address, &allocate(&carol)),
        Outcome::Nothing
    );
    assert_eq!(answer(&mut relay, "carol", &found("carol", "other")), [401]);
    assert_eq!(carol.exchange(&mut relay, &allocate(&carol)).code(), 401);
    // An answer that nobody waits for changes nothing.
    relay.pass(61);
    assert_eq!(answer(&mut relay, "carol", &found("carol", "secret")), []);
    assert_eq!(
        relay.client_sends(carol.address, &allocate(&carol)),
        Outcome::Nothing
    );
    assert_eq!(relay.stats().allocations, 0);
}

#[test]
fn who_is_known_here_or_has_no_nonce_of_ours_is_not_asked_about() {
    let mut relay = relay();
    Client::new("192.0.2.1:4000").allocate(&mut relay);
    let mut wrong = Client::named("192.0.2.1:4001", "alice", "wrong");
    wrong.nonce = client(&mut relay, "192.0.2.1:4001", "x").nonce;
    assert_eq!(wrong.exchange(&mut relay, &allocate(&wrong)).code(), 401);
    let mut minted = client(&mut relay, "192.0.2.1:4002", "9999999999:x");
    assert_eq!(minted.exchange(&mut relay, &allocate(&minted)).code(), 401);
    // Another client's nonce, and none.
    let mut carol = client(&mut relay, "192.0.2.1:4003", "carol");
    carol.address.set_port(4004);
    assert_eq!(carol.exchange(&mut relay, &allocate(&carol)).code(), 438);
    minted.nonce = None;
    minted.user = "dave".into();
    assert_eq!(minted.exchange(&mut relay, &allocate(&minted)).code(), 438);
    assert!(relay.asked.is_empty());
}

#[test]
fn the_identity_that_the_site_gives_owns_the_allocation() {
    let mut relay = relay();
    let with_identity = |name: &str| LookedUp::User {
        keys: HashedPassword::new(name, REALM, "secret"),
        identity: Some("carol".into()),
        remember: Duration::from_secs(60),
    };
    let mut phone = client(&mut relay, "192.0.2.1:4000", "carol+phone");
    relay.client_sends(phone.address, &allocate(&phone));
    assert_eq!(
        answer(&mut relay, "carol+phone", &with_identity("carol+phone")),
        [0]
    );
    phone.user = "carol+desk".into();
    relay.client_sends(phone.address, &phone.signed(REFRESH, &[]));
    assert_eq!(
        answer(&mut relay, "carol+desk", &with_identity("carol+desk")),
        [0]
    );
    phone.user = "dave".into();
    relay.client_sends(phone.address, &phone.signed(REFRESH, &[]));
    assert_eq!(answer(&mut relay, "dave", &found("dave", "secret")), [441]);
}

#[test]
fn what_waits_and_what_is_remembered_is_bounded() {
    let mut relay = relay_with(LookupLimits {
        remembered: 4,
        waiting: 8,
    });
    let mut codes = Vec::new();
    for number in 0..20u16 {
        let address = format!("192.0.2.1:{}", 4_000 + number);
        let client = client(&mut relay, &address, &format!("user-{number}"));
        match relay.client_sends(client.address, &allocate(&client)) {
            Outcome::Answer(bytes) => codes.push(Answer(bytes).code()),
            other => assert_eq!(other, Outcome::Nothing),
        }
    }
    assert_eq!(codes, [500; 12]);
    assert_eq!(relay.asked.len(), 8);
    assert_eq!(relay.stats().lookups_without_room, 12);
    for number in 0..8 {
        let name = format!("user-{number}");
        assert_eq!(answer(&mut relay, &name, &found(&name, "secret")), [0]);
    }
    // The last four are remembered; refusals have room of their own.
    let asks = |relay: &mut Relay, number: u16| {
        let address = format!("192.0.2.1:{}", 5_000 + number);
        let client = client(relay, &address, &format!("user-{number}"));
        let before = relay.asked.len();
        relay.client_sends(client.address, &client.signed(REFRESH, &[]));
        relay.asked.len() > before
    };
    for number in 100..110 {
        assert!(asks(&mut relay, number));
        answer(&mut relay, &format!("user-{number}"), &REFUSED);
    }
    let remembered: Vec<u16> = (0..8).filter(|number| !asks(&mut relay, *number)).collect();
    assert_eq!(remembered.len(), 4);
    let refused: Vec<u16> = (100..110)
        .filter(|number| !asks(&mut relay, *number))
        .collect();
    assert!(refused.len() >= 4, "{refused:?}");
}

#[test]
fn a_connection_that_ends_takes_with_it_what_waits() {
    let mut relay = relay();
    let transport = Transport::Tcp(ConnectionId(3));
    let mut carol = client(&mut relay, "192.0.2.1:4000", "carol");
    let question = carol.unsigned(ALLOCATE, &[]);
    let Outcome::Answer(bytes) = relay.client_sends_over(transport, carol.address, &question)
    else {
        panic!("no challenge");
    };
    let nonce = Answer(bytes).get::<Nonce>().unwrap().nonce().to_owned();
    carol.nonce = Some(nonce);
    let request = allocate(&carol);
    let outcome = relay.client_sends_over(transport, carol.address, &request);
    assert_eq!(outcome, Outcome::Nothing);
    assert_eq!(relay.asked, ["carol"]);
    relay.client_disconnects(transport, carol.address);
    assert_eq!(answer(&mut relay, "carol", &found("carol", "secret")), []);
    assert_eq!(relay.stats().allocations, 0);
}
