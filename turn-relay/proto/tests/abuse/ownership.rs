//! By users, against each other and against the relay.

use crate::Row;
use crate::common::{Client, Outcome, Relay, Setup};
use std::collections::BTreeSet;
use turn_relay_proto::{DropReason, UsageLimits};
use turn_types::attribute::{EvenPort, Lifetime};
use turn_types::message::{ALLOCATE, REFRESH};

pub(crate) const ROWS: &[Row] = &[
    (
        "pion f80c90e, 7a0272f: the user was not checked on an allocation that exists",
        "441 on every request but the owner's",
        || {
            let mut relay = Relay::new();
            let mut alice = Client::new("192.0.2.1:4000");
            alice.allocate(&mut relay);
            let mut bob = Client::named("192.0.2.1:4000", "bob", "builder");
            bob.nonce = alice.nonce.clone();
            assert_eq!(bob.permit(&mut relay, &["10.0.0.5:7"]), 441);
            assert_eq!(bob.bind(&mut relay, 0x4000, "10.0.0.5:7"), 441);
            let ending = bob.request(&mut relay, REFRESH, &[&Lifetime::new(0)]);
            assert_eq!(ending.code(), 441);
            assert_ne!(bob.try_allocate(&mut relay, &[]).code(), 0);
            assert_eq!(relay.stats().allocations, 1);
        },
    ),
    (
        "CVE-2025-69217 (coturn): ports and nonces from a weak generator",
        "ports, tokens and transactions depend on a secret, and nonces on the client",
        || {
            let ports = |seed: usize| -> Vec<u16> {
                let mut relay = Relay::shards(seed + 1, Setup::default()).remove(seed);
                (0..20)
                    .map(|n| {
                        let mut client = Client::new(&format!("192.0.2.1:{}", 4_000 + n));
                        client.allocate(&mut relay).port()
                    })
                    .collect()
            };
            let (one, other) = (ports(0), ports(1));
            assert_ne!(one, other);
            let steps: BTreeSet<_> = one
                .windows(2)
                .map(|two| two[1].wrapping_sub(two[0]))
                .collect();
            assert!(steps.len() > 15, "{one:?}");
        },
    ),
    (
        "CVE-2020-4067, coturn#1984: bytes of others in the padding",
        "padding is zero",
        || {
            let mut relay = Relay::new();
            let mut client = Client::new("192.0.2.1:4000");
            let relayed = client.allocate(&mut relay);
            client.permit(&mut relay, &["10.0.0.5:7"]);
            for len in 0..=8usize {
                let Outcome::ToClient { bytes, .. } =
                    relay.peer_sends("10.0.0.5:7", relayed, &vec![0xFF; len])
                else {
                    panic!("not relayed");
                };
                assert!(bytes.len().is_multiple_of(4));
                assert!(bytes.len() >= 36 + len);
                assert!(bytes[36 + len..].iter().all(|byte| *byte == 0));
            }
        },
    ),
    (
        "coturn 4adbd82e: EVEN-PORT without reservation lost a port each time",
        "what was taken is given back, whatever was asked for",
        || {
            let mut relay = Relay::with(Setup {
                ports: 50_000..=50_003,
                ..Setup::default()
            });
            for round in 0..50 {
                let even = EvenPort::new(round % 2 == 1);
                let mut client = Client::new(&format!("192.0.2.1:{}", 4_000 + round));
                let answer = client.try_allocate(&mut relay, &[&even]);
                assert_eq!(answer.code(), 0, "round {round}");
                client.request(&mut relay, REFRESH, &[&Lifetime::new(0)]);
                // A reserved port is kept for half a minute, and both rest.
                relay.pass(200);
            }
            let mut clients: Vec<_> = (0..4)
                .map(|n| Client::new(&format!("192.0.2.2:{}", 4_000 + n)))
                .collect();
            let codes = clients
                .iter_mut()
                .map(|client| client.try_allocate(&mut relay, &[]).code());
            assert_eq!(codes.collect::<Vec<_>>(), [0; 4]);
        },
    ),
    (
        "coturn 3c5b2615, a97f1924: a quota that was given back too early",
        "the quota follows the allocation, to its end and no further",
        || {
            let mut relay = Relay::with(Setup {
                per_user: 2,
                ..Setup::default()
            });
            let mut clients: Vec<_> = (0..3)
                .map(|n| Client::new(&format!("192.0.2.1:{}", 4_000 + n)))
                .collect();
            let code =
                |relay: &mut Relay, client: &mut Client| client.try_allocate(relay, &[]).code();
            assert_eq!(code(&mut relay, &mut clients[0]), 0);
            assert_eq!(code(&mut relay, &mut clients[1]), 0);
            assert_eq!(code(&mut relay, &mut clients[2]), 486);
            // Ending one twice gives one back, not two.
            let end = |relay: &mut Relay, client: &mut Client| {
                client.request(relay, REFRESH, &[&Lifetime::new(0)]).code()
            };
            assert_eq!(end(&mut relay, &mut clients[0]), 0);
            assert_eq!(end(&mut relay, &mut clients[0]), 437);
            assert_eq!(code(&mut relay, &mut clients[2]), 0);
            assert_eq!(code(&mut relay, &mut clients[0]), 486);
            relay.pass(3_600);
            clients.iter_mut().for_each(|client| client.nonce = None);
            assert_eq!(code(&mut relay, &mut clients[0]), 0);
        },
    ),
    (
        "many user names, one relay: nobody counts them together",
        "all users together have a bound, too",
        || {
            let mut relay = Relay::with(Setup {
                usage: UsageLimits {
                    allocations: 2,
                    ..UsageLimits::default()
                },
                ..Setup::default()
            });
            Client::new("192.0.2.1:4000").allocate(&mut relay);
            Client::named("192.0.2.1:4001", "bob", "builder").allocate(&mut relay);
            let mut third = Client::named("192.0.2.1:4002", "bob", "builder");
            assert_eq!(third.try_allocate(&mut relay, &[]).code(), 508);
        },
    ),
    (
        "turn-rs: LIFETIME of an Allocate was taken as it came",
        "an hour at most",
        || {
            let mut relay = Relay::new();
            let mut client = Client::new("192.0.2.1:4000");
            let answer = client.try_allocate(&mut relay, &[&Lifetime::new(u32::MAX)]);
            assert_eq!(answer.get::<Lifetime>().unwrap().seconds(), 3_600);
            relay.pass(3_600);
            assert_eq!(relay.stats().allocations, 0);
        },
    ),
    (
        "one user's bulk takes the relay from all others (rtcsec 2026: denial of service)",
        "a user has a rate, in each direction",
        || {
            let mut relay = Relay::with(Setup {
                usage: UsageLimits {
                    user_rate: 1_000_000,
                    ..UsageLimits::default()
                },
                ..Setup::default()
            });
            let mut alice = Client::new("192.0.2.1:4000");
            let relayed = alice.allocate(&mut relay);
            alice.bind(&mut relay, 0x4000, "10.0.0.5:7");
            let mut bob = Client::named("192.0.2.2:4000", "bob", "builder");
            bob.allocate(&mut relay);
            bob.bind(&mut relay, 0x4000, "10.0.0.5:7");
            let sent = |relay: &mut Relay, client: &Client| {
                let over = Outcome::Dropped(DropReason::OverBandwidth);
                (0..200)
                    .filter(|_| client.sends_channel_data(relay, 0x4000, &[0; 1_000]) != over)
                    .count()
            };
            // A tenth of a second's worth at once.
            assert_eq!(sent(&mut relay, &alice), 100);
            assert_eq!(sent(&mut relay, &alice), 0);
            assert_eq!(sent(&mut relay, &bob), 100);
            let over = Outcome::Dropped(DropReason::OverBandwidth);
            let heard = (0..200)
                .filter(|_| relay.peer_sends("10.0.0.5:7", relayed, &[0; 1_000]) != over)
                .count();
            assert_eq!(heard, 100);
            relay.pass(1);
            assert_eq!(sent(&mut relay, &alice), 100);
            assert_eq!(
                relay.stats().dropped(DropReason::OverBandwidth),
                100 + 200 + 100 + 100 + 100
            );
        },
    ),
    (
        "a retransmitted Allocate made a second allocation",
        "the same transaction is the same allocation, and another one is refused",
        || {
            let mut relay = Relay::new();
            let mut client = Client::new("192.0.2.1:4000");
            let relayed = client.allocate(&mut relay);
            assert_eq!(client.try_allocate(&mut relay, &[]).code(), 437);
            let mut again = client.clone();
            again.transaction = Some(stun_types::message::TransactionId::generate());
            let udp = turn_types::attribute::RequestedTransport::new(17);
            let request = again.signed(ALLOCATE, &[&udp]);
            assert_eq!(client.exchange(&mut relay, &request).code(), 437);
            assert_eq!(relay.open.len(), 1);
            assert!(relay.open.contains_key(&relayed));
        },
    ),
];
