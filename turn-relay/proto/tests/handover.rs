//! A successor goes on where another left off; what no relay wrote is refused.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Outcome, Relay, Setup, addr};
use proptest::prelude::*;
use std::collections::BTreeMap;
use turn_relay_proto::Imported;
use turn_types::attribute::{EvenPort, Lifetime, RequestedAddressFamily, ReservationToken};
use turn_types::message::REFRESH;
use turn_types::{AddressFamily, attribute::AdditionalAddressFamily};

/// A process more, with what the other had; its sockets, too.
fn succeed(old: &mut Relay, setup: Setup) -> (Relay, Imported) {
    let exported = old.server.export(old.now.instant);
    let mut new = Relay::with(setup);
    // Each has a clock of its own, and the same date.
    new.now.unix = old.now.unix;
    let imported = new
        .server
        .import(&exported.state, new.now.instant, |_| true)
        .unwrap();
    for adopted in &imported.relays {
        let was = exported.relays[adopted.position];
        assert_eq!(old.open[&adopted.address], was, "the same socket");
        new.open.insert(adopted.address, adopted.relay);
    }
    (new, imported)
}

#[test]
fn allocations_permissions_channels_and_their_times_go_on() {
    let mut old = Relay::new();
    let mut alice = Client::new("192.0.2.1:4000");
    let mut bob = Client::named("192.0.2.2:4000", "bob", "builder");
    let relayed = alice.allocate(&mut old);
    old.pass(100);
    bob.allocate(&mut old);
    alice.bind(&mut old, 0x4001, "10.0.0.5:9000");
    alice.permit(&mut old, &["10.0.0.6:1"]);
    old.pass(200);
    let (mut new, imported) = succeed(&mut old, Setup::default());
    assert_eq!((imported.allocations, imported.left_out), (2, 0));
    let stats = new.stats();
    assert_eq!(
        (stats.allocations, stats.permissions, stats.channels),
        (2, 2, 1)
    );

    let to_peer = alice.sends_channel_data(&mut new, 0x4001, b"there");
    assert_eq!(
        to_peer,
        Outcome::ToPeer {
            from: relayed,
            peer: addr("10.0.0.5:9000"),
            payload: b"there".to_vec()
        }
    );
    let back = new.peer_sends("10.0.0.5:9000", relayed, b"back");
    assert!(matches!(back, Outcome::ToClient { .. }), "{back:?}");
    let back = new.peer_sends("10.0.0.6:77", relayed, b"back");
    assert!(matches!(back, Outcome::ToClient { .. }), "{back:?}");
    // The permissions are 200 s old, the channel as well.
    new.pass(100);
    assert_eq!(
        new.peer_sends("10.0.0.6:77", relayed, b"late"),
        Outcome::Dropped(turn_relay_proto::DropReason::NoPermission)
    );
    // Nobody but the owner, and with the nonce of before.
    let nonce = alice.nonce.clone();
    assert_eq!(alice.request(&mut new, REFRESH, &[]).code(), 0);
    assert_eq!(alice.nonce, nonce, "it was not asked for again");
    let mut thief = Client::named("192.0.2.1:4000", "bob", "builder");
    assert_eq!(thief.request(&mut new, REFRESH, &[]).code(), 441);
    // Bob's was made 100 s after alice's.
    new.pass(300);
    assert_eq!(new.stats().allocations, 1);
}

#[test]
fn a_retransmitted_allocate_gets_the_same_answer_from_the_successor() {
    let mut old = Relay::new();
    let mut alice = Client::new("192.0.2.1:4000");
    alice.allocate(&mut old);
    let both = AdditionalAddressFamily::new(AddressFamily::IPV6);
    let mut carol = Client::named("192.0.2.3:4000", "bob", "builder");
    carol.nonce.clone_from(&alice.nonce);
    carol.nonce = None;
    let answer = carol.try_allocate(&mut old, &[&both]);
    assert_eq!(answer.code(), 0);
    let (mut new, imported) = succeed(&mut old, Setup::default());
    assert_eq!(imported.relays.len(), 3);
    assert_eq!(new.stats().allocations, 2);
    let six = RequestedAddressFamily::new(AddressFamily::IPV6);
    let end = carol.request(&mut new, REFRESH, &[&six, &Lifetime::new(0)]);
    assert_eq!(end.code(), 0);
    assert_eq!(new.open.len(), 2);
}

#[test]
fn ports_in_use_reserved_and_at_rest_are_not_given_away() {
    let small = || Setup {
        ports: 50_000..=50_007,
        relay_addresses: vec!["10.0.0.2"],
        advertised: vec!["10.0.0.2"],
        ..Setup::default()
    };
    let mut old = Relay::with(small());
    let mut pair = Client::new("192.0.2.1:4000");
    let answer = pair.try_allocate(&mut old, &[&EvenPort::new(true)]);
    let even = answer.relayed()[0];
    let token = answer.get::<ReservationToken>().unwrap().token();
    let mut gone = Client::new("192.0.2.2:4000");
    let resting = gone.allocate(&mut old);
    gone.request(&mut old, REFRESH, &[&Lifetime::new(0)]);
    let (mut new, _) = succeed(&mut old, small());
    let mut seen = vec![
        even,
        addr(&format!("10.0.0.2:{}", even.port() + 1)),
        resting,
    ];
    for client in 0..5 {
        let relayed = Client::new(&format!("192.0.2.9:{}", 5_000 + client)).allocate(&mut new);
        assert!(!seen.contains(&relayed));
        seen.push(relayed);
    }
    let mut second = Client::new("192.0.2.1:4001");
    let answer = second.try_allocate(&mut new, &[&ReservationToken::new(token)]);
    assert_eq!(answer.relayed()[0].port(), even.port() + 1);
    // The last one left is the one at rest, and what ends rests here, too.
    let last = Client::new("192.0.2.9:6000").allocate(&mut new);
    assert_eq!(last, resting);
    new.pass(600);
    assert_eq!(new.stats().allocations, 0);
    new.pass(121);
    for client in 0..8 {
        Client::new(&format!("192.0.2.9:{}", 7_000 + client)).allocate(&mut new);
    }
}

#[test]
fn a_port_that_rested_long_ago_does_not_keep_a_successor_from_starting() {
    let mut old = Relay::new();
    let mut alice = Client::new("192.0.2.1:4000");
    alice.allocate(&mut old);
    let gone = alice.request(&mut old, REFRESH, &[&Lifetime::new(0)]);
    assert_eq!(gone.code(), 0);
    old.pass(3 * 24 * 3_600);
    let (_, imported) = succeed(&mut old, Setup::default());
    assert_eq!((imported.allocations, imported.left_out), (0, 0));
}

#[test]
fn a_successor_with_another_configuration_takes_what_fits() {
    let mut old = Relay::new();
    let mut four = Client::new("192.0.2.1:4000");
    let mut six = Client::new("192.0.2.2:4000");
    four.allocate(&mut old);
    let family = RequestedAddressFamily::new(AddressFamily::IPV6);
    assert_eq!(six.try_allocate(&mut old, &[&family]).code(), 0);
    let other = Setup {
        relay_addresses: vec!["10.0.0.3", "10.0.0.2"],
        advertised: vec!["10.0.0.3", "198.51.100.2"],
        ports: 60_000..=60_009,
        per_user: 0,
        ..Setup::default()
    };
    let (mut new, imported) = succeed(&mut old, other);
    assert_eq!((imported.allocations, imported.left_out), (1, 1));
    assert_eq!(four.request(&mut new, REFRESH, &[]).code(), 0);
    assert_eq!(six.request(&mut new, REFRESH, &[]).code(), 437);
    // A port beyond the range does not come into it.
    new.pass(800);
    assert_eq!(new.stats().allocations, 0);
}

#[test]
fn allocations_on_networks_keep_their_addresses() {
    let networks = || Setup {
        networks: vec!["10.9.0.0/24", "fd00:9::/112"],
        ..Setup::default()
    };
    let mut old = Relay::with(networks());
    let mut seen = BTreeMap::new();
    for client in 0..20 {
        let mut client = Client::new(&format!("192.0.2.1:{}", 4_000 + client));
        let both = AdditionalAddressFamily::new(AddressFamily::IPV6);
        let relayed = client.try_allocate(&mut old, &[&both]).relayed();
        seen.insert(relayed[0], relayed[1]);
    }
    let (mut new, imported) = succeed(&mut old, networks());
    assert_eq!(imported.allocations, 20);
    let addresses: Vec<_> = imported.relays.iter().map(|r| r.address).collect();
    for (four, six) in &seen {
        assert!(addresses.contains(four) && addresses.contains(six));
    }
    let next = Client::new("192.0.2.1:5000").allocate(&mut new);
    assert!(!seen.contains_key(&next));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever clients did: a second hand-over writes what the first wrote.
    #[test]
    fn what_is_imported_is_exported_again(
        steps in prop::collection::vec((0u16..6, 0u8..5, 0u16..4, 0u64..200), 1..40),
    ) {
        let mut old = Relay::new();
        let mut clients: Vec<_> = (0..6).map(|n| Client::new(&format!("192.0.2.1:{}", 4_000 + n))).collect();
        for (who, what, which, wait) in steps {
            let client = &mut clients[usize::from(who)];
            let peer = format!("10.0.0.{}:{}", 5 + which % 2, 9_000 + which);
            match what {
                0 => drop(client.try_allocate(&mut old, &[])),
                1 => drop(client.try_allocate(&mut old, &[&EvenPort::new(true)])),
                2 => drop(client.permit(&mut old, &[&peer])),
                3 => drop(client.bind(&mut old, 0x4000 + which, &peer)),
                _ => drop(client.request(&mut old, REFRESH, &[&Lifetime::new(u32::from(which) * 300)])),
            }
            old.pass(wait);
            client.nonce = None;
        }
        let first = old.server.export(old.now.instant);
        let (new, imported) = succeed(&mut old, Setup::default());
        prop_assert_eq!(imported.left_out, 0);
        prop_assert_eq!(imported.relays.len(), first.relays.len());
        let second = new.server.export(new.now.instant);
        // In any order: maps have none.
        let sorted = |mut bytes: Vec<u8>| { bytes.sort_unstable(); bytes };
        prop_assert_eq!(sorted(first.state), sorted(second.state));
        let (a, b) = (old.stats(), new.stats());
        prop_assert_eq!((a.allocations, a.permissions, a.channels), (b.allocations, b.permissions, b.channels));
        prop_assert_eq!(old.open.len(), new.open.len());
    }

    /// Damaged, or never written by a relay: refused as a whole, or all of it is sound.
    #[test]
    fn garbage_is_refused_or_sound(
        garbage in prop::collection::vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        bits in 1u8..,
    ) {
        let mut old = Relay::new();
        for client in 0..4 {
            let mut client = Client::new(&format!("192.0.2.1:{}", 4_000 + client));
            client.allocate(&mut old);
            client.bind(&mut old, 0x4001, "10.0.0.5:9000");
        }
        let good = old.server.export(old.now.instant).state;
        let mut flipped = good.clone();
        flipped[flip.index(good.len())] ^= bits;
        for bytes in [&garbage[..], &good[..cut.index(good.len())], &flipped] {
            let mut new = Relay::new();
            match new.server.import(bytes, new.now.instant, |_| true) {
                Ok(imported) => {
                    prop_assert!(imported.allocations <= 4);
                    prop_assert_eq!(new.stats().allocations, imported.allocations as u64);
                    for adopted in &imported.relays {
                        new.open.insert(adopted.address, adopted.relay);
                    }
                    // It lives, and ends.
                    new.pass(2 * 86_400);
                    prop_assert_eq!(new.stats().allocations, 0);
                    prop_assert_eq!((new.stats().permissions, new.stats().channels), (0, 0));
                }
                Err(_) => prop_assert_eq!(new.stats().allocations, 0),
            }
        }
    }
}
