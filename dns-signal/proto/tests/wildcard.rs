//! Names below wildcards: which there are, whose address they have for how long, and what becomes of their packets.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use dns_signal_proto::agent::{FrameDrop, NameVerdict};
use dns_signal_proto::intercept::{Decision, Suffix, decide};
use dns_signal_proto::service::ServiceId;
use dns_signal_proto::services::{Families, Services};
use dns_signal_proto::virtual_ip::{
    MAX_BELOW, MAX_LENT, NotLent, Pools, REST, UNFOUND_REST, VirtualIps, Wildcard,
};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use support::{ORDERS, SECOND, STOCK, World};

const SUFFIX: &str = "mesh.internal";
const BOTH: Families = Families {
    ipv4: true,
    ipv6: true,
};

fn id(text: &str) -> ServiceId {
    text.parse().unwrap()
}

fn pools() -> Pools {
    Pools::new(
        "198.18.0.0/15".parse().unwrap(),
        "fd74:7572:6e70::/64".parse().unwrap(),
    )
    .unwrap()
}

fn wildcard(name: &str) -> Wildcard {
    Wildcard {
        name: name.parse().unwrap(),
        network: "isle".parse().unwrap(),
    }
}

fn services() -> Services {
    let mut services = Services::new(7);
    let mut export = |name: &str, families, tcp: &[u32]| {
        let (network, name) = ("isle".parse().unwrap(), name.parse().unwrap());
        services.insert_export(network, name, families, (tcp, &[]));
    };
    let ipv4 = Families {
        ipv4: true,
        ipv6: false,
    };
    export("*.prod", BOTH, &[80, 443]);
    export("*.eu.prod", ipv4, &[80]);
    export("db.prod", BOTH, &[5432]);
    services
}

fn decided(name: &str, record_type: RecordType) -> Decision {
    let mut name = Name::from_ascii(format!("{name}.{SUFFIX}.")).unwrap();
    name.set_fqdn(true);
    let suffix: Suffix = SUFFIX.parse().unwrap();
    let services = services();
    decide(
        &name,
        record_type,
        DNSClass::IN,
        Some(&services),
        &suffix,
        &pools(),
    )
}

#[test]
fn a_name_of_any_depth_is_the_nearest_wildcards_unless_it_is_exported_itself() {
    for (name, families) in [
        ("api.prod.isle", (true, false)),
        ("a.b.c.prod.isle", (true, false)),
        ("API.Prod.isle", (true, false)),
        ("db.prod.isle", (true, false)),
        ("api.eu.prod.isle", (true, false)),
    ] {
        let decision = decided(name, RecordType::A);
        let expected = Decision::Remote {
            id: id(&name.to_ascii_lowercase()),
            ipv4: families.0,
            ipv6: families.1,
        };
        assert_eq!(decision, expected, "{name}");
    }
    for (name, record_type) in [
        // The wildcard's own name, and one between: they are there, and nothing is at them (RFC 4592 section 2.2.2).
        ("prod.isle", RecordType::A),
        ("eu.prod.isle", RecordType::A),
        // Not in this family, not of this type.
        ("api.eu.prod.isle", RecordType::AAAA),
        ("api.prod.isle", RecordType::HTTPS),
    ] {
        let decision = decided(name, record_type);
        assert!(
            matches!(decision, Decision::NoData { .. }),
            "{name}: {decision:?}"
        );
    }
    for name in [
        // Below what is exported itself (RFC 4592 section 4.2).
        "replica.db.prod.isle",
        "other.isle",
        "api.prod.west",
        "a_b.prod.isle",
    ] {
        let decision = decided(name, RecordType::A);
        assert!(
            matches!(decision, Decision::NoSuchName { .. }),
            "{name}: {decision:?}"
        );
    }
}

#[test]
fn ports_and_texts_of_a_name_are_its_wildcards() {
    let ports = |name: &str| match decided(name, RecordType::SRV) {
        Decision::Ports { id, ports } => (id.to_string(), ports),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(
        ports("_443._tcp.api.prod.isle"),
        ("api.prod.isle".to_owned(), vec![443])
    );
    assert_eq!(
        ports("_postgres._tcp.db.prod.isle"),
        ("db.prod.isle".to_owned(), vec![5432])
    );
    let decision = decided("_8080._tcp.api.prod.isle", RecordType::SRV);
    assert!(
        matches!(decision, Decision::NoSuchName { .. }),
        "{decision:?}"
    );
    let Decision::Text { texts, .. } = decided("a.b.prod.isle", RecordType::TXT) else {
        panic!("no text")
    };
    assert_eq!(texts, ["service=a.b.prod", "network=isle", "tcp=80,443"]);
}

#[test]
fn a_label_with_a_dot_in_it_is_no_part_of_a_name() {
    let suffix: Suffix = SUFFIX.parse().unwrap();
    let mut name =
        Name::from_labels(["a.b".as_bytes(), b"prod", b"isle", b"mesh", b"internal"]).unwrap();
    name.set_fqdn(true);
    let services = services();
    let of = |name: &Name| {
        decide(
            name,
            RecordType::A,
            DNSClass::IN,
            Some(&services),
            &suffix,
            &pools(),
        )
    };
    assert!(matches!(of(&name), Decision::NoSuchName { .. }));
    assert_eq!(suffix.service_in(&name), None);
    let port = Name::from_ascii("_80._tcp.api.prod.isle.mesh.internal.").unwrap();
    assert_eq!(suffix.service_in(&port), Some(id("api.prod.isle")));
}

#[test]
fn a_lent_address_is_the_names_own_by_hash_and_is_kept_over_a_restart_once_it_was_found() {
    let now = Instant::now();
    let (mut table, mut elsewhere) = (VirtualIps::new(pools()), VirtualIps::new(pools()));
    let prod = wildcard("*.prod");
    let api = table.lend(&id("api.prod.isle"), &prod, now).unwrap();
    let web = table.lend(&id("web.prod.isle"), &prod, now).unwrap();
    assert_eq!(elsewhere.lend(&id("web.prod.isle"), &prod, now), Ok(web));
    assert_eq!(table.lend(&id("api.prod.isle"), &prod, now), Ok(api));
    assert_eq!(
        table.service_of(api.ipv4.into()),
        Some(&id("api.prod.isle"))
    );
    assert!(table.found(&id("api.prod.isle")));
    assert!(!table.found(&id("api.prod.isle")), "no news");
    assert!(!table.found(&id("nobody.prod.isle")));
    let orders = table.assign(&id("orders.isle")).unwrap().0;

    let text = table.encode();
    assert!(text.contains(" api.prod.isle *.prod\n"), "{text}");
    assert!(
        !text.contains("web.prod"),
        "nobody knows whether it is there: {text}"
    );
    let mut restored = VirtualIps::new(pools());
    assert_eq!(restored.restore(&text).unwrap().skipped, 0);
    assert_eq!((restored.len(), restored.lent()), (2, 1));
    assert_eq!(restored.get(&id("api.prod.isle")), Some(api));
    assert_eq!(restored.get(&id("orders.isle")), Some(orders));
    assert_eq!(restored.encode(), text);
}

#[test]
fn a_name_that_is_not_there_gives_its_address_back_and_one_that_becomes_a_service_keeps_it() {
    let now = Instant::now();
    let mut table = VirtualIps::new(pools());
    let prod = wildcard("*.prod");
    let pair = table.lend(&id("api.prod.isle"), &prod, now).unwrap();
    table.take_back(&id("api.prod.isle"));
    assert_eq!((table.len(), table.lent()), (0, 0));
    assert_eq!(table.service_of(pair.ipv4.into()), None);
    table.lend(&id("api.prod.isle"), &prod, now).unwrap();
    assert_eq!(table.assign(&id("api.prod.isle")), Ok((pair, true)));
    assert_eq!((table.len(), table.lent()), (1, 0));
    table.take_back(&id("api.prod.isle"));
    assert_eq!(
        table.get(&id("api.prod.isle")),
        Some(pair),
        "it is for good now"
    );
}

#[test]
fn whoever_asks_for_names_at_random_fills_no_more_than_the_wildcards_share() {
    let now = Instant::now();
    let mut table = VirtualIps::new(pools());
    let (prod, test) = (wildcard("*.prod"), wildcard("*.test"));
    let kept = table.lend(&id("kept.prod.isle"), &prod, now).unwrap();
    table.found(&id("kept.prod.isle"));
    let mut refused = 0;
    for number in 0..3 * MAX_BELOW {
        match table.lend(&id(&format!("n{number}.prod.isle")), &prod, now) {
            Ok(_) => {}
            Err(NotLent::WildcardFull) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((table.lent(), refused), (MAX_BELOW, 2 * MAX_BELOW + 1));
    // Neither what is in use, nor another wildcard.
    assert_eq!(table.lend(&id("kept.prod.isle"), &prod, now), Ok(kept));
    table.lend(&id("api.test.isle"), &test, now).unwrap();

    // Names behind which nothing was found make room soon, others much later.
    let later = now + UNFOUND_REST;
    table.lend(&id("late.prod.isle"), &prod, later).unwrap();
    assert_eq!(table.lent(), MAX_BELOW + 1);
    assert_eq!(table.get(&id("kept.prod.isle")), Some(kept));
}

#[test]
fn the_name_that_was_asked_for_least_lately_makes_room_after_an_hour() {
    let mut now = Instant::now();
    let mut table = VirtualIps::new(pools());
    let wildcard_of = |number: usize| wildcard(&format!("*.w{}", number % 10));
    let name = |number: usize| id(&format!("n{number}.w{}.isle", number % 10));
    for number in 0..MAX_LENT {
        now += Duration::from_millis(1);
        table
            .lend(&name(number), &wildcard_of(number), now)
            .unwrap();
        table.found(&name(number));
    }
    let new = id("new.w0.isle");
    let full = table.lend(&new, &wildcard_of(0), now);
    assert_eq!(full, Err(NotLent::Full));
    table.lend(&name(0), &wildcard_of(0), now).unwrap();
    now += REST;
    table.lend(&new, &wildcard_of(0), now).unwrap();
    assert!(table.get(&name(0)).is_some(), "it was asked for again");
    assert_eq!(table.get(&name(1)), None, "the oldest but one");
    assert_eq!(table.lent(), MAX_LENT);
}

#[test]
fn a_binding_that_is_not_decided_has_packets_wait_and_what_is_said_later_counts() {
    let mut world = World::new();
    world.unsaid = |service| service == "api.prod";
    world.register(1, support::relayed());
    world.want("api.prod", ORDERS);
    world.advance(Duration::ZERO);
    assert_eq!(world.open_links(), 1, "the link does not wait for DNS");
    world.send(ORDERS, b"first").unwrap();
    world.settle();
    assert_eq!(world.received.len(), 0);
    world.say("api.prod", true, 0);
    assert_eq!(world.received.len(), 1);
    assert_eq!(
        world.verdicts,
        [("api.prod".to_owned(), NameVerdict::Found)]
    );
    world.send(ORDERS, b"second").unwrap();
    world.settle();
    assert_eq!(world.received.len(), 2);

    // The name is gone from DNS.
    world.say("api.prod", false, 30);
    let absent = NameVerdict::Absent {
        lasts: 30 * SECOND,
        reason: "because".to_owned(),
    };
    assert_eq!(world.verdicts[1], ("api.prod".to_owned(), absent));
    assert_eq!(world.send(ORDERS, b"third"), Err(FrameDrop::ServiceRefused));
    assert_eq!(world.to_tun.len(), 1, "and is told so");
    assert!(
        !world
            .notices
            .iter()
            .any(|it| format!("{it:?}").contains("ServiceRefused")),
        "nothing for the log: {:?}",
        world.notices
    );
}

#[test]
fn a_name_whose_address_changed_is_bound_anew() {
    let mut world = World::new();
    world.register(1, support::relayed());
    world.want("api.prod", ORDERS);
    world.advance(Duration::ZERO);
    world.want("api.prod", STOCK);
    world.advance(Duration::ZERO);
    world.send(STOCK, b"there").unwrap();
    world.settle();
    let bound: Vec<_> = world
        .binds
        .iter()
        .map(|it| it.virtual_ipv4.clone())
        .collect();
    assert_eq!(bound, [vec![198, 18, 8, 8]], "beside what the offer named");
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a_name_that_is_not_there_is_refused_as_soon_as_the_link_is_open() {
    let mut world = World::new();
    world.accepts = |service| service != "api.prod";
    world.absent_seconds = 5;
    world.register(1, support::relayed());
    world.want("api.prod", ORDERS);
    world.send(ORDERS, b"first").unwrap();
    world.advance(Duration::ZERO);
    assert_eq!(world.to_tun.len(), 1, "refused, not left to wait");
    assert_eq!(world.verdicts.len(), 1);
}

#[test]
fn an_offer_names_no_more_than_discovery_keeps_and_the_rest_is_asked_for_over_the_link() {
    let mut world = World::new();
    world.answers = false;
    world.register(1, support::relayed());
    let address = |number: usize| format!("198.18.9.{number}");
    for number in 0..100 {
        let service = format!("n{number}.prod");
        let destination = support::destination(&service, &address(number));
        world.agent.learn_route(destination);
        world.send(&address(number), b"waits").unwrap();
    }
    // The first offer is lost; the next names what waits by then.
    world.answers = true;
    world.advance(4 * SECOND);
    let offer = world.offer.clone().unwrap();
    assert_eq!((world.offers, offer.bindings.len()), (2, 64));
    assert_eq!(world.received.len(), 100);
}
