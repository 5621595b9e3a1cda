//! Names below wildcards: asked for, bound, refused, renewed, bounded.
#![allow(clippy::unwrap_used)]

mod support;

use std::{sync::Arc, time::Duration};

use activator_proto::{
    Forwarder, Gateway, GatewayConfig, Input, LinkKey, LinkLimits, Output,
    forward::{
        FromLink, FromTun,
        nat::{NatTable, QUIET},
        pool::ClientPool,
    },
    names::{MAX_ASKED_OF_NODE, MAX_NAMES_OF_NODE, Resolved},
    policy::{ExportError, ExportTable, Exported},
    wildcard::{Domain, Wildcard},
};
use model::ExportName;
use protocol::document::BindingResult;
use support::{
    INSTANCE, World, binding, export, ip, node, offer,
    packet::{ACK, RST, SYN, checked, frame, tcp, transport},
};

const APP: &str = "west/workload/app";
const SIDECAR: &str = "198.18.0.1";
const API: &str = "198.18.0.5";
const API6: &str = "fd74:7572:6e70::5";
const TTL: Duration = Duration::from_secs(30);

fn wildcard(name: &str, domain: &str, within: &[&str]) -> Exported {
    let ExportName::Below(below) = name.parse().unwrap() else {
        panic!("{name} is no wildcard")
    };
    Exported::Wildcard(Arc::new(Wildcard {
        below,
        domain: Domain::below_star(domain).unwrap(),
        within: within.iter().map(|range| range.parse().unwrap()).collect(),
        tcp: [80].into_iter().collect(),
        udp: [].into_iter().collect(),
        allow: Some(vec!["west".parse().unwrap()]),
    }))
}

fn world() -> World {
    let exports = ExportTable::of([
        wildcard(
            "*.prod",
            "*.prod.svc.cluster.local",
            &["10.0.0.0/8", "fd00::/8"],
        ),
        Exported::Service(Arc::new(export("db.prod", &["10.0.0.30"], &[5432], &[]))),
    ]);
    let pool = ClientPool::new(
        "100.89.0.0/16".parse().unwrap(),
        "fd89:7475:726e::/64".parse().unwrap(),
    );
    let config = GatewayConfig {
        node: node("isle/activator/gate-1"),
        instance: INSTANCE,
        seed: 7,
        exports: exports.unwrap(),
        limits: LinkLimits::default(),
    };
    let mut world = World::new();
    world.gateway = Gateway::new(config, Forwarder::new(NatTable::new(pool.unwrap()), 1400));
    world.outputs();
    world.with_footholds()
}

/// A link, open, that is bound to nothing.
fn open(world: &mut World, from: &str, number: u64) -> LinkKey {
    let link = match world.offer(from, offer(number, Vec::new()))[..] {
        [Output::Answer { link, .. }] => link,
        ref other => panic!("{other:?}"),
    };
    world.input(Input::LinkOpened { link });
    link
}

fn bind(world: &mut World, link: LinkKey, service: &str, ipv4: &str, ipv6: &str) -> Vec<Output> {
    let bindings = vec![binding(service, ipv4, ipv6)];
    world.input(Input::Bind { link, bindings })
}

fn addresses(addresses: &[&str]) -> Resolved {
    Resolved::Addresses(addresses.iter().map(|it| ip(it)).collect(), TTL)
}

fn resolved(world: &mut World, name: &str, resolved: Resolved) -> Vec<Output> {
    let own = [ip("10.0.0.3"), ip("127.0.0.1")];
    world.input(Input::Resolved {
        name: name.parse().unwrap(),
        resolved,
        own: &own,
    })
}

/// The domain that is to be asked for, and nothing else.
fn asked(outputs: &[Output]) -> &str {
    match outputs {
        [Output::Resolve { domain, .. }] => domain,
        other => panic!("{other:?}"),
    }
}

/// The result that a link is told, and nothing else.
fn told(outputs: &[Output]) -> &BindingResult {
    match outputs {
        [Output::Bound { results, .. }] if results.len() == 1 => &results[0],
        other => panic!("{other:?}"),
    }
}

/// Where a SYN to a virtual IP arrives; `None`: it is answered with a reset.
fn syn(world: &mut World, link: LinkKey, to: &str) -> Option<(String, String)> {
    let source = if to.contains(':') {
        "fd74:7572:6e70::1"
    } else {
        SIDECAR
    };
    let mut frame = frame(&tcp((source, 4000), (to, 80), SYN, &[]));
    let now = world.now;
    match world.gateway.forwarder.to_service(link, &mut frame, now) {
        FromLink::ToService => Some(checked(&frame[12..])),
        FromLink::Refused(answer) => {
            assert_eq!(transport(&answer[12..])[13], RST | ACK);
            None
        }
        FromLink::Dropped(reason) => panic!("dropped: {reason:?}"),
    }
}

fn answer(world: &mut World, from: &str, client: &str, flags: u8) {
    let mut frame = frame(&tcp((from, 80), (client, 4000), flags, &[]));
    let now = world.now;
    let to = world.gateway.forwarder.to_link(&mut frame, now);
    assert!(matches!(to, FromTun::ToLink(_)), "{to:?}");
}

#[test]
fn a_name_is_asked_for_once_and_bound_to_what_dns_says() {
    let mut world = world();
    let link = open(&mut world, APP, 1);
    let outputs = bind(&mut world, link, "api.prod", API, API6);
    assert_eq!(asked(&outputs), "api.prod.svc.cluster.local");
    assert!(
        bind(&mut world, link, "api.prod", API, API6).is_empty(),
        "it is asked for already"
    );
    let outputs = resolved(&mut world, "api.prod", addresses(&["10.1.2.3"]));
    assert!(told(&outputs).accepted, "{outputs:?}");
    let (_, real) = syn(&mut world, link, API).unwrap();
    assert_eq!(real, "10.1.2.3");
    assert_eq!(
        syn(&mut world, link, API6),
        None,
        "it has no IPv6 address: refused at once"
    );

    // Another link need not wait.
    let other = open(&mut world, "west/workload/other", 1);
    let outputs = bind(&mut world, other, "api.prod", API, "");
    assert!(told(&outputs).accepted, "{outputs:?}");
    assert_eq!(syn(&mut world, other, API).unwrap().1, "10.1.2.3");
    let known: Vec<_> = world.gateway.names().status().collect();
    assert_eq!((known.len(), known[0].links), (1, 2));
}

#[test]
fn an_offer_is_answered_before_dns_is_and_the_link_is_told_when_it_is_open() {
    let mut world = world();
    let bindings = vec![
        binding("api.prod", API, ""),
        binding("db.prod", "198.18.0.9", ""),
    ];
    let outputs = world.offer(APP, offer(1, bindings));
    let link = match &outputs[..] {
        [
            Output::Resolve { .. },
            Output::Answer { link, bindings, .. },
        ] => {
            assert_eq!(bindings.len(), 1, "db.prod alone is decided: {bindings:?}");
            *link
        }
        other => panic!("{other:?}"),
    };
    assert!(resolved(&mut world, "api.prod", addresses(&["10.1.2.3"])).is_empty());
    let outputs = world.input(Input::LinkOpened { link });
    assert_eq!(told(&outputs).service, "api.prod");
    assert!(syn(&mut world, link, API).is_some());
}

#[test]
fn a_name_that_is_not_there_is_refused_without_asking_again_for_a_while() {
    let mut world = world();
    let link = open(&mut world, APP, 1);
    bind(&mut world, link, "nobody.prod", API, "");
    let outputs = resolved(
        &mut world,
        "nobody.prod",
        Resolved::Absent(Duration::from_secs(3600)),
    );
    let result = told(&outputs);
    assert_eq!(
        (result.accepted, result.absent_seconds),
        (false, 60),
        "{result:?}"
    );
    assert!(
        result.reason.contains("`nobody.prod`") && result.reason.contains("no address"),
        "{result:?}"
    );
    world.advance(Duration::from_secs(50));
    let outputs = bind(&mut world, link, "nobody.prod", API, "");
    assert_eq!(told(&outputs).absent_seconds, 10);
    // Also in an offer: the link is made, and tells it.
    let outputs = world.offer(
        "west/workload/b",
        offer(1, vec![binding("nobody.prod", API, "")]),
    );
    assert!(
        matches!(&outputs[..], [Output::Answer { .. }]),
        "{outputs:?}"
    );
    world.advance(Duration::from_secs(11));
    assert!(world.gateway.names().is_empty(), "forgotten");
    let outputs = bind(&mut world, link, "nobody.prod", API, "");
    assert_eq!(asked(&outputs), "nobody.prod.svc.cluster.local");
}

#[test]
fn what_leads_elsewhere_is_refused_and_the_other_side_is_not_told_where() {
    for addresses_of in [
        &["192.0.2.7"][..],
        &["169.254.169.254"],
        &["127.0.0.1"],
        // This host, and a client of its.
        &["10.0.0.3"],
        &["100.89.0.7"],
        &["fd89:7475:726e::7"],
    ] {
        let mut world = world();
        let link = open(&mut world, APP, 1);
        bind(&mut world, link, "evil.prod", API, API6);
        let outputs = resolved(&mut world, "evil.prod", addresses(addresses_of));
        let [Output::Outside { addresses, .. }, rest @ ..] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(addresses.len(), 1);
        let result = told(rest);
        assert_eq!((result.accepted, result.absent_seconds), (false, 30));
        assert!(result.reason.contains("`within`"), "{result:?}");
        assert!(!result.reason.contains(addresses_of[0]), "{result:?}");
        assert_eq!(world.gateway.names().stats().outside, 1);
    }
}

#[test]
fn policy_and_ports_are_the_wildcards_and_an_export_of_its_own_comes_first() {
    let mut world = world();
    let north = open(&mut world, "north/workload/app", 1);
    let outputs = bind(&mut world, north, "api.prod", API, "");
    assert!(
        told(&outputs)
            .reason
            .contains("policy: `api.prod` is not open"),
        "{outputs:?}"
    );
    let outputs = world.offer(
        "north/workload/b",
        offer(2, vec![binding("api.prod", API, "")]),
    );
    assert!(support::refusal(&outputs).contains("policy: "));

    let link = open(&mut world, APP, 1);
    let outputs = bind(&mut world, link, "db.prod", API, "");
    assert!(told(&outputs).accepted, "no DNS for it: {outputs:?}");
    for unknown in ["prod", "replica.db.prod", "api", "API.prod"] {
        let outputs = bind(&mut world, link, unknown, API, "");
        assert!(
            told(&outputs).reason.contains("unknown service"),
            "{unknown}: {outputs:?}"
        );
    }
}

#[test]
fn a_name_in_use_is_asked_for_again_and_its_flows_go_along_once_the_old_address_is_silent() {
    let mut world = world();
    let link = open(&mut world, APP, 1);
    bind(&mut world, link, "api.prod", API, "");
    resolved(&mut world, "api.prod", addresses(&["10.1.2.3"]));
    let (client, _) = syn(&mut world, link, API).unwrap();
    answer(&mut world, "10.1.2.3", &client, SYN | ACK);

    let outputs = world.advance(TTL);
    assert_eq!(asked(&outputs), "api.prod.svc.cluster.local");
    answer(&mut world, "10.1.2.3", &client, ACK);
    assert!(resolved(&mut world, "api.prod", addresses(&["10.9.9.9"])).is_empty());
    // It still answers: what is open stays there, what begins does not.
    let on_link = |world: &mut World, port: u16, flags: u8| {
        let mut frame = frame(&tcp((SIDECAR, port), (API, 80), flags, &[]));
        let now = world.now;
        let to = world.gateway.forwarder.to_service(link, &mut frame, now);
        assert_eq!(to, FromLink::ToService);
        checked(&frame[12..]).1
    };
    assert_eq!(on_link(&mut world, 4000, ACK), "10.1.2.3");
    assert_eq!(on_link(&mut world, 4001, SYN), "10.9.9.9");
    assert_eq!(on_link(&mut world, 4001, ACK), "10.9.9.9");
    assert_eq!(on_link(&mut world, 4000, ACK), "10.1.2.3");
    answer(&mut world, "10.9.9.9", &client, SYN | ACK);
    answer(&mut world, "10.1.2.3", &client, ACK);
    // Somebody new goes where it is now.
    let other = open(&mut world, "west/workload/other", 1);
    bind(&mut world, other, "api.prod", API, "");
    assert_eq!(syn(&mut world, other, API).unwrap().1, "10.9.9.9");

    // A reset says that nobody is there.
    asked(&world.advance(TTL));
    world.now += QUIET;
    answer(&mut world, "10.9.9.9", &client, ACK);
    answer(&mut world, "10.1.2.3", &client, RST);
    resolved(&mut world, "api.prod", addresses(&["10.9.9.8", "10.9.9.9"]));
    assert_eq!(on_link(&mut world, 4000, ACK), "10.9.9.9", "all of it");
    let (same, real) = syn(&mut world, link, API).unwrap();
    assert_eq!((same, real.as_str()), (client, "10.9.9.9"));
}

#[test]
fn a_name_that_goes_and_comes_back_is_where_dns_says_it_is() {
    let mut world = world();
    let link = open(&mut world, APP, 1);
    bind(&mut world, link, "api.prod", API, "");
    resolved(&mut world, "api.prod", addresses(&["10.1.2.3"]));
    let (client, _) = syn(&mut world, link, API).unwrap();
    for (dns, expected) in [
        (&["10.9.9.9"][..], "10.9.9.9"),
        // Both: what is open stays, at either.
        (&["10.1.2.3", "10.9.9.9"], "10.9.9.9"),
        (&["10.1.2.3"], "10.1.2.3"),
        (&["10.8.8.8"], "10.8.8.8"),
        (&["10.7.7.7"], "10.7.7.7"),
    ] {
        asked(&world.advance(TTL));
        answer(&mut world, "10.1.2.3", &client, ACK);
        assert!(resolved(&mut world, "api.prod", addresses(dns)).is_empty());
        assert_eq!(syn(&mut world, link, API).unwrap().1, expected, "{dns:?}");
    }
    // Gone, but still heard: left alone until it is silent.
    asked(&world.advance(TTL));
    answer(&mut world, "10.1.2.3", &client, ACK);
    assert!(resolved(&mut world, "api.prod", Resolved::Absent(TTL)).is_empty());
    asked(&world.advance(TTL));
    let outputs = resolved(&mut world, "api.prod", Resolved::Absent(TTL));
    assert_eq!(told(&outputs).absent_seconds, 30);
}

#[test]
fn a_name_in_use_that_disappears_is_taken_back_and_a_dns_that_fails_is_not_believed() {
    let mut world = world();
    let link = open(&mut world, APP, 1);
    bind(&mut world, link, "api.prod", API, "");
    resolved(&mut world, "api.prod", addresses(&["10.1.2.3"]));
    asked(&world.advance(TTL));
    let failed = Resolved::Failed("SERVFAIL".to_owned());
    assert!(resolved(&mut world, "api.prod", failed.clone()).is_empty());
    assert!(syn(&mut world, link, API).is_some(), "it goes on");
    asked(&world.advance(Duration::from_secs(6)));
    let outputs = resolved(&mut world, "api.prod", Resolved::Absent(TTL));
    assert_eq!(told(&outputs).absent_seconds, 30);
    assert_eq!(world.gateway.forwarder.nat().clients(), 0);

    // Never found: what fails is refused, for now.
    bind(&mut world, link, "web.prod", API, "");
    let outputs = resolved(&mut world, "web.prod", failed);
    let result = told(&outputs);
    assert_eq!((result.accepted, result.absent_seconds), (false, 0));
    assert!(result.reason.contains("SERVFAIL"), "{result:?}");
}

#[test]
fn an_address_that_moves_to_another_name_is_not_taken_back_by_the_first() {
    let mut world = world();
    let link = open(&mut world, APP, 1);
    bind(&mut world, link, "api.prod", API, "");
    resolved(&mut world, "api.prod", addresses(&["10.1.2.3"]));
    bind(&mut world, link, "db.prod", API, "");
    assert!(!world.advance(TTL).is_empty());
    assert!(resolved(&mut world, "api.prod", Resolved::Absent(TTL)).len() <= 1);
    let mut frame = frame(&tcp((SIDECAR, 4000), (API, 5432), SYN, &[]));
    let now = world.now;
    let to = world.gateway.forwarder.to_service(link, &mut frame, now);
    assert_eq!(to, FromLink::ToService);
    assert_eq!(checked(&frame[12..]).1, "10.0.0.30");
}

#[test]
fn one_node_that_asks_for_names_at_random_takes_nothing_from_others() {
    let mut world = world();
    let (greedy, other) = (
        open(&mut world, APP, 1),
        open(&mut world, "west/workload/b", 1),
    );
    let mut wishes = 0;
    for number in 0..100 {
        let outputs = bind(&mut world, greedy, &format!("n{number}.prod"), API, "");
        wishes += usize::from(matches!(outputs[..], [Output::Resolve { .. }]));
    }
    assert_eq!(wishes, MAX_ASKED_OF_NODE);
    assert_eq!(world.gateway.names().stats().limited, 100 - wishes as u64);
    asked(&bind(&mut world, other, "api.prod", API, ""));
    for number in 0..100 {
        resolved(
            &mut world,
            &format!("n{number}.prod"),
            Resolved::Absent(TTL),
        );
    }
    asked(&bind(&mut world, greedy, "later.prod", API, ""));

    // Names that are there: so many, until a link ends.
    let mut accepted = 0;
    for number in 0..2 * MAX_NAMES_OF_NODE {
        let name = format!("m{number}.prod");
        let address = format!("198.19.{}.{}", number / 250, number % 250 + 1);
        bind(&mut world, other, &name, &address, "");
        let outputs = resolved(&mut world, &name, addresses(&["10.1.2.3"]));
        accepted += usize::from(told(&outputs).accepted);
    }
    assert_eq!(accepted, MAX_NAMES_OF_NODE);
    world.input(Input::LinkClosed { link: other });
    assert_eq!(world.gateway.forwarder.nat().clients(), 0);
    let again = open(&mut world, "west/workload/b", 2);
    bind(&mut world, again, "m0.prod", API, "");
    assert!(syn(&mut world, again, API).is_some());
    world.advance(Duration::from_secs(400));
    world.input(Input::LinkClosed { link: again });
    world.advance(Duration::from_secs(400));
    world.advance(Duration::from_secs(400));
    let unanswered = ["api.prod", "later.prod", "m0.prod"];
    assert_eq!(world.gateway.names().len(), unanswered.len());
}

#[test]
fn wildcards_are_announced_and_such_that_could_not_work_are_refused() {
    let world = world();
    let services = &world.gateway.registration().services;
    let prod = services.iter().find(|it| it.name == "*.prod").unwrap();
    assert_eq!(
        (prod.ipv4, prod.ipv6, &prod.tcp_ports[..]),
        (true, true, &[80][..])
    );
    let error = |exports: Vec<Exported>| ExportTable::of(exports).unwrap_err();
    assert!(matches!(
        error(vec![wildcard("*", "*.x", &[])]),
        ExportError::NoRange(_)
    ));
    for bad in ["127.0.0.0/8", "169.254.0.0/16", "fe80::/10", "224.0.0.0/4"] {
        let error = error(vec![wildcard("*", "*.x", &["10.0.0.0/8", bad])]);
        assert!(
            matches!(error, ExportError::NeverWithin { .. }),
            "{bad}: {error}"
        );
    }
    let twice = || wildcard("*.a", "*.x", &["0.0.0.0/0", "::/0"]);
    assert!(matches!(
        error(vec![twice(), twice()]),
        ExportError::Duplicate(_)
    ));
}
