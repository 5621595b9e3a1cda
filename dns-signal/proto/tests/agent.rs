//! Links on demand, as the workloads see them.

mod support;

use dns_signal_proto::agent::{AgentOutput, FrameDrop, LinkNotice};
use protocol::document::document::Body;
use protocol::document::{Bye, Candidate, Refusal, candidate};
use support::{DEVICE, ORDERS, SECOND, STOCK, World, frame};

fn open_world() -> World {
    let mut world = World::new();
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    world.settle();
    assert_eq!(world.open_links(), 1, "{:?}", world.notices);
    world
}

#[test]
fn a_wanted_name_opens_a_link_before_the_first_packet() {
    let mut world = open_world();
    assert_eq!(
        world.offer.as_ref().expect("an offer").bindings[0].service,
        "orders"
    );
    world.send(ORDERS, b"hello").expect("sent");
    world.settle();
    assert_eq!(world.received.len(), 1);
    assert!(world.received[0].ends_with(b"hello"));
    let steps: Vec<&str> = world.agent.status()[0]
        .steps
        .iter()
        .map(|step| step.name)
        .collect();
    assert_eq!(
        steps,
        [
            "dns_answer",
            "offer_sent",
            "answer_received",
            "ice_connected",
            "dtls_connected",
            "open"
        ]
    );
}

#[test]
fn packets_wait_while_the_link_opens_and_arrive_in_order() {
    let mut world = World::new();
    world.answers = false;
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    for n in 0..10_u8 {
        world.send(ORDERS, &[n]).expect("kept");
    }
    // The first offer gets lost; the next one is answered, well before the packets are too old.
    world.advance(2 * SECOND);
    world.answers = true;
    world.advance(2 * SECOND);
    assert_eq!(world.offers, 2);
    let payloads: Vec<u8> = world
        .received
        .iter()
        .map(|frame| frame[frame.len() - 1])
        .collect();
    assert_eq!(payloads, (0..10).collect::<Vec<u8>>());
}

#[test]
fn nobody_registered_is_tried_again_as_soon_as_somebody_is() {
    let mut world = World::new();
    world.want("orders", ORDERS);
    world.send(ORDERS, b"early").expect("kept");
    assert!(matches!(world.notices[0], LinkNotice::OpenFailed { .. }));
    world.advance(SECOND);
    world.register(1, support::relayed());
    world.advance(2 * SECOND);
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a_second_service_is_bound_on_the_same_link() {
    let mut world = open_world();
    world.want("stock", STOCK);
    world.send(STOCK, b"count").expect("kept");
    world.settle();
    assert_eq!(world.offers, 1);
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a_refused_service_is_said_so_and_gets_nothing() {
    let mut world = World::new();
    world.accepts = |service| service != "stock";
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    world.settle();
    world.want("stock", STOCK);
    world.settle();
    assert_eq!(world.send(STOCK, b"count"), Err(FrameDrop::ServiceRefused));
    assert!(world.notices.iter().any(|notice| matches!(notice,
        LinkNotice::ServiceRefused { reason, .. } if reason == "policy")));
    assert!(world.received.is_empty());
    world.send(ORDERS, b"hello").expect("sent");
    world.settle();
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a_link_may_only_speak_for_its_services_and_to_this_device() {
    let mut world = open_world();
    world
        .agent
        .learn_route(support::destination("stock", STOCK));
    world.reply(&frame(ORDERS, DEVICE, b"fine"));
    world.reply(&frame(STOCK, DEVICE, b"not bound"));
    world.reply(&frame("192.0.2.9", DEVICE, b"not a virtual IP"));
    world.reply(&frame(ORDERS, "198.18.0.2", b"not this device"));
    world.reply(b"\x10garbage");
    assert_eq!(world.to_tun.len(), 1);
    let drops: u64 = world.agent.stats().drops().map(|(_, count)| count).sum();
    assert_eq!(drops, 4);
}

#[test]
fn an_idle_link_is_torn_down_and_comes_back_on_the_next_packet() {
    let mut world = open_world();
    world.advance(61 * SECOND);
    assert_eq!(world.agent.status().len(), 0);
    assert!(
        world
            .documents
            .iter()
            .any(|body| matches!(body, Body::Bye(_)))
    );
    world.send(ORDERS, b"again").expect("kept");
    world.settle();
    assert_eq!(world.offers, 2);
    assert_eq!(world.received.len(), 1);
}

#[test]
fn an_activator_that_started_anew_is_met_anew_at_once() {
    let mut world = open_world();
    world.register(2, support::relayed());
    assert_eq!(world.open_links(), 0);
    world.send(ORDERS, b"again").expect("kept");
    world.settle();
    assert_eq!(world.offer.as_ref().expect("an offer").instance, 2);
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a_relayed_address_that_is_gone_is_left_and_without_another_its_link_ends() {
    let mut world = open_world();
    world.register(1, "10.0.0.2:50001".parse().expect("an address"));
    assert_eq!(world.open_links(), 1, "the activator may have another way");
    world.activator = None;
    world.advance(5 * SECOND);
    assert_eq!(world.open_links(), 0);
}

#[test]
fn an_activator_that_falls_silent_is_replaced_by_another_within_a_second() {
    let mut world = World::new();
    world.register_all(&["gate", "other"], 1, support::relayed());
    world.want("orders", ORDERS);
    world.settle();
    assert_eq!(world.node.name.as_str(), "gate");
    world.activator = None;
    world.send(ORDERS, b"lost").expect("sent");
    world.advance(SECOND);
    assert_eq!((world.offers, world.node.name.as_str()), (2, "other"));
    assert_eq!(world.agent.stats().links_replaced, 1);
    world.send(ORDERS, b"hello").expect("sent");
    world.settle();
    assert_eq!(world.received.len(), 1);
    world.advance(5 * SECOND);
    assert_eq!(world.open_links(), 1, "the silent one ends by itself");
}

#[test]
fn an_activator_that_failed_and_started_anew_replaces_the_other_in_its_turn() {
    let mut world = World::new();
    world.register_all(&["gate", "other"], 1, support::relayed());
    world.want("orders", ORDERS);
    world.settle();
    for (instance, next) in [(1, "other"), (2, "gate")] {
        world.register_all(&["gate", "other"], 1, support::relayed());
        assert_eq!(instance, world.offers as u64);
        world.activator = None;
        world.send(ORDERS, b"lost").expect("sent");
        world.advance(2 * SECOND);
        assert_eq!(world.node.name.as_str(), next);
    }
    assert_eq!(world.agent.stats().links_replaced, 2);
}

#[test]
fn an_only_activator_that_falls_silent_is_offered_nothing_until_its_link_is_over() {
    let mut world = open_world();
    world.activator = None;
    world.send(ORDERS, b"lost").expect("sent");
    world.advance(SECOND);
    assert_eq!(world.offers, 1);
    world.send(ORDERS, b"into silence").expect("sent");
    world.advance(5 * SECOND);
    assert_eq!(world.offers, 2, "what nobody answered waits for a link");
    assert_eq!(world.received.len(), 1);
    world.send(ORDERS, b"again").expect("sent");
    world.settle();
    assert_eq!((world.offers, world.received.len()), (2, 2));
}

#[test]
fn a_registration_that_vanishes_leaves_open_links_alone() {
    let mut world = open_world();
    world
        .agent
        .handle_peers(dns_signal_proto::agent::Peers::default(), world.now);
    world.send(ORDERS, b"still").expect("sent");
    world.settle();
    assert_eq!(world.received.len(), 1);
}

#[test]
fn a_refusal_names_its_reason() {
    let mut world = World::new();
    world.answers = false;
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    let link = world.offer.as_ref().expect("an offer").link;
    world.document(Body::Refusal(Refusal {
        link,
        reason: "not today".to_owned(),
    }));
    assert!(world.notices.iter().any(|notice| matches!(notice,
        LinkNotice::Closed { reason, opened: false, .. } if reason.contains("not today"))));
    assert!(world.agent.status().is_empty());
}

#[test]
fn another_fingerprint_than_the_signed_one_ends_the_link_and_the_peer_is_told() {
    let mut world = World::new();
    world.forge_fingerprint = true;
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    world.settle();
    assert_eq!(world.open_links(), 0);
    assert!(world.notices.iter().any(|notice| matches!(notice,
        LinkNotice::Closed { reason, .. } if reason.contains("fingerprint"))));
    assert!(world.documents.iter().any(|body| matches!(body,
        Body::Bye(bye) if bye.reason.contains("fingerprint"))));
}

#[test]
fn an_answer_that_is_not_believed_ends_the_wait_and_the_peer_is_told() {
    let mut world = World::new();
    world.answers = false;
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    let node = world.node.clone();
    world
        .agent
        .handle_rejected(&node, "the signature is wrong", world.now);
    world.advance(std::time::Duration::ZERO);
    assert!(world.documents.iter().any(|body| matches!(body,
        Body::Bye(bye) if bye.reason.contains("the signature is wrong"))));
    assert!(world.agent.status().is_empty());
}

#[test]
fn a_refusal_of_an_offer_that_could_not_be_read_names_no_link() {
    let mut world = World::new();
    world.answers = false;
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    let reason = "the signature is wrong".to_owned();
    world.document(Body::Refusal(Refusal { link: 0, reason }));
    assert!(world.notices.iter().any(|notice| matches!(notice,
        LinkNotice::Closed { reason, .. } if reason.contains("the signature is wrong"))));
}

#[test]
fn documents_of_strangers_and_of_no_link_are_counted_and_ignored() {
    let mut world = open_world();
    let link = world.agent.status()[0].link;
    let stranger = "east/activator/other".parse().expect("an id");
    let bye = Body::Bye(Bye {
        link,
        reason: String::new(),
    });
    world.agent.handle_document(&stranger, bye, world.now);
    world.document(Body::Bye(Bye {
        link: link + 1,
        reason: String::new(),
    }));
    assert_eq!(world.open_links(), 1);
    assert_eq!(world.agent.stats().stray_documents, 2);
}

#[test]
fn two_hundred_links_come_and_go_and_leave_nothing() {
    let mut world = World::new();
    world.register(1, support::relayed());
    for _ in 0..200 {
        world
            .send(ORDERS, b"x")
            .map_or_else(|_| world.want("orders", ORDERS), |()| {});
        world.settle();
        assert_eq!(world.open_links(), 1);
        world.advance(61 * SECOND);
        assert!(world.agent.status().is_empty());
    }
    assert_eq!(world.agent.stats().links_opened, 200);
    assert_eq!(world.agent.stats().links_closed, 200);
}

/// The answer of a STUN server to the request that the agent has for it: XOR-MAPPED-ADDRESS, RFC 8489 section 14.2.
fn seen_as(world: &mut World, seen: std::net::SocketAddrV4) {
    let Some(AgentOutput::Transmit(request)) = world.agent.poll_output() else {
        panic!("a Binding request");
    };
    let mut answer = vec![0x01, 0x01, 0, 12];
    answer.extend(&request.payload[4..20]);
    answer.extend([0, 0x20, 0, 8, 0, 1]);
    answer.extend((seen.port() ^ 0x2112).to_be_bytes());
    answer.extend((seen.ip().to_bits() ^ 0x2112_a442).to_be_bytes());
    let (local, remote) = (request.local, request.remote);
    let answer = answer.as_slice().into();
    world
        .agent
        .handle_datagram(local, remote, answer, world.now);
}

fn reflexive(candidates: &[Candidate]) -> Vec<&str> {
    let kind = |one: &&Candidate| one.kind() == candidate::Kind::ServerReflexive;
    candidates
        .iter()
        .filter(kind)
        .map(|one| one.address.as_str())
        .collect()
}

#[test]
fn what_stun_servers_see_is_in_the_offer_and_what_they_see_later_is_trickled() {
    let server = "203.0.113.22:3478".parse().expect("an address");
    let first = "203.0.113.11:40000".parse().expect("an address");
    let mut world = World::new();
    world.agent.handle_stun_servers(&[server], world.now);
    seen_as(&mut world, first);
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    world.settle();
    let offer = world.offer.clone().expect("an offer");
    let description = offer.description.expect("a description");
    assert_eq!(reflexive(&description.candidates), ["203.0.113.11:40000"]);
    // Asked anew, it is another: the NAT forgot its mapping.
    world.documents.clear();
    world.agent.handle_stun_servers(&[], world.now);
    world.agent.handle_stun_servers(&[server], world.now);
    seen_as(
        &mut world,
        "203.0.113.11:50000".parse().expect("an address"),
    );
    world.settle();
    world.advance(SECOND);
    let told = world.documents.iter().find_map(|body| match body {
        Body::Candidates(told) if told.link == offer.link => Some(told),
        _ => None,
    });
    let told = told.expect("the activator is told");
    assert_eq!(reflexive(&told.candidates), ["203.0.113.11:50000"]);
}
