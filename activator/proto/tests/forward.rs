//! Packets between links and services.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Instant;

use activator_proto::{
    Forwarder, Input, LinkKey, Output,
    forward::{FromLink, FromTun, fit_mss},
    stats::DropReason,
};
use support::{
    World, binding, offer, orders,
    packet::{self, ACK, RST, SYN, checked, frame, icmp, tcp, transport, udp},
};
use wire::frame::{Frame, Gso, GsoKind, HEADER_LEN, Header, PartialChecksum};

const APP: &str = "west/workload/app";
const SIDECAR: &str = "198.18.0.1";
const SIDECAR6: &str = "fd74:7572:6e70::1";
const ORDERS: &str = "198.18.0.5";
const ORDERS6: &str = "fd74:7572:6e70::5";
const STOCK: &str = "198.18.0.6";
const REAL: &str = "10.0.0.20";
const REAL6: &str = "fd00:10::20";

/// A link bound to `orders` and `stock`, which stand on one address.
fn bound() -> (World, LinkKey) {
    let mut world = World::new().with_footholds();
    let link = open(&mut world, 1);
    (world, link)
}

fn open(world: &mut World, number: u64) -> LinkKey {
    let bindings = vec![
        binding("orders", ORDERS, ORDERS6),
        binding("stock", STOCK, ""),
    ];
    match world.offer(APP, offer(number, bindings))[..] {
        [Output::Answer { link, .. }] => link,
        ref other => panic!("{other:?}"),
    }
}

/// What arrives at the service, if anything does.
fn to_service(
    forwarder: &mut Forwarder,
    link: LinkKey,
    packet: &[u8],
) -> Result<Vec<u8>, DropReason> {
    let mut frame = frame(packet);
    match forwarder.to_service(link, &mut frame, Instant::now()) {
        FromLink::ToService => Ok(frame[12..].to_vec()),
        FromLink::Refused(answer) => panic!("refused: {answer:?}"),
        FromLink::Dropped(reason) => Err(reason),
    }
}

fn refusal(forwarder: &mut Forwarder, link: LinkKey, packet: &[u8]) -> Vec<u8> {
    match forwarder.to_service(link, &mut frame(packet), Instant::now()) {
        FromLink::Refused(answer) => answer[12..].to_vec(),
        other => panic!("{other:?}"),
    }
}

/// What arrives at the sidecar, if anything does.
fn to_link(forwarder: &mut Forwarder, packet: &[u8]) -> Result<(LinkKey, Vec<u8>), DropReason> {
    let mut frame = frame(packet);
    match forwarder.to_link(&mut frame, Instant::now()) {
        FromTun::ToLink(link) => Ok((link, frame[12..].to_vec())),
        FromTun::Dropped(reason) => Err(reason),
    }
}

/// The client address a packet from the sidecar gets.
fn client(
    forwarder: &mut Forwarder,
    link: LinkKey,
    source: &str,
    virtual_ip: &str,
    port: u16,
) -> String {
    let packet = tcp((source, 4000), (virtual_ip, port), SYN, &[]);
    checked(&to_service(forwarder, link, &packet).unwrap()).0
}

#[test]
fn a_connection_goes_to_the_real_address_and_its_answer_comes_back_from_the_virtual_one() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    for (sidecar, virtual_ip, real) in [(SIDECAR, ORDERS, REAL), (SIDECAR6, ORDERS6, REAL6)] {
        let packet = tcp((sidecar, 4000), (virtual_ip, 8080), SYN, &[]);
        let arrived = to_service(forwarder, link, &packet).unwrap();
        let (client, destination) = checked(&arrived);
        assert_eq!(destination, real);
        assert_ne!(client, sidecar);

        let answer = tcp((real, 8080), (&client, 4000), SYN | ACK, &[]);
        let (back, packet) = to_link(forwarder, &answer).unwrap();
        assert_eq!(back, link);
        assert_eq!(
            checked(&packet),
            (virtual_ip.to_owned(), sidecar.to_owned())
        );
    }
    let stats = forwarder.stats();
    assert_eq!((stats.frames_to_services, stats.frames_to_links), (2, 2));
}

#[test]
fn datagrams_and_pings_go_both_ways() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    let packet = udp((SIDECAR, 4000), (ORDERS, 9000), b"hello");
    let (client, destination) = checked(&to_service(forwarder, link, &packet).unwrap());
    assert_eq!(destination, REAL);
    let (_, packet) = to_link(forwarder, &udp((REAL, 9000), (&client, 4000), b"hi")).unwrap();
    assert_eq!(checked(&packet), (ORDERS.to_owned(), SIDECAR.to_owned()));

    for (sidecar, virtual_ip, real, request, reply) in [
        (SIDECAR, ORDERS, REAL, 8, 0),
        (SIDECAR6, ORDERS6, REAL6, 128, 129),
    ] {
        let ping = icmp(sidecar, virtual_ip, request, 0, &[1, 2, 0, 1, 9, 9]);
        let (client, destination) = checked(&to_service(forwarder, link, &ping).unwrap());
        assert_eq!(destination, real);
        let pong = icmp(real, &client, reply, 0, &[1, 2, 0, 1, 9, 9]);
        let (_, packet) = to_link(forwarder, &pong).unwrap();
        assert_eq!(
            checked(&packet),
            (virtual_ip.to_owned(), sidecar.to_owned())
        );
    }
}

#[test]
fn two_services_on_one_address_are_not_confused_not_even_in_answers_to_pings() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    for virtual_ip in [ORDERS, STOCK] {
        let ping = icmp(SIDECAR, virtual_ip, 8, 0, &[1, 2, 0, 1]);
        let (client, destination) = checked(&to_service(forwarder, link, &ping).unwrap());
        assert_eq!(destination, REAL);
        let (_, packet) = to_link(forwarder, &icmp(REAL, &client, 0, 0, &[1, 2, 0, 1])).unwrap();
        assert_eq!(checked(&packet).0, virtual_ip);
    }
}

#[test]
fn two_sidecars_of_one_service_have_different_clients() {
    let (mut world, first) = bound();
    let outputs = world.offer("west/workload/other", orders(2));
    let [Output::Answer { link: second, .. }] = outputs[..] else {
        panic!("{outputs:?}")
    };
    let forwarder = &mut world.gateway.forwarder;
    let a = client(forwarder, first, SIDECAR, ORDERS, 8080);
    let b = client(forwarder, second, SIDECAR, ORDERS, 8080);
    assert_ne!(a, b);
    let answer = tcp((REAL, 8080), (&b, 4000), ACK, &[]);
    assert_eq!(to_link(forwarder, &answer).unwrap().0, second);
}

#[test]
fn a_tcp_port_that_is_not_exported_is_refused_with_a_reset() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    for (sidecar, virtual_ip, port) in [
        (SIDECAR, ORDERS, 22),
        (SIDECAR6, ORDERS6, 22),
        (SIDECAR, STOCK, 8080),
    ] {
        let reset = refusal(
            forwarder,
            link,
            &tcp((sidecar, 4000), (virtual_ip, port), SYN, &[]),
        );
        assert_eq!(checked(&reset), (virtual_ip.to_owned(), sidecar.to_owned()));
        let header = transport(&reset);
        assert_eq!(
            header[0..4],
            [port.to_be_bytes(), 4000_u16.to_be_bytes()].concat()
        );
        assert_eq!(header[13], RST | ACK);
        assert_eq!(header[8..12], 1001_u32.to_be_bytes());
    }
    assert_eq!(forwarder.stats().tcp_refused, 3);
    let unasked = tcp((SIDECAR, 4000), (ORDERS, 22), RST, &[]);
    assert_eq!(
        to_service(forwarder, link, &unasked),
        Err(DropReason::PortNotExported)
    );
}

#[test]
fn a_udp_port_that_is_not_exported_is_refused_with_port_unreachable() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    for (sidecar, virtual_ip, kind, code) in [(SIDECAR, ORDERS, 3, 3), (SIDECAR6, ORDERS6, 1, 4)] {
        // 8080 is exported, but for TCP.
        let refused = refusal(
            forwarder,
            link,
            &udp((sidecar, 4000), (virtual_ip, 8080), b"?"),
        );
        assert_eq!(
            checked(&refused),
            (virtual_ip.to_owned(), sidecar.to_owned())
        );
        assert_eq!(transport(&refused)[..2], [kind, code]);
    }
    assert_eq!(forwarder.stats().udp_refused, 2);
}

#[test]
fn a_source_other_than_the_sidecars_is_dropped() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    client(forwarder, link, SIDECAR, ORDERS, 8080);
    let spoofed = tcp(("198.18.0.99", 4000), (ORDERS, 8080), SYN, &[]);
    assert_eq!(
        to_service(forwarder, link, &spoofed),
        Err(DropReason::SpoofedSource)
    );
    assert_eq!(forwarder.stats().drops(DropReason::SpoofedSource), 1);
    // The other family has an address of its own, and another link its own sidecar.
    client(forwarder, link, SIDECAR6, ORDERS6, 8080);
    let other = open(&mut world, 2);
    client(
        &mut world.gateway.forwarder,
        other,
        "198.18.0.99",
        ORDERS,
        8080,
    );
}

#[test]
fn destinations_without_a_binding_are_dropped() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    for destination in ["198.18.0.7", REAL, "10.0.0.1", "127.0.0.1"] {
        let packet = tcp((SIDECAR, 4000), (destination, 8080), SYN, &[]);
        assert_eq!(
            to_service(forwarder, link, &packet),
            Err(DropReason::UnknownVirtualIp)
        );
    }
    let packet = tcp((SIDECAR, 4000), (ORDERS, 8080), SYN, &[]);
    assert_eq!(
        to_service(forwarder, LinkKey(99), &packet),
        Err(DropReason::UnknownVirtualIp)
    );
}

#[test]
fn only_tcp_udp_echo_and_errors_cross() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    let gre = packet::ip_packet(SIDECAR, ORDERS, 47, vec![0; 20], None);
    for packet in [
        gre,
        icmp(SIDECAR, ORDERS, 13, 0, &[0; 16]),
        icmp(SIDECAR, ORDERS, 0, 0, &[0; 4]),
    ] {
        assert_eq!(
            to_service(forwarder, link, &packet),
            Err(DropReason::ForbiddenProtocol)
        );
    }
    let client = client(forwarder, link, SIDECAR, ORDERS, 8080);
    let gre = packet::ip_packet(REAL, &client, 47, vec![0; 20], None);
    for packet in [gre, icmp(REAL, &client, 8, 0, &[0; 4])] {
        assert_eq!(
            to_link(forwarder, &packet),
            Err(DropReason::ForbiddenProtocol)
        );
    }
}

#[test]
fn from_the_tun_only_the_service_itself_may_answer_and_only_clients_that_exist_are_reached() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    let client = client(forwarder, link, SIDECAR, ORDERS, 8080);
    let foreign = tcp(("10.0.0.66", 8080), (&client, 4000), ACK, &[]);
    assert_eq!(to_link(forwarder, &foreign), Err(DropReason::ForeignSource));
    for nobody in ["100.89.0.1", "100.89.77.77", "100.90.0.2", "224.0.0.22"] {
        let packet = udp((REAL, 9000), (nobody, 4000), b"");
        assert_eq!(to_link(forwarder, &packet), Err(DropReason::UnknownClient));
    }
}

#[test]
fn an_icmp_error_of_a_router_on_the_way_reaches_the_sidecar_with_what_it_quotes_rewritten() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    for (sidecar, virtual_ip, real, router, kind) in [
        (SIDECAR, ORDERS, REAL, "10.0.0.1", 3),
        (SIDECAR6, ORDERS6, REAL6, "fd00:10::1", 1),
    ] {
        let packet = udp((sidecar, 4000), (virtual_ip, 9000), b"lost");
        let sent = to_service(forwarder, link, &packet).unwrap();
        let (client, _) = checked(&sent);
        let error = icmp(router, &client, kind, 1, &[&[0; 4], &sent[..]].concat());
        let (_, error) = to_link(forwarder, &error).unwrap();
        assert_eq!(checked(&error), (virtual_ip.to_owned(), sidecar.to_owned()));
        let quoted = &transport(&error)[8..];
        assert_eq!(quoted, packet, "what the sidecar sent, byte for byte");
        let _ = real;
    }
}

#[test]
fn an_icmp_error_of_the_sidecar_reaches_the_service_with_what_it_quotes_rewritten() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    let client = client(forwarder, link, SIDECAR, ORDERS, 8080);
    let sent = udp((REAL, 9000), (&client, 4000), b"late");
    let (_, received) = to_link(forwarder, &sent).unwrap();
    let error = icmp(SIDECAR, ORDERS, 3, 3, &[&[0; 4], &received[..]].concat());
    let error = to_service(forwarder, link, &error).unwrap();
    assert_eq!(checked(&error), (client, REAL.to_owned()));
    assert_eq!(transport(&error)[8..], sent);
}

#[test]
fn udp_fragments_pass_and_tcp_fragments_do_not() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    let first = packet::fragment(udp((SIDECAR, 4000), (ORDERS, 9000), &[1; 1000]), 0, true);
    to_service(forwarder, link, &first).unwrap();
    let later = packet::ip_packet(SIDECAR, ORDERS, packet::UDP, vec![2; 600], None);
    let arrived = to_service(forwarder, link, &packet::fragment(later, 126, false)).unwrap();
    assert_eq!(arrived[20..], [2; 600], "its data is left alone");
    assert_eq!(arrived[16..20], [10, 0, 0, 20]);

    for (offset, more) in [(0, true), (1, false), (2, false)] {
        let packet = tcp((SIDECAR, 4000), (ORDERS, 8080), ACK, &[]);
        let packet = packet::fragment(packet, offset, more);
        assert_eq!(
            to_service(forwarder, link, &packet),
            Err(DropReason::SuspiciousFragment)
        );
    }
    // The first fragment decides by its port.
    let first = packet::fragment(udp((SIDECAR, 4000), (ORDERS, 53), &[1; 1000]), 0, true);
    refusal(forwarder, link, &first);
}

#[test]
fn the_mss_is_kept_to_the_tunnels_mtu_both_ways() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    let mss = |packet: &[u8]| {
        checked(packet);
        u16::from_be_bytes(transport(packet)[22..24].try_into().unwrap())
    };
    for (sidecar, virtual_ip, real, most) in [
        (SIDECAR, ORDERS, REAL, 1360),
        (SIDECAR6, ORDERS6, REAL6, 1340),
    ] {
        let large = [2, 4, 0x23, 0x00];
        let arrived = to_service(
            forwarder,
            link,
            &tcp((sidecar, 4000), (virtual_ip, 8080), SYN, &large),
        )
        .unwrap();
        assert_eq!(mss(&arrived), most);
        let (client, _) = checked(&arrived);
        let (_, packet) = to_link(
            forwarder,
            &tcp((real, 8080), (&client, 4000), SYN | ACK, &large),
        )
        .unwrap();
        assert_eq!(mss(&packet), most);
        let small = [2, 4, 2, 0];
        let arrived = to_service(
            forwarder,
            link,
            &tcp((sidecar, 4001), (virtual_ip, 8080), SYN, &small),
        )
        .unwrap();
        assert_eq!(mss(&arrived), 512);
    }
}

#[test]
fn the_mss_is_kept_to_what_the_path_carries() {
    let syn = tcp((SIDECAR, 4000), (ORDERS, 8080), SYN, &[2, 4, 0x23, 0x00]);
    for (mtu, most) in [(1_360, 1_320), (1_200, 1_160), (usize::MAX, 0x2300)] {
        let mut frame = frame(&syn);
        fit_mss(&mut frame, mtu);
        let packet = &frame[HEADER_LEN..];
        checked(packet);
        assert_eq!(transport(packet)[22..24], u16::to_be_bytes(most));
    }
    let mut later = frame(&tcp((SIDECAR, 4000), (ORDERS, 8080), ACK, &[2, 4, 0x23, 0]));
    let before = later.clone();
    fit_mss(&mut later, 1_200);
    assert_eq!(later, before, "only a SYN says it");
}

#[test]
fn a_joined_packet_with_a_partial_checksum_keeps_its_header_and_is_rewritten_once() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    let mut joined = tcp((SIDECAR, 4000), (ORDERS, 8080), ACK, &[]);
    joined.extend(vec![7; 60_000]);
    let total = u16::try_from(joined.len()).unwrap();
    joined[2..4].copy_from_slice(&total.to_be_bytes());
    let header = Header {
        gso: Some(Gso {
            kind: GsoKind::TcpV4,
            ecn: false,
            size: 1360,
        }),
        partial_checksum: Some(PartialChecksum {
            start: 20,
            offset: 16,
        }),
        headers_len: 40,
    };
    let mut frame = [&header.encode()[..], &joined].concat();
    assert_eq!(
        forwarder.to_service(link, &mut frame, Instant::now()),
        FromLink::ToService
    );
    let kept = Frame::decode(&frame).unwrap();
    assert_eq!(kept.header, header);
    assert_eq!(kept.packet.bytes().len(), joined.len());
    assert_eq!(kept.packet.destination(), support::ip(REAL));
}

#[test]
fn what_is_no_frame_is_dropped_and_counted() {
    let (mut world, link) = bound();
    let forwarder = &mut world.gateway.forwarder;
    let good = frame(&tcp((SIDECAR, 4000), (ORDERS, 8080), SYN, &[]));
    for cut in 0..good.len() {
        let mut frame = good[..cut].to_vec();
        assert_eq!(
            forwarder.to_service(link, &mut frame, Instant::now()),
            FromLink::Dropped(DropReason::Malformed)
        );
    }
    assert_eq!(
        forwarder.stats().drops(DropReason::Malformed),
        good.len() as u64
    );
    assert_eq!(to_link(forwarder, &[]), Err(DropReason::Malformed));
}

#[test]
fn a_virtual_ip_that_moves_to_another_service_leads_there() {
    let (mut world, link) = bound();
    world.input(Input::Bind {
        link,
        bindings: vec![binding("stock", ORDERS, "")],
    });
    let forwarder = &mut world.gateway.forwarder;
    to_service(
        forwarder,
        link,
        &tcp((SIDECAR, 1), (ORDERS, 8081), SYN, &[]),
    )
    .unwrap();
    refusal(
        forwarder,
        link,
        &tcp((SIDECAR, 1), (ORDERS, 8080), SYN, &[]),
    );
    assert_eq!(
        forwarder.nat().clients(),
        2,
        "the old binding's client is free again"
    );
}

#[test]
fn binding_the_same_again_changes_nothing() {
    let (mut world, link) = bound();
    let before = client(&mut world.gateway.forwarder, link, SIDECAR, ORDERS, 8080);
    world.input(Input::Bind {
        link,
        bindings: vec![binding("orders", ORDERS, ORDERS6)],
    });
    assert_eq!(
        client(&mut world.gateway.forwarder, link, SIDECAR, ORDERS, 8080),
        before
    );
    assert_eq!(world.gateway.forwarder.nat().clients(), 2);
}

#[test]
fn two_hundred_links_come_and_go_and_the_tables_are_empty_again() {
    let mut world = World::new().with_footholds();
    for round in 0..4_u64 {
        let mut clients = std::collections::BTreeSet::new();
        let mut links = Vec::new();
        for number in 0..50 {
            let from = format!("west/workload/app-{number}");
            let outputs = world.offer(&from, orders(round * 100 + number));
            let [Output::Answer { link, .. }] = outputs[..] else {
                panic!("{outputs:?}")
            };
            clients.insert(client(
                &mut world.gateway.forwarder,
                link,
                SIDECAR,
                ORDERS,
                8080,
            ));
            links.push(link);
        }
        assert_eq!(clients.len(), 50);
        for link in links {
            world.input(Input::LinkClosed { link });
        }
        let answer = tcp((REAL, 8080), (clients.first().unwrap(), 4000), ACK, &[]);
        let late = to_link(&mut world.gateway.forwarder, &answer);
        assert_eq!(late, Err(DropReason::UnknownClient));
    }
    assert!(world.gateway.links().is_empty());
    assert_eq!(
        (
            world.gateway.forwarder.nat().links(),
            world.gateway.forwarder.nat().clients()
        ),
        (0, 0)
    );
}

#[test]
fn a_second_link_of_a_sidecar_shares_its_addresses_and_answers_follow_it() {
    let mut world = World::new().with_footholds();
    let links = [1, 2].map(|number| open(&mut world, number));
    let forwarder = &mut world.gateway.forwarder;
    let address = client(forwarder, links[0], SIDECAR, ORDERS, 8080);
    let answer = tcp((REAL, 8080), (&address, 4000), ACK, &[]);
    let goes_to = |forwarder: &mut _| to_link(forwarder, &answer).map(|(link, _)| link);
    assert_eq!(
        goes_to(forwarder),
        Ok(links[0]),
        "the other is not used yet"
    );
    assert_eq!(client(forwarder, links[1], SIDECAR, ORDERS, 8080), address);
    assert_eq!(goes_to(forwarder), Ok(links[1]));
    world.input(Input::LinkClosed { link: links[1] });
    let forwarder = &mut world.gateway.forwarder;
    assert_eq!(goes_to(forwarder), Ok(links[0]));
    assert_eq!(forwarder.nat().clients(), 2);
    world.input(Input::LinkClosed { link: links[0] });
    assert_eq!(world.gateway.forwarder.nat().clients(), 0);
    let link = open(&mut world, 3);
    let again = client(&mut world.gateway.forwarder, link, SIDECAR, ORDERS, 8080);
    assert_eq!(
        again, address,
        "who comes back is known to the kernel as before"
    );
}
