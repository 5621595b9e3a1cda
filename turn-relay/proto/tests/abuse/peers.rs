//! Into the network behind the relay.

use crate::Row;
use crate::common::{Client, Outcome, Relay, Setup};
use turn_relay_proto::{Denied, DropReason, UsageLimits};

pub(crate) const ROWS: &[Row] = &[
    (
        "CVE-2020-26262 (coturn): peers 0.0.0.0, [::] and [::1]",
        "unspecified is loopback on Linux, and loopback is to be meant",
        || nobody_gets_to(&["0.0.0.0", "0.0.0.1", "::", "::1", "127.0.0.1"]),
    ),
    (
        "CVE-2026-27624 (coturn): ::ffff:127.0.0.1",
        "a mapped address is the IPv4 address",
        || nobody_gets_to(&["::ffff:127.0.0.1", "::ffff:10.1.0.1", "::ffff:0.0.0.0"]),
    ),
    (
        "coturn b057acbe: the test for ::1 came before that for mapped addresses",
        "no order of checks: an address is allowed with all that it stands for, or not",
        || {
            let mut relay = wide();
            let mut client = allocated(&mut relay);
            for spelling in ["[::ffff:127.0.0.1]:80", "[::127.0.0.1]:80", "[::1]:80"] {
                assert_eq!(client.permit(&mut relay, &[spelling]), 403);
                // Together with one that is allowed, in either order.
                assert_eq!(
                    client.permit(&mut relay, &["[2001:db8::1]:80", spelling]),
                    403
                );
                assert_eq!(
                    client.permit(&mut relay, &[spelling, "[2001:db8::1]:80"]),
                    403
                );
            }
        },
    ),
    (
        "coturn cf4b4952: ::a.b.c.d, 6to4 and NAT64 dodge IPv4 ranges",
        "every embedding",
        || {
            nobody_gets_to(&[
                "::10.1.0.1",
                "::ffff:0:10.1.0.1",
                "2002:a01:1::1",
                "2002:7f00:1::1",
                "2001:0:a01:1::",
                "2001::f5fe:fffe",
                "64:ff9b::10.1.0.1",
                "64:ff9b::169.254.169.254",
                "64:ff9b:1::10.1.0.1",
                "fd00:1::5efe:10.1.0.1",
            ]);
        },
    ),
    (
        "coturn d49ee56a: 169.254.169.254 and link-local were reachable by default",
        "default deny, and metadata services to be meant even where everything is allowed",
        || {
            nobody_gets_to(&[
                "169.254.169.254",
                "fe80::1",
                "fd00:ec2::254",
                "100.100.100.200",
            ])
        },
    ),
    (
        "coturn e2735cf0: the server's own backends and listeners as peers",
        "own addresses are never peers, in any spelling",
        || {
            let mut relay = wide();
            let mut client = allocated(&mut relay);
            for own in ["203.0.113.12:3478", "[::ffff:203.0.113.12]:3478"] {
                assert_eq!(client.bind(&mut relay, 0x4000, own), 403, "{own}");
            }
            assert_eq!(client.permit(&mut relay, &["203.0.113.12:80"]), 0);
            assert_eq!(
                client.sends_indication(&mut relay, "203.0.113.12:3478", b"x"),
                Outcome::Dropped(DropReason::DeniedPeer)
            );
            assert_eq!(relay.stats().denied(Denied::Own), 3);
        },
    ),
    (
        "coturn 6c13608c: IPv6 ranges were compared byte by byte",
        "networks are prefixes of numbers",
        || {
            let mut relay = Relay::with(Setup {
                allow: vec!["::/0"],
                deny: vec!["2001:db8:0:8000::/49", "2001:db8:1:ff80::/57"],
                ..Setup::default()
            });
            let mut client = allocated(&mut relay);
            for (peer, code) in [
                ("[2001:db8:0:7fff::]:1", 0),
                ("[2001:db8:0:8000::]:1", 403),
                ("[2001:db8:0:8001:0:ffff::]:1", 403),
                ("[2001:db8:0:ffff::1]:1", 403),
                ("[2001:db8:1:ff00::]:1", 0),
                ("[2001:db8:1:ffff::]:1", 403),
            ] {
                assert_eq!(client.permit(&mut relay, &[peer]), code, "{peer}");
            }
        },
    ),
    (
        "coturn 4.x, denied-peer-ip beside allowed-peer-ip: which wins?",
        "a deny rule beats every allow rule",
        || {
            let mut relay = wide();
            let mut client = allocated(&mut relay);
            assert_eq!(client.permit(&mut relay, &["10.1.0.1:1"]), 403);
            assert_eq!(relay.stats().denied(Denied::Listed), 1);
        },
    ),
    (
        "pion 0dafcab: the permission handler was not asked on every path",
        "one function for permissions, channels, Send and what peers send",
        || {
            let mut relay = Relay::with(Setup {
                allow: vec!["10.0.0.0/24:53"],
                ..Setup::default()
            });
            let mut client = Client::new("192.0.2.1:4000");
            let relayed = client.allocate(&mut relay);
            assert_eq!(client.permit(&mut relay, &["10.0.1.5:53"]), 403);
            assert_eq!(client.bind(&mut relay, 0x4000, "10.0.1.5:53"), 403);
            assert_eq!(client.bind(&mut relay, 0x4000, "10.0.0.5:80"), 403);
            assert_eq!(client.permit(&mut relay, &["10.0.0.5:80"]), 0);
            let denied = Outcome::Dropped(DropReason::DeniedPeer);
            assert_eq!(
                client.sends_indication(&mut relay, "10.0.0.5:80", b"x"),
                denied
            );
            assert_eq!(relay.peer_sends("10.0.0.5:80", relayed, b"x"), denied);
            let to_peer = client.sends_indication(&mut relay, "10.0.0.5:53", b"x");
            assert!(matches!(to_peer, Outcome::ToPeer { .. }), "{to_peer:?}");
            let heard = relay.peer_sends("10.0.0.5:53", relayed, b"x");
            assert!(matches!(heard, Outcome::ToClient { .. }), "{heard:?}");
        },
    ),
    (
        "relays as scanners of hosts (rtcsec 2026)",
        "many new peers in a short time are refused and counted, however they are asked for",
        || {
            let mut relay = scanned();
            let mut client = allocated(&mut relay);
            let codes: Vec<u16> = (1..=12)
                .map(|host| client.permit(&mut relay, &[&format!("10.0.0.{host}:1")]))
                .collect();
            assert_eq!(codes[..10], [0; 10]);
            assert_eq!(codes[10..], [403; 2]);
            // Those that it has stay.
            assert_eq!(client.permit(&mut relay, &["10.0.0.1:1"]), 0);
            // Neither another allocation nor a new one helps.
            let ending = turn_types::attribute::Lifetime::new(0);
            client.request(&mut relay, turn_types::message::REFRESH, &[&ending]);
            let mut again = Client::new("192.0.2.1:4001");
            again.allocate(&mut relay);
            assert_eq!(again.bind(&mut relay, 0x4000, "10.0.0.77:1"), 403);
            assert_eq!(relay.stats().denied(Denied::Scanning), 3);
            let mut other = Client::named("192.0.2.9:4000", "bob", "builder");
            other.allocate(&mut relay);
            assert_eq!(other.permit(&mut relay, &["10.0.0.77:1"]), 0);
            relay.pass(60);
            assert_eq!(again.bind(&mut relay, 0x4000, "10.0.0.77:1"), 0);
        },
    ),
    (
        "relays as scanners of ports (rtcsec 2026)",
        "one permission is for all ports, so Send counts, too",
        || {
            let mut relay = scanned();
            let mut client = allocated(&mut relay);
            client.permit(&mut relay, &["10.0.0.5:1"]);
            let sent = (1..=100)
                .map(|port| client.sends_indication(&mut relay, &format!("10.0.0.5:{port}"), b"x"))
                .filter(|outcome| matches!(outcome, Outcome::ToPeer { .. }))
                .count();
            // Roughly counted: some are taken for known ones.
            assert!((9..=11).contains(&sent), "{sent}");
            assert!(relay.stats().dropped(DropReason::Scanning) >= 89);
            // Whoever goes on with one peer is not disturbed.
            let to_peer = client.sends_indication(&mut relay, "10.0.0.5:9", b"x");
            assert!(matches!(to_peer, Outcome::ToPeer { .. }));
        },
    ),
    (
        "turn-rs: permissions never expired",
        "five minutes, and then nobody is heard or reached",
        || {
            let mut relay = Relay::new();
            let mut client = Client::new("192.0.2.1:4000");
            let relayed = client.allocate(&mut relay);
            // Not together with what frees the memory, each minute of an allocation.
            relay.pass(30);
            client.permit(&mut relay, &["10.0.0.5:7"]);
            relay.pass(300);
            let gone = Outcome::Dropped(DropReason::NoPermission);
            assert_eq!(
                client.sends_indication(&mut relay, "10.0.0.5:7", b"x"),
                gone
            );
            assert_eq!(relay.peer_sends("10.0.0.5:7", relayed, b"x"), gone);
        },
    ),
    (
        "coturn --multiplex-peer: whose is a packet from a peer without permission?",
        "nobody's",
        || {
            let mut relay = Relay::new();
            let mut client = Client::new("192.0.2.1:4000");
            let relayed = client.allocate(&mut relay);
            client.bind(&mut relay, 0x4000, "10.0.0.5:7");
            assert_eq!(
                relay.peer_sends("10.0.0.6:7", relayed, b"x"),
                Outcome::Dropped(DropReason::NoPermission)
            );
        },
    ),
];

/// All is allowed, but for one network.
fn wide() -> Relay {
    Relay::with(Setup {
        allow: vec!["0.0.0.0/0", "::/0"],
        deny: vec!["10.1.0.0/16"],
        ..Setup::default()
    })
}

fn scanned() -> Relay {
    Relay::with(Setup {
        usage: UsageLimits {
            new_peers: 10,
            ..UsageLimits::default()
        },
        ..Setup::default()
    })
}

/// With a relayed address of each family.
fn allocated(relay: &mut Relay) -> Client {
    let mut client = Client::new("192.0.2.1:4000");
    let both = turn_types::attribute::AdditionalAddressFamily::new(turn_types::AddressFamily::IPV6);
    assert_eq!(client.try_allocate(relay, &[&both]).relayed().len(), 2);
    client
}

/// Neither by permission nor by channel, though everything is allowed.
fn nobody_gets_to(hosts: &[&str]) {
    let mut relay = wide();
    let mut client = allocated(&mut relay);
    for host in hosts {
        let peer = match host.contains(':') {
            true => format!("[{host}]:80"),
            false => format!("{host}:80"),
        };
        assert_eq!(client.permit(&mut relay, &[&peer]), 403, "{peer}");
        assert_eq!(client.bind(&mut relay, 0x4000, &peer), 403, "{peer}");
        assert_eq!(
            client.sends_indication(&mut relay, &peer, b"x"),
            Outcome::Dropped(DropReason::NoPermission),
            "{peer}"
        );
    }
}
