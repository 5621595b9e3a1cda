//! Two agents behind NATs of every kind, with a relay between them; and what an offer can make an answerer send.

use super::*;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What a mapping or a filter depends on. [RFC 4787 §4.1, §5](https://www.rfc-editor.org/rfc/rfc4787#section-4.1)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depends {
    Nothing,
    Address,
    AddressAndPort,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    name: &'static str,
    mapping: Depends,
    filtering: Depends,
}

const fn kind(name: &'static str, mapping: Depends, filtering: Depends) -> Kind {
    Kind {
        name,
        mapping,
        filtering,
    }
}

const KINDS: [Kind; 4] = [
    kind("full cone", Depends::Nothing, Depends::Nothing),
    kind("address-restricted", Depends::Nothing, Depends::Address),
    kind("port-restricted", Depends::Nothing, Depends::AddressAndPort),
    kind(
        "symmetric",
        Depends::AddressAndPort,
        Depends::AddressAndPort,
    ),
];

/// As much of the other's address as something depends on.
fn part(depends: Depends, other: SocketAddr) -> Option<SocketAddr> {
    match depends {
        Depends::Nothing => None,
        Depends::Address => Some(SocketAddr::new(other.ip(), 0)),
        Depends::AddressAndPort => Some(other),
    }
}

struct Nat {
    kind: Kind,
    outside: SocketAddr,
    mappings: BTreeMap<(SocketAddr, Option<SocketAddr>), SocketAddr>,
    filters: BTreeSet<(SocketAddr, Option<SocketAddr>)>,
}

impl Nat {
    fn new(kind: Kind, outside: &str) -> Self {
        Self {
            kind,
            outside: address(outside),
            mappings: BTreeMap::new(),
            filters: BTreeSet::new(),
        }
    }

    fn outbound(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let next = self.outside.port() + self.mappings.len() as u16;
        let fresh = SocketAddr::new(self.outside.ip(), next);
        let key = (from, part(self.kind.mapping, to));
        let mapped = *self.mappings.entry(key).or_insert(fresh);
        self.filters.insert((mapped, part(self.kind.filtering, to)));
        mapped
    }

    fn inbound(&self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let passes = self
            .filters
            .contains(&(to, part(self.kind.filtering, from)));
        let mapping = self.mappings.iter().find(|(_, mapped)| **mapped == to);
        mapping.filter(|_| passes).map(|((inner, _), _)| *inner)
    }
}

const STUN: &str = "203.0.113.22:3478";
const INSIDE: &str = "10.0.0.3:7000";

/// A world with a NAT before each end, that of the answerer in its description; and the offerer's reflexive address.
fn natted(kinds: [Kind; 2]) -> (World, LocalCandidate) {
    let mut nats = [
        Nat::new(kinds[0], "203.0.113.11:40000"),
        Nat::new(kinds[1], "203.0.113.21:50000"),
    ];
    let reflexive = |nat: &mut Nat, base: &str| LocalCandidate {
        kind: CandidateKind::ServerReflexive,
        address: nat.outbound(address(base), address(STUN)),
        base: address(base),
    };
    let offered = reflexive(&mut nats[0], OFFERER);
    let answered = reflexive(&mut nats[1], INSIDE);
    let nats = RefCell::new(nats);
    let routes = move |from: SocketAddr, to: SocketAddr| {
        if relay_only(from, to).is_some() {
            return Some((from, to));
        }
        let nats = &mut *nats.borrow_mut();
        let sender = usize::from(from == address(INSIDE));
        let seen = nats[sender].outbound(from, to);
        Some((seen, nats[1 - sender].inbound(seen, to)?))
    };
    let theirs = [
        candidate(CandidateKind::Relayed, RELAYED),
        candidate(CandidateKind::Host, INSIDE),
        answered,
    ];
    (World::new(&offerer(), &theirs, routes), offered)
}

/// RFC 5128 §3.3 and RFC 4787 §4.1: behind an endpoint-dependent mapping the port that a peer sees is known to nobody
/// before, so the other NAT has to let in any port, at least of an address that was sent to.
const fn reachable(ours: Kind, theirs: Kind) -> bool {
    const fn hidden(kind: Kind) -> bool {
        !matches!(kind.mapping, Depends::Nothing)
    }
    const fn strict(kind: Kind) -> bool {
        matches!(kind.filtering, Depends::AddressAndPort)
    }
    !((hidden(ours) && strict(theirs)) || (hidden(theirs) && strict(ours)))
}

#[test]
fn nats_are_punched_where_they_can_be_and_the_relay_carries_the_rest() {
    let mut direct = 0;
    for ours in KINDS {
        for theirs in KINDS {
            let (mut world, reflexive) = natted([ours, theirs]);
            world.ends[0].add_local(reflexive);
            world.introduce(1);
            world.introduce(0);
            world.run(Duration::from_secs(1));
            let expected = if reachable(ours, theirs) {
                direct += 1;
                Path::Direct
            } else {
                Path::RelayUdp
            };
            for side in [0, 1] {
                let found = world.last(side).map(|(_, _, path)| path);
                assert_eq!(found, Some(expected), "{} and {}", ours.name, theirs.name);
            }
            world.run(Duration::from_secs(60));
            assert_eq!(world.failed, [None, None]);
        }
    }
    assert_eq!(direct, 13);
}

#[test]
fn a_reflexive_address_that_is_learned_late_is_punched_late() {
    let strict = KINDS[2];
    for late in [Duration::from_millis(400), Duration::from_secs(30)] {
        let (mut world, known) = natted([strict, strict]);
        world.introduce(1);
        world.introduce(0);
        world.run(late);
        assert_eq!(world.last(0).expect("selected").2, Path::RelayUdp);
        world.ends[0].add_local(known);
        world.ends[1].add_remote(&known.to_wire()).expect("usable");
        let now = world.now;
        world
            .ends
            .iter_mut()
            .for_each(|end| end.handle_timeout(now));
        world.drain();
        world.run(Duration::from_secs(1));
        for side in [0, 1] {
            assert_eq!(world.last(side).expect("selected").2, Path::Direct);
        }
    }
}

/// Where, and how often, an answerer sends when nobody is at the addresses that an offer names.
fn checked(offered: &[&str]) -> BTreeMap<(SocketAddr, SocketAddr), usize> {
    let hosts = [
        candidate(CandidateKind::Relayed, RELAYED),
        candidate(CandidateKind::Host, INSIDE),
        candidate(CandidateKind::Host, "[2001:db8::3]:7000"),
    ];
    let sent = std::rc::Rc::new(RefCell::new(BTreeMap::new()));
    let seen = sent.clone();
    let mut world = World::new(&offerer(), &hosts, move |from, to| {
        *seen.borrow_mut().entry((from, to)).or_default() += 1;
        None
    });
    for text in offered {
        let named = LocalCandidate {
            kind: CandidateKind::ServerReflexive,
            ..candidate(CandidateKind::Host, text)
        };
        world.ends[0].add_local(named);
    }
    let mut description = SessionDescription::default();
    world.ends[0].describe(&mut description);
    for named in &description.candidates {
        let _ = world.ends[1].add_remote(named);
    }
    world.ends[1]
        .start(&description.ice_ufrag, &description.ice_pwd, world.now)
        .expect("credentials");
    world.drain();
    world.run(Duration::from_secs(60));
    let sent = sent.borrow();
    sent.clone()
}

#[test]
fn an_offer_scans_nothing_in_the_answerers_network() {
    let inside = [
        "10.0.0.20:22",
        "192.168.1.1:53",
        "100.64.0.1:9",
        "[fd00:10::20]:22",
    ];
    let sent = checked(&inside);
    assert!(!sent.is_empty(), "the relay decides about its own side");
    for (from, to) in sent.keys() {
        assert_eq!(*from, address(RELAYED), "to {to}");
    }
    for nowhere in [
        "127.0.0.1:53",
        "[::1]:53",
        "169.254.169.254:80",
        "0.0.0.0:53",
        "255.255.255.255:9",
        "224.0.0.251:5353",
        "[fe80::1]:9",
        "[::ffff:10.0.0.20]:22",
    ] {
        let sent = checked(&[nowhere]);
        let there = sent.keys().find(|(_, to)| *to != address(OFFERER));
        assert_eq!(there, None, "{nowhere}");
    }
}

#[test]
fn an_offer_makes_an_answerer_send_a_few_small_packets_to_a_few_addresses() {
    let many: Vec<String> = (1..=200).map(|n| format!("198.51.100.{n}:{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let sent = checked(&many);
    let from_hosts = sent
        .iter()
        .filter(|((from, _), _)| *from == address(INSIDE));
    let (addresses, packets) = from_hosts.fold((0, 0), |(a, p), (_, sent)| (a + 1, p + sent));
    assert_eq!(addresses, MAX_PUNCHED);
    assert!(packets <= 9 * MAX_PUNCHED, "{packets}");
}
