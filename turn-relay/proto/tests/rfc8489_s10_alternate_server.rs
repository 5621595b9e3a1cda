//! RFC 8489 section 10: ALTERNATE-SERVER, for new allocations that have no room or come during a drain.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Relay, Setup, addr};
use std::time::Duration;
use stun_types::attribute::AlternateServer;
use stun_types::message::TransactionId;
use turn_relay_proto::{Alternate, AlternateTransport, Extensions, Limits};
use turn_types::attribute::{Lifetime, ReservationToken};
use turn_types::message::REFRESH;

fn alternate(transport: AlternateTransport, address: &str) -> Alternate {
    let address = addr(address);
    Alternate { transport, address }
}

fn with_alternates() -> Setup {
    let alternates = vec![
        alternate(AlternateTransport::Udp, "203.0.113.13:3478"),
        alternate(AlternateTransport::Udp, "203.0.113.14:3478"),
        alternate(AlternateTransport::Udp, "[2001:db8::13]:3478"),
        alternate(AlternateTransport::Tls, "203.0.113.15:5349"),
        alternate(AlternateTransport::Tcp, "203.0.113.16:3478"),
    ];
    Setup {
        extensions: Extensions {
            alternates,
            ..Extensions::default()
        },
        ..Setup::default()
    }
}

fn full() -> Setup {
    Setup {
        limits: Limits {
            allocations: 1,
            ..Limits::default()
        },
        ..with_alternates()
    }
}

#[test]
fn where_there_is_no_room_an_alternate_of_the_clients_family_and_transport_is_named() {
    let mut relay = Relay::with(full());
    Client::new("192.0.2.1:4000").allocate(&mut relay);
    let mut seen = std::collections::BTreeSet::new();
    for port in 4001..4031 {
        let answer = Client::new(&format!("192.0.2.1:{port}")).try_allocate(&mut relay, &[]);
        assert_eq!(answer.code(), 300);
        seen.insert(answer.get::<AlternateServer>().unwrap().server());
    }
    let both = [addr("203.0.113.13:3478"), addr("203.0.113.14:3478")];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), both);
    let answer = Client::new("[2001:db8::99]:4000").try_allocate(&mut relay, &[]);
    assert_eq!(answer.code(), 300);
    let server = answer.get::<AlternateServer>().unwrap().server();
    assert_eq!(server, addr("[2001:db8::13]:3478"));
    assert_eq!(relay.stats().error_responses(300), 31);
    assert_eq!(relay.stats().allocations, 1);
}

#[test]
fn where_the_ports_are_taken_too() {
    let mut relay = Relay::with(Setup {
        ports: 50_000..=50_000,
        ..with_alternates()
    });
    Client::new("192.0.2.1:4000").allocate(&mut relay);
    let mut second = Client::new("192.0.2.1:4001");
    assert_eq!(second.try_allocate(&mut relay, &[]).code(), 300);
    // A reserved port can be nowhere else.
    let token = ReservationToken::new(7);
    assert_eq!(second.try_allocate(&mut relay, &[&token]).code(), 508);
}

#[test]
fn whoever_has_no_credential_hears_of_no_alternate() {
    let mut relay = Relay::with(full());
    Client::new("192.0.2.1:4000").allocate(&mut relay);
    let mut stranger = Client::named("192.0.2.1:4001", "alice", "wrong");
    stranger.nonce = Some("none".into());
    let request = stranger.signed(turn_types::message::ALLOCATE, &[]);
    let answer = stranger.exchange(&mut relay, &request);
    assert_eq!(answer.code(), 401);
    assert!(answer.get::<AlternateServer>().is_none());
}

#[test]
fn a_drain_sends_new_ones_away_and_leaves_the_others_in_peace() {
    let mut relay = Relay::with(with_alternates());
    let mut client = Client::new("192.0.2.1:4000");
    client.transaction = Some(TransactionId::generate());
    let relayed = client.allocate(&mut relay);
    let ends = relay.now.instant + Duration::from_secs(30);
    relay.server.set_draining(Some(ends));
    // A retransmission is not a new one.
    assert_eq!(client.allocate(&mut relay), relayed);
    client.transaction = None;
    let lifetime = Lifetime::new(600);
    assert_eq!(client.request(&mut relay, REFRESH, &[&lifetime]).code(), 0);
    assert_eq!(client.permit(&mut relay, &["10.0.0.5:7"]), 0);
    let mut other = Client::new("192.0.2.1:4001");
    assert_eq!(other.try_allocate(&mut relay, &[]).code(), 300);
    let mut config = relay.config.clone();
    config.extensions.alternates.clear();
    relay.server.replace_config(relay.now.instant, config);
    assert_eq!(other.try_allocate(&mut relay, &[]).code(), 508);
    relay.server.set_draining(None);
    assert_eq!(other.try_allocate(&mut relay, &[]).code(), 0);
}
