//! What is told for the flow log.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use activator_proto::{
    Input, LinkKey, Output,
    forward::flow::{FlowEnd, FlowRecord, IDLE, Traffic, Verdict},
};
use support::{
    World, binding, node, offer,
    packet::{ACK, SYN, frame, tcp, udp},
};

const APP: &str = "west/workload/app";
const SIDECAR: &str = "198.18.0.1";
const ORDERS: &str = "198.18.0.5";
const STOCK: &str = "198.18.0.6";
const REAL: &str = "10.0.0.20";
const PART: Duration = Duration::from_secs(60);

fn world() -> World {
    let mut world = World::new().with_footholds();
    world.gateway.forwarder.tell_flows(PART);
    world
}

fn open(world: &mut World, number: u64) -> LinkKey {
    let bindings = vec![binding("orders", ORDERS, ""), binding("stock", STOCK, "")];
    match world.offer(APP, offer(number, bindings))[..] {
        [Output::Answer { link, .. }] => link,
        ref other => panic!("{other:?}"),
    }
}

fn send(world: &mut World, link: LinkKey, packet: &[u8]) -> u64 {
    let now = world.now;
    let mut frame = frame(packet);
    world.gateway.forwarder.to_service(link, &mut frame, now);
    packet.len() as u64
}

/// What came of the time that passes, as the shell lets it pass.
fn pass(world: &mut World, by: Duration) -> Vec<FlowRecord> {
    let until = world.now + by;
    while let Some(due) = world.gateway.forwarder.poll_timeout()
        && due <= until
    {
        world.now = due;
        world.gateway.forwarder.handle_timeout(due);
    }
    world.now = until;
    told(world)
}

fn told(world: &mut World) -> Vec<FlowRecord> {
    std::iter::from_fn(|| world.gateway.forwarder.poll_flow()).collect()
}

fn accepted(record: &FlowRecord) -> (&str, Duration, Traffic, FlowEnd) {
    match &record.verdict {
        Verdict::Accepted {
            lasted,
            traffic,
            end,
        } => (&record.service, *lasted, *traffic, *end),
        Verdict::Refused { .. } => panic!("{record:?}"),
    }
}

#[test]
fn a_use_that_is_over_is_told_once_with_what_went_both_ways() {
    let mut world = world();
    let link = open(&mut world, 1);
    assert_eq!(world.gateway.forwarder.poll_timeout(), None, "no use yet");
    let mut there = send(
        &mut world,
        link,
        &tcp((SIDECAR, 4000), (ORDERS, 8080), SYN, &[]),
    );
    assert_eq!(pass(&mut world, Duration::from_secs(4)), []);
    there += send(
        &mut world,
        link,
        &tcp((SIDECAR, 4000), (ORDERS, 8080), ACK, &[]),
    );
    // To a port that is not exported: no bytes of the service's.
    send(&mut world, link, &udp((SIDECAR, 4000), (ORDERS, 53), b"?"));

    let mut syn = frame(&tcp((SIDECAR, 4000), (ORDERS, 8080), SYN, &[]));
    world
        .gateway
        .forwarder
        .to_service(link, &mut syn, world.now);
    there += (syn.len() - 12) as u64;
    let client = wire_source(&syn);
    let answer = tcp((REAL, 8080), (&client, 4000), SYN | ACK, &[]);
    world
        .gateway
        .forwarder
        .to_link(&mut frame(&answer), world.now);

    let records = pass(&mut world, IDLE * 2);
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((record.link, &record.node), (link, &node(APP)));
    let traffic = Traffic {
        bytes_to_service: there,
        bytes_from_service: answer.len() as u64,
        connections: 2,
        refused_packets: 1,
    };
    let expected = ("orders", Duration::from_secs(4), traffic, FlowEnd::Idle);
    assert_eq!(accepted(record), expected);
    assert_eq!(
        world.gateway.forwarder.poll_timeout(),
        None,
        "nothing is looked for any more"
    );
    assert_eq!(pass(&mut world, IDLE * 2), []);
}

/// The source address of the IPv4 packet in a frame.
fn wire_source(frame: &[u8]) -> String {
    let [a, b, c, d] = [24, 25, 26, 27].map(|at| frame[at]);
    format!("{a}.{b}.{c}.{d}")
}

#[test]
fn a_use_that_goes_on_is_told_in_parts_that_add_up() {
    let mut world = world();
    let link = open(&mut world, 1);
    let mut sent = 0;
    let mut records = Vec::new();
    for _ in 0..200 {
        sent += send(
            &mut world,
            link,
            &udp((SIDECAR, 4000), (ORDERS, 9000), b"more"),
        );
        records.extend(pass(&mut world, Duration::from_secs(1)));
    }
    let ends: Vec<FlowEnd> = records.iter().map(|record| accepted(record).3).collect();
    assert_eq!(ends, [FlowEnd::Active; 3], "one a minute");
    records.extend(pass(&mut world, IDLE * 2));
    let parts = records.iter().map(accepted);
    let (lasted, bytes) = parts.fold((Duration::ZERO, 0), |(lasted, bytes), part| {
        (lasted + part.1, bytes + part.2.bytes_to_service)
    });
    assert_eq!(bytes, sent);
    // Between the last packet of a part and the first of the next is a second that is in none.
    assert_eq!(lasted, Duration::from_secs(199 - 3));
    assert_eq!(accepted(&records[3]).3, FlowEnd::Idle);
}

#[test]
fn uses_end_with_the_last_link_of_their_node_and_with_the_activator() {
    let mut world = world();
    let link = open(&mut world, 1);
    let second = open(&mut world, 2);
    send(
        &mut world,
        link,
        &udp((SIDECAR, 4000), (ORDERS, 9000), b"a"),
    );
    world.input(Input::LinkClosed { link });
    assert_eq!(told(&mut world), [], "it goes on over the other link");
    send(
        &mut world,
        second,
        &udp((SIDECAR, 4000), (ORDERS, 9000), b"b"),
    );
    world.input(Input::LinkClosed { link: second });
    let records = told(&mut world);
    assert_eq!(records.len(), 1, "nothing went to `stock`: {records:?}");
    assert_eq!(records[0].link, second);
    assert_eq!(accepted(&records[0]).3, FlowEnd::Closed);
    assert_eq!(accepted(&records[0]).2.bytes_to_service, 2 * 29);

    let third = open(&mut world, 3);
    send(
        &mut world,
        third,
        &tcp((SIDECAR, 4000), (STOCK, 8081), SYN, &[]),
    );
    world.gateway.forwarder.end_flows();
    let records = told(&mut world);
    assert_eq!(accepted(&records[0]).0, "stock");
    world.input(Input::LinkClosed { link: third });
    assert_eq!(told(&mut world), [], "it was told already");
}

#[test]
fn who_is_refused_is_told_with_the_reason() {
    let mut world = world();
    let both = vec![
        binding("orders", ORDERS, ""),
        binding("north-only", STOCK, ""),
    ];
    let link = match world.offer(APP, offer(1, both))[..] {
        [Output::Answer { link, .. }] => link,
        ref other => panic!("{other:?}"),
    };
    let records = told(&mut world);
    let [record] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((record.link, &record.node), (link, &node(APP)));
    assert_eq!(record.service, "north-only");
    let Verdict::Refused { reason } = &record.verdict else {
        panic!("{record:?}")
    };
    assert!(
        reason.contains("not open to the workload `app`"),
        "{reason}"
    );

    let alone = vec![binding("north-only", STOCK, "")];
    support::refusal(&world.offer(APP, offer(2, alone)));
    assert_eq!(told(&mut world).len(), 1, "also when that was all it asked");
}

#[test]
fn nothing_is_kept_when_nobody_wants_to_know() {
    let mut world = World::new().with_footholds();
    let link = open(&mut world, 1);
    send(
        &mut world,
        link,
        &udp((SIDECAR, 4000), (ORDERS, 9000), b"a"),
    );
    support::refusal(&world.offer(APP, offer(2, vec![binding("north-only", STOCK, "")])));
    assert_eq!(world.gateway.forwarder.poll_timeout(), None);
    world.input(Input::LinkClosed { link });
    assert_eq!(told(&mut world), []);
}
