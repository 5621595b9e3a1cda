//! What goes nowhere is refused, and what may still arrive is not.

mod support;

use std::time::Duration;

use dns_signal_proto::agent::FrameDrop;
use support::{DEVICE, ORDERS, SECOND, World, frame};
use wire::frame::HEADER_LEN;
use wire::ip::{Packet, Protocol};

const SYN: u8 = 2;
const RST_ACK: u8 = 4 | 16;

/// A frame with a TCP segment without data to port 80.
fn syn(to: &str) -> Vec<u8> {
    let mut segment = [0; 20];
    segment[..2].copy_from_slice(&40_000_u16.to_be_bytes());
    segment[2..4].copy_from_slice(&80_u16.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = SYN;
    let mut frame = frame(DEVICE, to, &segment);
    frame[HEADER_LEN + 9] = 6;
    frame
}

fn send(world: &mut World, frame: &[u8]) -> Result<(), FrameDrop> {
    let to = ORDERS.parse().expect("an address");
    world.agent.handle_frame(frame, to, world.now)
}

#[test]
fn an_address_of_nobody_is_refused_at_once() {
    let mut world = World::new();
    let segment = syn(ORDERS);
    assert_eq!(
        send(&mut world, &segment),
        Err(FrameDrop::UnknownDestination)
    );
    world
        .agent
        .refuse_frame(&segment, FrameDrop::UnknownDestination);
    let datagram = frame(DEVICE, ORDERS, b"what");
    world
        .agent
        .refuse_frame(&datagram, FrameDrop::UnknownDestination);
    world.advance(Duration::ZERO);
    let [reset, unreachable] = &world.to_tun[..] else {
        panic!("two answers: {:?}", world.to_tun)
    };
    let reset = Packet::parse(&reset[HEADER_LEN..]).expect("a packet");
    assert_eq!(reset.tcp_flags(), Some(RST_ACK));
    assert_eq!(reset.ports(), Some((80, 40_000)));
    assert_eq!(reset.source().to_string(), ORDERS);
    let unreachable = Packet::parse(&unreachable[HEADER_LEN..]).expect("a packet");
    assert_eq!(unreachable.layout().protocol, Protocol::Icmp);
    assert_eq!(unreachable.icmp(), Some((3, 3)));
    let drops: Vec<_> = world.agent.stats().drops().collect();
    assert!(drops.contains(&(FrameDrop::UnknownDestination, 2)));
    // No answer to an answer.
    let answer = world.to_tun[0].clone();
    world
        .agent
        .refuse_frame(&answer, FrameDrop::UnknownDestination);
    world.advance(Duration::ZERO);
    assert_eq!(world.to_tun.len(), 2);
}

#[test]
fn a_service_that_nobody_exports_any_more_is_refused_when_no_link_came() {
    let mut world = World::new();
    world.want("orders", ORDERS);
    send(&mut world, &syn(ORDERS)).expect("kept");
    world.advance(4 * SECOND);
    assert_eq!(world.to_tun.len(), 0, "an activator may start anew");
    world.advance(4 * SECOND);
    assert_eq!(world.to_tun.len(), 1);
    let reset = Packet::parse(&world.to_tun[0][HEADER_LEN..]).expect("a packet");
    assert_eq!(reset.tcp_flags(), Some(RST_ACK));
}

#[test]
fn a_service_whose_activator_is_slow_is_not_refused() {
    let mut world = World::new();
    world.answers = false;
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    send(&mut world, &syn(ORDERS)).expect("kept");
    world.advance(9 * SECOND);
    assert_eq!(world.to_tun.len(), 0);
    assert_eq!(world.agent.stats().dropped_waiting, 1);
}

#[test]
fn a_service_that_the_activator_refuses_is_refused_here_too() {
    let mut world = World::new();
    world.accepts = |service| service != "orders";
    world.register(1, support::relayed());
    world.want("orders", ORDERS);
    send(&mut world, &syn(ORDERS)).expect("kept");
    world.advance(Duration::ZERO);
    assert_eq!(
        send(&mut world, &syn(ORDERS)),
        Err(FrameDrop::ServiceRefused)
    );
    world.advance(Duration::ZERO);
    assert_eq!(world.to_tun.len(), 2, "also the one that waited");
    assert_eq!(world.received.len(), 0);
}
