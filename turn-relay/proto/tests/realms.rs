//! Several realms on one relay: how a client gets to one, and that nothing of one is another's.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/tcp.rs"]
mod tcp;
#[path = "common/realms.rs"]
mod tenants;

use common::{Client, Outcome, REALM, Relay, Setup};
use std::sync::Arc;
use std::time::Duration;
use stun_types::attribute::{AttributeFromRaw, Nonce, RawAttribute, Realm as RealmAttribute};
use tenants::{EAST, EASTERN_PEER, PEER, east, eastern_alice, of_east, setup, with_nonce};
use turn_relay_proto::{
    ConnectionId, Credentials, EndReason, Extensions, LookedUp, LookupLimits, PeerPolicy, Realm,
    RealmUser, Realms, Revocations, Transport,
};
use turn_types::attribute::{Lifetime, RequestedTransport};
use turn_types::message::{ALLOCATE, REFRESH};

fn origin(text: &str) -> RawAttribute<'_> {
    RawAttribute::new(
        stun_types::attribute::AttributeType::new(0x802F),
        text.as_bytes(),
    )
}

/// The realm that an unsigned request is challenged for.
fn challenged(relay: &mut Relay, client: &Client, hint: Option<&str>) -> String {
    let hint = hint.map(origin);
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let mut attributes: Vec<&dyn stun_types::attribute::AttributeWrite> = vec![&udp];
    if let Some(hint) = &hint {
        attributes.push(hint);
    }
    let answer = client.exchange(relay, &client.unsigned(ALLOCATE, &attributes));
    assert_eq!(answer.code(), 401);
    let message = answer.message();
    let raw =
        message.raw_attribute(<RealmAttribute as stun_types::attribute::AttributeStaticType>::TYPE);
    RealmAttribute::from_raw(raw.unwrap())
        .unwrap()
        .realm()
        .to_owned()
}

#[test]
fn what_a_client_reached_and_what_it_says_choose_the_challenge() {
    let mut relay = Relay::with(setup());
    let udp = Client::new("192.0.2.1:4000");
    assert_eq!(challenged(&mut relay, &udp, None), REALM);
    for hint in ["https://east.example", "HTTPS://EAST.example"] {
        assert_eq!(challenged(&mut relay, &udp, Some(hint)), EAST);
    }
    for other in [
        "https://elsewhere.example",
        "east",
        "",
        "https://east.example/",
    ] {
        assert_eq!(challenged(&mut relay, &udp, Some(other)), REALM);
    }
    let over = |transport| {
        let mut client = Client::new("192.0.2.1:4001");
        client.transport = transport;
        client
    };
    let tcp = over(Transport::Tcp(ConnectionId(1)));
    assert_eq!(challenged(&mut relay, &tcp, None), EAST);
    let tls = over(Transport::Tls(ConnectionId(2)));
    assert_eq!(challenged(&mut relay, &tls, None), REALM);
    relay
        .server
        .handle_server_name(ConnectionId(2), "East.Example");
    assert_eq!(challenged(&mut relay, &tls, None), EAST);
    // Another client, with the number of the one that is gone.
    relay.client_disconnects(tls.transport, tls.address);
    assert_eq!(challenged(&mut relay, &tls, None), REALM);
    relay
        .server
        .handle_server_name(ConnectionId(2), "west.example");
    assert_eq!(challenged(&mut relay, &tls, None), REALM);
}

#[test]
fn realm_says_whose_users_are_asked_whatever_was_hinted() {
    let mut relay = Relay::with(setup());
    // With a nonce of the first realm and without any hint: a new nonce, and of the right realm.
    let mut alice = eastern_alice("192.0.2.1:4000");
    alice.nonce = Some("none".into());
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let answer = alice.exchange(&mut relay, &alice.signed(ALLOCATE, &[&udp]));
    assert_eq!(answer.code(), 438);
    alice.nonce = Some(answer.get::<Nonce>().unwrap().nonce().to_owned());
    alice.allocate(&mut relay);
    // The hint of one and the REALM of the other.
    let mut western = Client::new("192.0.2.1:4001");
    let hint = origin("https://east.example");
    western.nonce = Some("none".into());
    let answer = western.exchange(&mut relay, &western.signed(ALLOCATE, &[&udp, &hint]));
    western.nonce = Some(answer.get::<Nonce>().unwrap().nonce().to_owned());
    assert_eq!(western.try_allocate(&mut relay, &[&hint]).code(), 0);
    // A realm that there is not.
    let mut nobody = eastern_alice("192.0.2.1:4002");
    nobody.realm = "north".into();
    nobody.nonce = alice.nonce.clone();
    let answer = nobody.exchange(&mut relay, &nobody.signed(ALLOCATE, &[&udp]));
    assert_eq!(answer.code(), 401);
    assert_eq!(answer.get::<RealmAttribute>().unwrap().realm(), REALM);
}

#[test]
fn a_user_of_one_realm_is_nobody_in_another() {
    let mut relay = Relay::with(setup());
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    for (realm, user, password) in [
        (REALM, "alice", "looking-glass"),
        (EAST, "alice", "wonderland"),
        (EAST, "bob", "builder"),
        (REALM, "carol", "christmas"),
    ] {
        let mut client = Client::named("192.0.2.1:4000", user, password);
        client.realm = realm.into();
        client.nonce = Some("none".into());
        // A fresh nonce of that realm.
        let mut known = match realm {
            EAST => eastern_alice("192.0.2.1:4000"),
            _ => Client::new("192.0.2.1:4000"),
        };
        known.nonce = Some("none".into());
        let stale = known.exchange(&mut relay, &known.signed(ALLOCATE, &[&udp]));
        assert_eq!(stale.code(), 438);
        client.nonce = Some(stale.get::<Nonce>().unwrap().nonce().to_owned());
        let answer = client.exchange(&mut relay, &client.signed(ALLOCATE, &[&udp]));
        assert_eq!(answer.code(), 401, "{realm} {user}");
    }
    assert_eq!(relay.stats().allocations, 0);
}

#[test]
fn a_nonce_of_one_realm_is_stale_in_another() {
    let mut relay = Relay::with(setup());
    let western = with_nonce(&mut relay, Client::new("192.0.2.1:4000"));
    let mut eastern = eastern_alice("192.0.2.1:4000");
    eastern.nonce = western.nonce;
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let answer = eastern.exchange(&mut relay, &eastern.signed(ALLOCATE, &[&udp]));
    assert_eq!(answer.code(), 438);
    assert_eq!(answer.get::<RealmAttribute>().unwrap().realm(), EAST);
}

#[test]
fn an_allocation_is_its_realms_and_the_same_name_elsewhere_does_not_own_it() {
    let mut relay = Relay::with(setup());
    let mut western = Client::new("192.0.2.1:4000");
    western.allocate(&mut relay);
    let mut eastern = with_nonce(&mut relay, eastern_alice("192.0.2.1:4000"));
    assert_eq!(eastern.permit(&mut relay, &[EASTERN_PEER]), 441);
    let answer = eastern.request(&mut relay, REFRESH, &[&Lifetime::new(0)]);
    assert_eq!(answer.code(), 441);
    assert_eq!(eastern.try_allocate(&mut relay, &[]).code(), 437);
    // Not even a retransmission that is the same but for the realm.
    western.transaction = Some(stun_types::message::TransactionId::generate());
    let mut other = western.clone();
    other.address = "192.0.2.1:4001".parse().unwrap();
    other.nonce = None;
    other.allocate(&mut relay);
    let mut eastern = with_nonce(&mut relay, eastern_alice("192.0.2.1:4001"));
    eastern.transaction = other.transaction;
    assert_eq!(eastern.try_allocate(&mut relay, &[]).code(), 437);
    assert_eq!(relay.stats().allocations, 2);
}

#[test]
fn a_ticket_moves_nothing_for_the_same_name_of_another_realm() {
    let mut relay = Relay::with(Setup {
        extensions: Extensions {
            mobility: true,
            ..Extensions::default()
        },
        ..setup()
    });
    let ticket_type = stun_types::attribute::AttributeType::new(0x8030);
    let mut western = Client::new("192.0.2.1:4000");
    let wanted = RawAttribute::new(ticket_type, &[]);
    let answer = western.try_allocate(&mut relay, &[&wanted]);
    assert_eq!(answer.code(), 0);
    let message = answer.message();
    let ticket = message.raw_attribute(ticket_type).unwrap().value.to_vec();
    let shown = RawAttribute::new(ticket_type, &ticket);
    let mut eastern = with_nonce(&mut relay, eastern_alice("192.0.2.1:4001"));
    assert_eq!(eastern.request(&mut relay, REFRESH, &[&shown]).code(), 441);
    let mut moved = with_nonce(&mut relay, Client::new("192.0.2.1:4002"));
    assert_eq!(moved.request(&mut relay, REFRESH, &[&shown]).code(), 0);
}

#[test]
fn a_connection_with_a_peer_is_bound_by_its_own_realm_only() {
    let mut relay = Relay::with(setup());
    let mut control = tcp::client("192.0.2.1:4000", 1);
    control = with_nonce(&mut relay, control);
    tcp::allocate(&mut control, &mut relay);
    let number = tcp::connected(&mut control, &mut relay, PEER);
    let mut eastern = tcp::client("192.0.2.1:4001", 2);
    eastern.realm = EAST.into();
    eastern.password = "looking-glass".into();
    let mut eastern = with_nonce(&mut relay, eastern);
    assert_eq!(tcp::bind(&mut eastern, &mut relay, number), 441);
    let mut western = tcp::client("192.0.2.1:4002", 3);
    western.nonce = control.nonce.clone();
    assert_eq!(tcp::bind(&mut western, &mut relay, number), 0);
}

#[test]
fn peers_are_those_of_the_realm() {
    let mut relay = Relay::with(Setup {
        deny: vec!["10.0.0.128/25"],
        ..setup()
    });
    let mut western = Client::new("192.0.2.1:4000");
    let relayed = western.allocate(&mut relay);
    assert_eq!(western.bind(&mut relay, 0x4001, PEER), 0);
    assert_eq!(western.bind(&mut relay, 0x4002, EASTERN_PEER), 403);
    let mut eastern = with_nonce(&mut relay, eastern_alice("192.0.2.1:4001"));
    eastern.allocate(&mut relay);
    assert_eq!(eastern.bind(&mut relay, 0x4001, PEER), 403);
    assert_eq!(eastern.permit(&mut relay, &[PEER]), 403);
    assert_eq!(eastern.bind(&mut relay, 0x4002, EASTERN_PEER), 0);
    let sent = relay.peer_sends(PEER, relayed, b"x");
    assert!(matches!(sent, Outcome::ToClient { .. }));
}

#[test]
fn revocation_and_settings_are_the_realms_and_a_realm_that_is_gone_ends() {
    let mut relay = Relay::with(setup());
    let mut western = Client::new("192.0.2.1:4000");
    western.allocate(&mut relay);
    let mut eastern = with_nonce(&mut relay, eastern_alice("192.0.2.1:4001"));
    eastern.allocate(&mut relay);
    assert_eq!(eastern.permit(&mut relay, &[EASTERN_PEER]), 0);
    let mut carol = with_nonce(&mut relay, of_east("192.0.2.1:4002", "carol", "christmas"));
    carol.allocate(&mut relay);
    assert_eq!(carol.permit(&mut relay, &[EASTERN_PEER]), 0);

    let with_others = |relay: &mut Relay, others: Vec<Realm>| {
        let mut config = relay.config.clone();
        let first = (**config.realms.first()).clone();
        config.realms = Arc::new(Realms::new(first, others));
        let replaced = relay.server.replace_config(relay.now.instant, config);
        relay.drain();
        replaced
    };
    let shared = relay.config.shared.clone();
    let mut realm = east(&shared);
    realm.revocations = Arc::new(Revocations::new(["alice"]));
    let replaced = with_others(&mut relay, vec![realm.clone()]);
    let revoked = |user: &str| RealmUser {
        realm: EAST.into(),
        name: user.into(),
    };
    assert_eq!(replaced.revoked, [revoked("alice")]);
    assert_eq!(relay.ended.pop().unwrap().user, revoked("alice"));
    // The other alice, and the other user.
    assert_eq!(western.request(&mut relay, REFRESH, &[]).code(), 0);
    assert_eq!(carol.request(&mut relay, REFRESH, &[]).code(), 0);

    realm.peer_policy = Arc::default();
    let replaced = with_others(&mut relay, vec![realm]);
    assert_eq!((replaced.permissions, replaced.revoked.len()), (1, 0));

    let replaced = with_others(&mut relay, Vec::new());
    assert_eq!(replaced.revoked, [revoked("carol")]);
    assert_eq!(relay.ended.pop().unwrap().reason, EndReason::Revoked);
    assert_eq!(relay.stats().allocations, 1);
    let answer = carol.exchange(&mut relay, &carol.signed(REFRESH, &[]));
    assert_eq!(answer.code(), 401);
}

#[test]
fn a_successor_goes_on_with_every_realm_that_it_has() {
    let mut relay = Relay::with(setup());
    let mut western = Client::new("192.0.2.1:4000");
    western.allocate(&mut relay);
    let mut eastern = with_nonce(&mut relay, eastern_alice("192.0.2.1:4001"));
    eastern.allocate(&mut relay);
    eastern.bind(&mut relay, 0x4001, EASTERN_PEER);
    let exported = relay.server.export(relay.now.instant);
    let import = |setup: Setup| {
        let mut new = Relay::with(setup);
        let now = new.now.instant;
        let imported = new.server.import(&exported.state, now, |_| true).unwrap();
        for adopted in &imported.relays {
            new.open.insert(adopted.address, adopted.relay);
        }
        (new, imported)
    };
    let (mut new, imported) = import(setup());
    assert_eq!((imported.allocations, imported.left_out), (2, 0));
    let sent = eastern.sends_channel_data(&mut new, 0x4001, b"on");
    assert!(matches!(sent, Outcome::ToPeer { .. }));
    // Neither has become the other's.
    let mut eastern = with_nonce(&mut new, eastern);
    assert_eq!(eastern.request(&mut new, REFRESH, &[]).code(), 0);
    let mut wrong = with_nonce(&mut new, eastern_alice("192.0.2.1:4000"));
    assert_eq!(wrong.request(&mut new, REFRESH, &[]).code(), 441);
    let held: Vec<_> = new.config.shared.realms();
    assert!(held.iter().all(|realm| realm.allocations == 1), "{held:?}");
    let (new, imported) = import(Setup {
        others: |_| Vec::new(),
        ..setup()
    });
    assert_eq!((imported.allocations, imported.left_out), (1, 1));
    assert_eq!(new.stats().allocations, 1);
}

#[test]
fn the_site_is_asked_about_the_realms_user() {
    let mut relay = Relay::with(Setup {
        others: |shared| {
            let mut credentials = Credentials::new(EAST);
            credentials.look_up_others(LookupLimits {
                remembered: 4,
                waiting: 4,
            });
            let allowed = vec!["10.0.0.0/8".parse().unwrap()];
            let policy = Arc::new(PeerPolicy::new(allowed, &[]));
            vec![Realm::new(shared, Arc::new(credentials), policy)]
        },
        ..setup()
    });
    let mut client = of_east("192.0.2.1:4000", "erin", "island");
    client.nonce = Some("none".into());
    let stale = client.exchange(&mut relay, &client.signed(REFRESH, &[]));
    client.nonce = Some(stale.get::<Nonce>().unwrap().nonce().to_owned());
    let udp = RequestedTransport::new(RequestedTransport::UDP);
    let request = client.signed(ALLOCATE, &[&udp]);
    assert_eq!(
        relay.client_sends(client.address, &request),
        Outcome::Nothing
    );
    assert_eq!(relay.asked, ["erin"]);
    let answer = LookedUp::User {
        keys: turn_relay_proto::HashedPassword::new("erin", EAST, "island"),
        identity: None,
        remember: Duration::from_secs(60),
    };
    let user = |realm: &str| RealmUser {
        realm: realm.into(),
        name: "erin".into(),
    };
    // About somebody else.
    relay
        .server
        .handle_looked_up(relay.now, &user(REALM), &answer);
    assert_eq!(relay.stats().allocations, 0);
    relay
        .server
        .handle_looked_up(relay.now, &user(EAST), &answer);
    relay.drain();
    assert_eq!(relay.take_answers().len(), 1);
    assert_eq!(relay.stats().allocations, 1);
    // Who is known to one site is unknown where nobody is asked.
    let mut western = with_nonce(&mut relay, Client::new("192.0.2.1:4001"));
    western.user = "erin".into();
    western.password = "island".into();
    let answer = western.exchange(&mut relay, &western.signed(ALLOCATE, &[&udp]));
    assert_eq!(answer.code(), 401);
}
