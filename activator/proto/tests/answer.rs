//! Offers: accepted, or refused with a reason.
#![allow(clippy::unwrap_used)]

mod support;

use activator_proto::{
    Input, LinkKey, LinkLimits, Output,
    policy::{ExportError, ExportTable},
};
use protocol::document::Bye;
use support::{World, binding, export, offer, orders, refusal, relay};

const APP: &str = "west/workload/app";

#[test]
fn an_offer_from_a_network_with_a_foothold_is_answered_with_that_allocation() {
    let mut world = World::new().with_footholds();
    let outputs = world.offer(APP, orders(77));
    let [
        Output::Answer {
            link,
            to,
            relays,
            bindings,
            offer,
        },
    ] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert_eq!((*link, to.to_string().as_str()), (LinkKey(1), APP));
    assert_eq!(relays[..], [relay("west-relay")]);
    assert!(bindings[0].accepted && bindings[0].service == "orders");
    assert_eq!(offer.link, 77);
}

#[test]
fn an_offer_without_bindings_is_answered_because_they_can_follow() {
    let mut world = World::new().with_footholds();
    let outputs = world.offer(APP, offer(1, Vec::new()));
    let [Output::Answer { link, .. }] = outputs[..] else {
        panic!("{outputs:?}")
    };
    let bind = Input::Bind {
        link,
        bindings: vec![binding("orders", "198.18.0.5", "")],
    };
    let outputs = world.input(bind);
    let [Output::Bound { results, .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert!(results[0].accepted);
}

#[test]
fn a_repeated_offer_makes_no_second_link() {
    let mut world = World::new().with_footholds();
    world.offer(APP, orders(1));
    assert!(world.offer(APP, orders(1)).is_empty());
    assert_eq!(world.gateway.links().len(), 1);
    assert_eq!(
        world.offer("west/workload/other", orders(1)).len(),
        1,
        "another node's own number"
    );
}

#[test]
fn a_link_that_opens_ends_the_nodes_earlier_ones_and_nobody_elses() {
    let mut world = World::new().with_footholds();
    let mut answered = |from: &str, number| match world.offer(from, orders(number))[..] {
        [Output::Answer { link, .. }] => link,
        ref other => panic!("{other:?}"),
    };
    let (first, strange, second) = (
        answered(APP, 1),
        answered("west/workload/other", 1),
        answered(APP, 2),
    );
    assert!(world.input(Input::LinkOpened { link: first }).is_empty());
    assert!(world.input(Input::LinkOpened { link: strange }).is_empty());
    let outputs = world.input(Input::LinkOpened { link: second });
    let [Output::Close { link, .. }] = outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(link, first);
}

#[test]
fn an_offer_to_an_earlier_instance_is_refused() {
    let mut world = World::new().with_footholds();
    let mut late = orders(1);
    late.instance = 99;
    assert!(refusal(&world.offer(APP, late)).contains("instance 0000000000000063"));
}

#[test]
fn an_offer_from_a_network_without_a_foothold_is_answered_for_its_direct_way() {
    let mut world = World::new().with_footholds();
    let outputs = world.offer("north/workload/app", orders(1));
    let [Output::Answer { relays, .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert!(relays.is_empty());
}

#[test]
fn an_offer_without_a_foothold_and_without_a_candidate_is_refused() {
    let mut world = World::new().with_footholds();
    let mut offer = orders(1);
    offer.description.as_mut().unwrap().candidates.clear();
    let reason = refusal(&world.offer("north/workload/app", offer));
    assert!(
        reason.contains("no allocation in network `north`"),
        "{reason}"
    );
}

#[test]
fn an_unknown_service_is_refused_by_name() {
    let mut world = World::new().with_footholds();
    let unknown = offer(1, vec![binding("nothing", "198.18.0.5", "")]);
    assert_eq!(
        refusal(&world.offer(APP, unknown)),
        "unknown service `nothing`"
    );
    assert_eq!(world.gateway.forwarder.nat().links(), 0);
}

#[test]
fn a_service_is_refused_to_networks_it_is_not_open_to() {
    let mut world = World::new().with_footholds();
    let closed = offer(1, vec![binding("north-only", "198.18.0.5", "")]);
    let reason = refusal(&world.offer(APP, closed));
    assert!(
        reason.contains("policy") && reason.contains("`west`"),
        "{reason}"
    );
}

#[test]
fn one_good_binding_is_enough_and_each_has_its_own_result() {
    let mut world = World::new().with_footholds();
    let bindings = vec![
        binding("nothing", "198.18.0.4", ""),
        binding("orders", "198.18.0.5", ""),
        binding("stock", "", "fd74:7572:6e70::6"),
        binding("orders", "", ""),
        binding("no name\n", "198.18.0.7", ""),
    ];
    let outputs = world.offer(APP, offer(1, bindings));
    let [Output::Answer { bindings, .. }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    let accepted: Vec<bool> = bindings.iter().map(|result| result.accepted).collect();
    assert_eq!(accepted, [false, true, false, false, false]);
    assert!(
        bindings[2].reason.contains("family"),
        "stock has no IPv6 address"
    );
}

#[test]
fn an_activator_may_not_offer() {
    let mut world = World::new().with_footholds();
    assert!(refusal(&world.offer("west/activator/gate", orders(1))).contains("only workloads"));
}

#[test]
fn malformed_offers_are_refused() {
    let mut world = World::new().with_footholds();
    let mut bare = orders(1);
    bare.description = None;
    assert!(refusal(&world.offer(APP, bare)).contains("malformed"));

    let mut crowded = orders(2);
    let description = crowded.description.as_mut().unwrap();
    description.candidates = vec![description.candidates[0].clone(); 17];
    assert!(refusal(&world.offer(APP, crowded)).contains("candidates"));

    let mut anonymous = orders(3);
    anonymous
        .description
        .as_mut()
        .unwrap()
        .dtls_fingerprint
        .truncate(31);
    assert!(refusal(&world.offer(APP, anonymous)).contains("fingerprint"));
}

#[test]
fn links_are_bounded_per_node_and_in_all_and_a_closed_one_makes_room() {
    let limits = LinkLimits {
        total: 3,
        per_node: 2,
    };
    let mut world = World::with(support::exports(), limits, "100.89.0.0/16").with_footholds();
    world.offer(APP, orders(1));
    world.offer(APP, orders(2));
    assert!(refusal(&world.offer(APP, orders(3))).contains("already has 2 links"));
    world.offer("west/workload/b", orders(1));
    assert!(refusal(&world.offer("west/workload/c", orders(1))).contains("already has 3 links"));
    world.input(Input::LinkClosed { link: LinkKey(1) });
    assert!(matches!(
        world.offer(APP, orders(3))[..],
        [Output::Answer { .. }]
    ));
}

#[test]
fn an_exhausted_pool_refuses_and_a_closed_link_makes_room() {
    let exports = vec![export("orders", &["10.0.0.20"], &[8080], &[])];
    let mut world = World::with(exports, LinkLimits::default(), "192.0.2.0/29").with_footholds();
    let app = |number: u64| format!("west/workload/app-{number}");
    for link in 1..=5 {
        assert!(matches!(
            world.offer(&app(link), orders(link))[..],
            [Output::Answer { .. }]
        ));
    }
    assert!(refusal(&world.offer(&app(6), orders(6))).contains("no client address left"));
    world.input(Input::LinkClosed { link: LinkKey(3) });
    assert!(matches!(
        world.offer(&app(7), orders(7))[..],
        [Output::Answer { .. }]
    ));
}

#[test]
fn a_revoked_nodes_links_end() {
    let mut world = World::new().with_footholds();
    world.offer(APP, orders(1));
    world.offer("west/workload/other", orders(1));
    world.revoked.insert(support::serial(APP));
    let outputs = world.view();
    let [Output::Close { link, reason }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(*link, LinkKey(1));
    assert!(reason.contains("revoked"), "{reason}");
}

#[test]
fn the_offerer_can_give_a_link_up_but_nobody_elses() {
    let mut world = World::new().with_footholds();
    world.offer(APP, orders(9));
    let bye = || Bye {
        link: 9,
        reason: "bored".to_owned(),
    };
    let foreign = Input::Bye {
        from: support::node("west/workload/other"),
        bye: bye(),
    };
    assert!(world.input(foreign).is_empty());
    let outputs = world.input(Input::Bye {
        from: support::node(APP),
        bye: bye(),
    });
    assert!(matches!(&outputs[..], [Output::Close { reason, .. }] if reason.contains("bored")));
}

#[test]
fn exports_that_no_registration_could_say_are_refused() {
    let ports: Vec<u16> = (1..=60).collect();
    let exports = |count: usize| {
        (0..count)
            .map(|i| export(&format!("service-{i}"), &["10.0.0.20"], &ports, &ports))
            .collect()
    };
    assert!(ExportTable::new(exports(30)).is_ok());
    let error = ExportTable::new(exports(128)).unwrap_err();
    assert!(matches!(error, ExportError::TooLong(_)), "{error}");
}
