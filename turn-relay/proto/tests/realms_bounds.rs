//! What users of several realms may use, and that it is told whose it was.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/realms.rs"]
mod tenants;

use common::{Client, Outcome, REALM, Relay, Setup};
use std::time::Duration;
use tenants::{EAST, EASTERN_PEER, PEER, east, eastern_alice, of_east, setup, with_nonce};
use turn_relay_proto::{RelayLimits, UsageLimits};
use turn_types::attribute::Lifetime;
use turn_types::message::REFRESH;

#[test]
fn quotas_are_each_realms_and_the_relays() {
    let mut relay = Relay::with(Setup {
        per_user: 1,
        usage: UsageLimits {
            allocations: 2,
            ..UsageLimits::default()
        },
        ..setup()
    });
    let shared = relay.config.shared.clone();
    let code = |relay: &mut Relay, client: Client| {
        let mut client = with_nonce(relay, client);
        client.try_allocate(relay, &[]).code()
    };
    let at = |port: u16| format!("192.0.2.1:{port}");
    assert_eq!(code(&mut relay, Client::new(&at(1))), 0);
    assert_eq!(code(&mut relay, Client::new(&at(2))), 486);
    // The other alice has a count of her own.
    for port in 3..6 {
        assert_eq!(code(&mut relay, eastern_alice(&at(port))), 0);
    }
    assert_eq!(code(&mut relay, Client::named(&at(6), "bob", "builder")), 0);
    let minted = "1900000000:dave";
    let password = turn_relay_proto::rest_password(b"first secret", minted);
    assert_eq!(
        code(&mut relay, Client::named(&at(7), minted, &password)),
        508
    );
    shared.set_limits_of(
        EAST,
        UsageLimits {
            allocations_per_user: 4,
            allocations: 5,
            ..UsageLimits::default()
        },
    );
    assert_eq!(code(&mut relay, eastern_alice(&at(8))), 0);
    assert_eq!(code(&mut relay, eastern_alice(&at(9))), 486);
    // And there is a bound of all.
    shared.set_relay_limits(RelayLimits {
        allocations: 6,
        rate: 0,
    });
    let carol = || of_east("192.0.2.1:10", "carol", "christmas");
    assert_eq!(code(&mut relay, carol()), 508);
    let mut alice = with_nonce(&mut relay, Client::new(&at(1)));
    alice.request(&mut relay, REFRESH, &[&Lifetime::new(0)]);
    assert_eq!(code(&mut relay, carol()), 0);
    let held: Vec<_> = shared.realms().iter().map(|r| r.allocations).collect();
    assert_eq!(held, [1, 5]);
}

/// Packets of 1000 bytes that pass in a second, offered by each of these clients ten times as many as 100 kB/s are.
fn passed(relay: &mut Relay, clients: &[(&Client, u16)]) -> Vec<u32> {
    let mut passed = vec![0; clients.len()];
    for millisecond in 0..3_000 {
        relay.now.instant += Duration::from_millis(1);
        for (turn, count) in passed.iter_mut().enumerate() {
            let (client, channel) = clients[turn];
            let sent = client.sends_channel_data(relay, channel, &[0; 1_000]);
            // The first seconds are for settling.
            if matches!(sent, Outcome::ToPeer { .. }) && millisecond >= 2_000 {
                *count += 1;
            }
        }
    }
    passed
}

#[test]
fn bandwidth_is_each_users_each_realms_and_the_relays_and_shared_evenly() {
    let mut relay = Relay::with(setup());
    let shared = relay.config.shared.clone();
    let mut alice = Client::new("192.0.2.1:4000");
    let mut bob = Client::named("192.0.2.1:4001", "bob", "builder");
    let mut others = [
        eastern_alice("192.0.2.1:4002"),
        of_east("192.0.2.1:4003", "carol", "christmas"),
    ];
    for client in [&mut alice, &mut bob] {
        client.allocate(&mut relay);
        assert_eq!(client.bind(&mut relay, 0x4001, PEER), 0);
    }
    for client in &mut others {
        *client = with_nonce(&mut relay, client.clone());
        client.allocate(&mut relay);
        assert_eq!(client.bind(&mut relay, 0x4001, EASTERN_PEER), 0);
    }
    let all = [&alice, &bob, &others[0], &others[1]].map(|client| (client, 0x4001));
    let rate = |total_rate: u64, user_rate: u64| UsageLimits {
        user_rate,
        total_rate,
        ..UsageLimits::default()
    };
    let near = |count: u32, of: u32| count * 10 >= of * 8 && count * 10 <= of * 12;
    // The realm's: its users share it evenly, and the other realm knows nothing of it.
    shared.set_limits_of(EAST, rate(100_000, 0));
    let [a, b, c, d] = passed(&mut relay, &all)[..] else {
        panic!("four clients");
    };
    assert_eq!((a, b), (1_000, 1_000));
    assert!(near(c, 50) && near(d, 50), "{c} {d}");
    // A user's own, within it: the same name in the other realm has none.
    shared.set_limits_of(EAST, rate(0, 30_000));
    let [a, _, c, d] = passed(&mut relay, &all)[..] else {
        panic!("four clients");
    };
    assert_eq!(a, 1_000);
    assert!(near(c, 30) && near(d, 30), "{c} {d}");
    // The relay's: evenly among the users of all realms.
    shared.set_limits_of(EAST, rate(0, 0));
    shared.set_relay_limits(RelayLimits {
        rate: 200_000,
        ..RelayLimits::default()
    });
    let each = passed(&mut relay, &all);
    assert!(each.iter().all(|count| near(*count, 50)), "{each:?}");
    // A realm that may have less of it leaves the rest to the others.
    shared.set_limits_of(EAST, rate(40_000, 0));
    let [a, b, c, d] = passed(&mut relay, &all)[..] else {
        panic!("four clients");
    };
    assert!(near(a, 80) && near(b, 80), "{a} {b}");
    assert!(near(c, 20) && near(d, 20), "{c} {d}");
}

#[test]
fn lifetimes_are_bounded_by_the_realm() {
    let mut relay = Relay::with(Setup {
        others: |shared| {
            let mut realm = east(shared);
            realm.max_lifetime = Some(Duration::from_secs(900));
            vec![realm]
        },
        ..setup()
    });
    let granted = |answer: common::Answer| answer.get::<Lifetime>().unwrap().seconds();
    let long = Lifetime::new(3_000);
    let mut western = Client::new("192.0.2.1:4000");
    assert_eq!(granted(western.try_allocate(&mut relay, &[&long])), 3_000);
    let mut eastern = with_nonce(&mut relay, eastern_alice("192.0.2.1:4001"));
    assert_eq!(granted(eastern.try_allocate(&mut relay, &[&long])), 900);
    assert_eq!(granted(eastern.request(&mut relay, REFRESH, &[&long])), 900);
}

#[test]
fn usage_is_told_by_realm() {
    let mut relay = Relay::with(setup());
    let mut western = Client::new("192.0.2.1:4000");
    western.allocate(&mut relay);
    western.bind(&mut relay, 0x4001, PEER);
    let mut eastern = with_nonce(&mut relay, eastern_alice("192.0.2.1:4001"));
    let relayed = eastern.allocate(&mut relay);
    eastern.bind(&mut relay, 0x4001, EASTERN_PEER);
    western.sends_channel_data(&mut relay, 0x4001, b"four");
    eastern.sends_channel_data(&mut relay, 0x4001, b"seven77");
    relay.peer_sends(EASTERN_PEER, relayed, b"back");
    let mut told = relay.server.take_usage(relay.now.instant);
    told.sort_by_key(|(user, _)| user.realm.clone());
    let bytes = |at: usize| {
        let (user, did) = &told[at];
        let usage = did.usage;
        (
            &*user.realm,
            &*user.name,
            usage.to_peer.bytes,
            usage.to_client.bytes,
        )
    };
    assert_eq!(bytes(0), (EAST, "alice", 7, 4));
    assert_eq!(bytes(1), (REALM, "alice", 4, 0));
    let names: Vec<_> = relay.config.shared.realms();
    let stats = relay.stats();
    let of = |name: &str| {
        let at = names.iter().position(|realm| *realm.name == *name).unwrap();
        (
            stats.realms[at].to_peer.bytes,
            stats.realms[at].to_client.bytes,
        )
    };
    assert_eq!((of(REALM), of(EAST)), ((4, 0), (7, 4)));
}
