//! RFC 8656 section 7.2: Allocate requests.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Answer, Client, Relay, Setup, addr};
use std::collections::BTreeSet;
use stun_types::attribute::{
    AttributeFromRaw, AttributeType, AttributeWrite, RawAttribute, Software, UnknownAttributes,
    XorMappedAddress,
};
use stun_types::message::TransactionId;
use turn_relay_proto::Limits;
use turn_types::AddressFamily;
use turn_types::attribute::{
    AdditionalAddressFamily, AddressErrorCode, DontFragment, EvenPort, Lifetime,
    RequestedAddressFamily, RequestedTransport, ReservationToken,
};
use turn_types::message::ALLOCATE;

fn refused(attributes: &[&dyn AttributeWrite]) -> u16 {
    let mut relay = Relay::new();
    let code = Client::new("192.0.2.1:4000")
        .try_allocate(&mut relay, attributes)
        .code();
    assert_ne!(code, 0);
    assert_eq!(relay.stats().allocations, 0);
    assert_eq!(relay.stats().error_responses(code), 1);
    code
}

#[test]
fn an_allocation_has_a_relayed_address_a_lifetime_and_tells_the_mapped_address() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let answer = client.try_allocate(&mut relay, &[]);
    let [relayed] = answer.relayed()[..] else {
        panic!("one relayed address");
    };
    assert_eq!(relayed.ip().to_string(), "10.0.0.2");
    assert!((50_000..=50_999).contains(&relayed.port()));
    assert!(relay.open.contains_key(&relayed));
    assert_eq!(answer.get::<Lifetime>().unwrap().seconds(), 600);
    let mapped: XorMappedAddress = answer.get().unwrap();
    assert_eq!(
        mapped.addr(answer.message().transaction_id()),
        client.address
    );
    assert_eq!(answer.get::<Software>().unwrap().software(), "test");
    assert_eq!(relay.stats().allocations, 1);
    assert_eq!(relay.stats().allocations_created, 1);
}

#[test]
fn a_retransmission_gets_the_same_answer_and_another_request_437() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    client.transaction = Some(TransactionId::generate());
    let lifetime = Lifetime::new(1_000);
    let first = client.try_allocate(&mut relay, &[&lifetime]);
    let again = client.try_allocate(&mut relay, &[&lifetime]);
    assert_eq!(first.0, again.0);
    assert_eq!(relay.opened, 1);
    client.transaction = None;
    assert_eq!(client.try_allocate(&mut relay, &[]).code(), 437);
    let mut bob = Client::named("192.0.2.1:4000", "bob", "builder");
    assert_eq!(bob.try_allocate(&mut relay, &[]).code(), 437);
    assert_eq!(relay.stats().allocations, 1);
}

#[test]
fn a_lifetime_is_at_least_ten_minutes_and_at_most_an_hour() {
    for (asked, granted) in [(0, 600), (60, 600), (700, 700), (100_000, 3_600)] {
        let mut relay = Relay::new();
        let answer =
            Client::new("192.0.2.1:4000").try_allocate(&mut relay, &[&Lifetime::new(asked)]);
        assert_eq!(
            answer.get::<Lifetime>().unwrap().seconds(),
            granted,
            "{asked}"
        );
    }
}

#[test]
fn a_missing_or_malformed_transport_is_400_and_an_unknown_one_442() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    assert_eq!(client.request(&mut relay, ALLOCATE, &[]).code(), 400);
    let short = RawAttribute::new(AttributeType::new(0x0019), &[17]);
    assert_eq!(client.request(&mut relay, ALLOCATE, &[&short]).code(), 400);
    let sctp = RequestedTransport::new(132);
    assert_eq!(client.request(&mut relay, ALLOCATE, &[&sctp]).code(), 442);
}

#[test]
fn a_client_may_ask_whether_dont_fragment_is_honored() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let answer = client.try_allocate(&mut relay, &[&DontFragment::new()]);
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.relayed().len(), 1);
}

#[test]
fn an_unknown_attribute_that_must_be_understood_is_named_and_nothing_is_made() {
    let mut relay = Relay::new();
    let mut client = Client::new("192.0.2.1:4000");
    let unknown = RawAttribute::new(AttributeType::new(0x0033), b"");
    let answer = client.try_allocate(&mut relay, &[&unknown]);
    assert_eq!(answer.code(), 420);
    let unknown: UnknownAttributes = answer.get().unwrap();
    assert!(unknown.has_attribute(AttributeType::new(0x0033)));
    assert_eq!(relay.stats().allocations, 0);
}

#[test]
fn a_family_can_be_requested() {
    let mut relay = Relay::new();
    let v6 = RequestedAddressFamily::new(AddressFamily::IPV6);
    let answer = Client::new("192.0.2.1:4000").try_allocate(&mut relay, &[&v6]);
    assert_eq!(answer.relayed().len(), 1);
    assert_eq!(answer.relayed()[0].ip().to_string(), "fd00:10::2");
}

#[test]
fn a_family_that_is_not_there_is_440() {
    let mut relay = Relay::with(Setup {
        relay_addresses: vec!["fd00:10::2"],
        ..Setup::default()
    });
    let mut client = Client::new("192.0.2.1:4000");
    assert_eq!(client.try_allocate(&mut relay, &[]).code(), 440);
    let unknown = RawAttribute::new(AttributeType::new(0x0017), &[9, 0, 0, 0]);
    assert_eq!(client.try_allocate(&mut relay, &[&unknown]).code(), 440);
}

#[test]
fn one_allocation_can_have_both_families() {
    let mut relay = Relay::new();
    let both = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let answer = Client::new("192.0.2.1:4000").try_allocate(&mut relay, &[&both]);
    let families: Vec<_> = answer.relayed().iter().map(|a| a.is_ipv4()).collect();
    assert_eq!(families, [true, false]);
    assert_eq!(relay.open.len(), 2);
    assert_eq!(relay.stats().allocations, 1);
}

#[test]
fn both_families_can_be_asked_for_with_the_number_of_the_draft() {
    let mut relay = Relay::new();
    let both = RawAttribute::new(AttributeType::new(0x8032), &[2, 0, 0, 0]);
    let answer = Client::new("192.0.2.1:4000").try_allocate(&mut relay, &[&both]);
    assert_eq!(answer.relayed().len(), 2);
}

#[test]
fn an_additional_family_that_is_not_there_is_named_and_the_other_one_given() {
    let mut relay = Relay::with(Setup {
        relay_addresses: vec!["10.0.0.2"],
        advertised: vec!["10.0.0.2"],
        ..Setup::default()
    });
    let both = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let answer = Client::new("192.0.2.1:4000").try_allocate(&mut relay, &[&both]);
    assert_eq!(answer.code(), 0);
    assert_eq!(answer.relayed().len(), 1);
    let message = answer.message();
    let raw = message.raw_attribute(AttributeType::new(0x8001)).unwrap();
    assert_eq!(raw.value[..4], [2, 0, 4, 40]);
    // The crate reads its own.
    let _ = AddressErrorCode::from_raw_ref(&raw);
}

#[test]
fn contradictions_are_bad_requests() {
    let v6 = RequestedAddressFamily::new(AddressFamily::IPV6);
    let additional = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let additional_v4 = RawAttribute::new(AttributeType::new(0x8000), &[1, 0, 0, 0]);
    let token = ReservationToken::new(7);
    let (even, pair) = (EvenPort::new(false), EvenPort::new(true));
    assert_eq!(refused(&[&v6, &additional]), 400);
    assert_eq!(refused(&[&additional_v4]), 400);
    assert_eq!(refused(&[&token, &even]), 400);
    assert_eq!(refused(&[&token, &v6]), 400);
    assert_eq!(refused(&[&token, &additional]), 400);
    assert_eq!(refused(&[&pair, &additional]), 400);
}

fn port(answer: &Answer) -> u16 {
    assert_eq!(answer.code(), 0);
    answer.relayed()[0].port()
}

#[test]
fn an_even_port_and_the_next_one_can_be_had() {
    let mut relay = Relay::new();
    let mut first = Client::new("192.0.2.1:4000");
    let answer = first.try_allocate(&mut relay, &[&EvenPort::new(true)]);
    let even = port(&answer);
    assert!(even.is_multiple_of(2));
    let token: ReservationToken = answer.get().unwrap();
    let mut second = Client::new("192.0.2.1:4001");
    let answer = second.try_allocate(&mut relay, &[&ReservationToken::new(token.token())]);
    assert_eq!(port(&answer), even + 1);
    let mut third = Client::new("192.0.2.1:4002");
    let answer = third.try_allocate(&mut relay, &[&ReservationToken::new(token.token())]);
    assert_eq!(answer.code(), 508);
    let answer = third.try_allocate(&mut relay, &[&EvenPort::new(false)]);
    assert!(port(&answer).is_multiple_of(2));
    assert!(answer.get::<ReservationToken>().is_none());
}

#[test]
fn a_reservation_ends_after_half_a_minute_and_its_port_comes_back() {
    let mut relay = Relay::with(Setup {
        ports: 50_000..=50_001,
        ..Setup::default()
    });
    let mut first = Client::new("192.0.2.1:4000");
    let answer = first.try_allocate(&mut relay, &[&EvenPort::new(true)]);
    let token: ReservationToken = answer.get().unwrap();
    let mut second = Client::new("192.0.2.1:4001");
    assert_eq!(second.try_allocate(&mut relay, &[]).code(), 508);
    relay.pass(31);
    let answer = second.try_allocate(&mut relay, &[&ReservationToken::new(token.token())]);
    assert_eq!(answer.code(), 508);
    assert_eq!(second.try_allocate(&mut relay, &[]).code(), 0);
}

#[test]
fn a_port_that_another_program_has_is_passed_over() {
    let mut relay = Relay::with(Setup {
        ports: 50_000..=50_007,
        ..Setup::default()
    });
    relay.busy = (50_000..=50_006).collect();
    let mut client = Client::new("192.0.2.1:4000");
    assert_eq!(port(&client.try_allocate(&mut relay, &[])), 50_007);
    relay.busy.insert(50_007);
    let mut other = Client::new("192.0.2.1:4001");
    assert_eq!(other.try_allocate(&mut relay, &[]).code(), 508);
    assert_eq!(relay.stats().allocations, 1);
    assert_eq!(relay.open.len(), 1);
    // Nothing is left of it: it can try again.
    relay.busy.clear();
    assert_eq!(other.try_allocate(&mut relay, &[]).code(), 0);
}

#[test]
fn ports_are_not_in_order_and_508_when_all_are_taken() {
    let mut relay = Relay::with(Setup {
        ports: 50_000..=50_019,
        ..Setup::default()
    });
    let ports: Vec<u16> = (0..20)
        .map(|n| {
            Client::new(&format!("192.0.2.1:{}", 4000 + n))
                .allocate(&mut relay)
                .port()
        })
        .collect();
    assert!(!ports.is_sorted());
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 20);
    let mut late = Client::new("192.0.2.1:5000");
    assert_eq!(late.try_allocate(&mut relay, &[]).code(), 508);
    relay.pass(601);
    assert_eq!(relay.stats().allocations, 0);
    late.nonce = None;
    assert_eq!(late.try_allocate(&mut relay, &[]).code(), 0);
}

#[test]
fn a_user_has_a_quota_and_others_have_theirs() {
    let mut relay = Relay::with(Setup {
        per_user: 2,
        ..Setup::default()
    });
    for port in [4000, 4001] {
        Client::new(&format!("192.0.2.1:{port}")).allocate(&mut relay);
    }
    let mut third = Client::new("192.0.2.1:4002");
    assert_eq!(third.try_allocate(&mut relay, &[]).code(), 486);
    Client::named("192.0.2.1:4003", "bob", "builder").allocate(&mut relay);
    relay.pass(601);
    third.nonce = None;
    assert_eq!(third.try_allocate(&mut relay, &[]).code(), 0);
}

#[test]
fn beyond_its_own_bound_the_server_says_508() {
    let mut relay = Relay::with(Setup {
        limits: Limits {
            allocations: 1,
            ..Limits::default()
        },
        ..Setup::default()
    });
    Client::new("192.0.2.1:4000").allocate(&mut relay);
    let answer = Client::new("192.0.2.1:4001").try_allocate(&mut relay, &[]);
    assert_eq!(answer.code(), 508);
}

#[test]
fn behind_a_nat_the_external_address_is_told() {
    let mut relay = Relay::with(Setup {
        advertised: vec!["198.51.100.7", "2001:db8::7"],
        ..Setup::default()
    });
    let relayed = Client::new("192.0.2.1:4000").allocate(&mut relay);
    assert_eq!(relayed.ip(), addr("198.51.100.7:1").ip());
    let bound = relay.open.keys().next().unwrap();
    assert_eq!(bound.to_string(), format!("10.0.0.2:{}", relayed.port()));
}
