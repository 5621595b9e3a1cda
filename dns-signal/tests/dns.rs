//! DNS as a workload sees it: real sockets on loopback.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dns_signal::dns_listener::DnsListener;
use dns_signal::dns_metrics::DnsMetrics;
use dns_signal::dns_state;
use dns_signal_proto::virtual_ip::VirtualIps;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use support::{
    Dns, PATIENCE, Upstream, any_port, dead_address, eventually, peculiar_answer, pools, query,
    read_framed, services, write_framed,
};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

#[tokio::test]
async fn a_remote_name_gets_its_virtual_ips_and_triggers_the_link() {
    let mut dns = Dns::start(&[dead_address().await]);
    dns.resolver.publish(services());
    let before = Instant::now();
    let answered = dns.ask("oRders.EAST.mesh.internal.", RecordType::A).await;
    assert_eq!(answered.metadata.response_code, ResponseCode::NoError);
    assert_eq!(
        answered.queries[0].name().to_ascii(),
        "oRders.EAST.mesh.internal."
    );
    let ipv4 = answered.answers[0].data.ip_addr().unwrap();
    assert_eq!(ipv4, "198.18.186.11".parse::<IpAddr>().unwrap());
    assert_eq!(answered.answers[0].ttl, 5);

    let wanted = timeout(PATIENCE, dns.wanted.recv()).await.unwrap().unwrap();
    assert_eq!(
        (
            wanted.destination.service.as_str(),
            wanted.destination.network.as_str()
        ),
        ("orders", "east")
    );
    assert_eq!(wanted.destination.ipv4.map(IpAddr::V4), Some(ipv4));
    assert!(wanted.at >= before);

    let answered = dns
        .ask("orders.east.mesh.internal.", RecordType::AAAA)
        .await;
    let ipv6 = answered.answers[0].data.ip_addr().unwrap();
    assert_eq!(wanted.destination.ipv6.map(IpAddr::V6), Some(ipv6));

    // What a packet to it means, and its name in reverse.
    assert_eq!(dns.resolver.destination_of(ipv6), Some(wanted.destination));
    let answered = dns
        .ask("11.186.18.198.in-addr.arpa.", RecordType::PTR)
        .await;
    let RData::PTR(name) = &answered.answers[0].data else {
        panic!("{answered}")
    };
    assert_eq!(name.0.to_ascii(), "orders.east.mesh.internal.");
}

#[tokio::test]
async fn ours_but_absent_is_answered_with_soa_and_asks_nobody() {
    let upstream = Upstream::start(|query| vec![peculiar_answer(query)]).await;
    let dns = Dns::start(&[upstream.address]);
    // Before the directory was seen: no false "does not exist".
    let answered = dns.ask("orders.east.mesh.internal.", RecordType::A).await;
    assert_eq!(answered.metadata.response_code, ResponseCode::ServFail);

    dns.resolver.publish(services());
    for (name, record_type, code) in [
        (
            "nothing.east.mesh.internal.",
            RecordType::A,
            ResponseCode::NXDomain,
        ),
        (
            "orders.east.mesh.internal.",
            RecordType::HTTPS,
            ResponseCode::NoError,
        ),
        (
            "orders.east.mesh.internal.",
            RecordType::SVCB,
            ResponseCode::NoError,
        ),
        (
            "legacy.east.mesh.internal.",
            RecordType::AAAA,
            ResponseCode::NoError,
        ),
        (
            "9.9.18.198.in-addr.arpa.",
            RecordType::PTR,
            ResponseCode::NXDomain,
        ),
    ] {
        let answered = dns.ask(name, record_type).await;
        assert_eq!(
            answered.metadata.response_code, code,
            "{name} {record_type}"
        );
        assert!(answered.answers.is_empty());
        assert_eq!(answered.authorities[0].record_type(), RecordType::SOA);
    }
    assert!(upstream.queries().is_empty());
    let stats = dns.resolver.stats();
    // Each was asked over UDP and TCP.
    assert_eq!(
        (
            stats.no_such_name.get(),
            stats.no_data.get(),
            stats.directory_unknown.get()
        ),
        (4, 6, 2)
    );
}

#[tokio::test]
async fn malformed_messages_are_answered_by_the_protocol_or_dropped_and_the_service_lives() {
    let dns = Dns::start(&[dead_address().await]);
    dns.resolver.publish(services());
    let good = query("orders.east.mesh.internal.", RecordType::A);
    let socket = UdpSocket::bind(any_port()).await.unwrap();
    socket.connect(dns.address).await.unwrap();
    // Dropped: empty, short, a response, and random bytes with QR set.
    let mut response = good.clone();
    response[2] |= 0x80;
    for message in [&b""[..], b"x", &good[..11], &response, &[0xff; 600]] {
        socket.send(message).await.unwrap();
    }
    eventually("all dropped", || {
        dns.resolver.stats().unanswerable.get() == 5
    })
    .await;

    // Answered.
    let mut update = good.clone();
    update[2] |= 0x28;
    let mut two_questions = good.clone();
    two_questions[5] = 2;
    for (message, code) in [(update, 4), (two_questions, 1), (good[..20].to_vec(), 1)] {
        for answer in [dns.ask_udp(&message).await, dns.ask_tcp(&message).await] {
            assert_eq!(
                (answer[0], answer[1], answer[2] & 0x80, answer[3] & 0x0f),
                (0xbe, 0xef, 0x80, code)
            );
        }
    }
    assert_eq!(dns.resolver.stats().malformed.get(), 6);

    // Another class.
    let mut chaos = good.clone();
    let end = chaos.len();
    chaos[end - 1] = 3;
    assert_eq!(dns.ask_udp(&chaos).await[3] & 0x0f, 5);

    // A TCP connection that is no DNS is closed; one that breaks off harms nobody.
    let mut stream = TcpStream::connect(dns.address).await.unwrap();
    write_framed(&mut stream, b"hello").await;
    assert_eq!(read_framed(&mut stream).await, None);
    let mut stream = TcpStream::connect(dns.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &[0xff, 0xff, 1, 2, 3])
        .await
        .unwrap();
    drop(stream);
    assert_eq!(
        dns.ask("orders.east.mesh.internal.", RecordType::A)
            .await
            .answers
            .len(),
        1
    );
}

#[tokio::test]
async fn a_tcp_client_may_ask_many_times_without_waiting() {
    let upstream = Upstream::start(|query| vec![peculiar_answer(query)]).await;
    let dns = Dns::start(&[upstream.address]);
    dns.resolver.publish(services());
    let mut stream = TcpStream::connect(dns.address).await.unwrap();
    let ours = query("orders.east.mesh.internal.", RecordType::A);
    let theirs = query("example.com.", RecordType::A);
    for _ in 0..10 {
        write_framed(&mut stream, &ours).await;
        write_framed(&mut stream, &theirs).await;
    }
    for _ in 0..10 {
        let answer = Message::from_vec(&read_framed(&mut stream).await.unwrap()).unwrap();
        assert_eq!(answer.answers.len(), 1);
        assert_eq!(
            read_framed(&mut stream).await.unwrap(),
            peculiar_answer(&theirs)
        );
    }
}

#[tokio::test]
async fn an_answer_comes_from_the_address_that_was_asked() {
    let wildcard = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let dns = Dns::start_with(&[dead_address().await], VirtualIps::new(pools()), wildcard);
    dns.resolver.publish(services());
    let socket = UdpSocket::bind(any_port()).await.unwrap();
    let asked_at: SocketAddr = (Ipv4Addr::new(127, 0, 0, 77), dns.address.port()).into();
    socket
        .send_to(
            &query("orders.east.mesh.internal.", RecordType::A),
            asked_at,
        )
        .await
        .unwrap();
    let mut buffer = [0; 512];
    let (_, from) = timeout(PATIENCE, socket.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(from, asked_at);
}

#[tokio::test]
async fn an_answer_that_is_given_again_is_the_one_that_is_worked_out() {
    let dns = Dns::start(&[dead_address().await]);
    dns.resolver.publish(services());
    let with_edns = |name: &str, record_type| {
        let mut query = query(name, record_type);
        query[11] = 1;
        query.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
        query
    };
    for record_type in [RecordType::A, RecordType::AAAA, RecordType::ANY] {
        for (id, name) in [
            (1_u16, "orders.east.mesh.internal."),
            (2, "oRDers.eaST.mesh.INternal."),
            (3, "ORDERS.EAST.MESH.INTERNAL."),
        ] {
            for mut query in [query(name, record_type), with_edns(name, record_type)] {
                query[..2].copy_from_slice(&id.to_be_bytes());
                // TCP works every answer out.
                let worked_out = dns.ask_tcp(&query).await;
                for _ in 0..2 {
                    assert_eq!(
                        dns.ask_udp(&query).await,
                        worked_out,
                        "{name} {record_type}"
                    );
                }
            }
        }
    }
    let stats = dns.resolver.stats();
    assert_eq!((stats.udp.get(), stats.remote.get()), (36, 54));
    // Another view is seen at once.
    dns.resolver
        .publish(dns_signal_proto::services::Services::new(42));
    let gone = dns.ask("orders.east.mesh.internal.", RecordType::A).await;
    assert_eq!(gone.metadata.response_code, ResponseCode::NXDomain);
}

#[tokio::test]
async fn a_trigger_nobody_takes_never_delays_an_answer() {
    let dns = Dns::start(&[dead_address().await]);
    dns.resolver.publish(services());
    for _ in 0..300 {
        let answer = dns
            .ask_tcp(&query("orders.east.mesh.internal.", RecordType::A))
            .await;
        assert_eq!(answer[3] & 0x0f, 0);
    }
    assert_eq!(dns.resolver.stats().wanted_lost.get(), 300 - 256);
}

#[tokio::test]
async fn assignments_outlive_the_process_and_damage_is_survived() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("deep/state");
    let dns = Dns::start_with(
        &[dead_address().await],
        dns_state::load(&state, pools()),
        any_port(),
    );
    dns.resolver.publish(services());
    let keeper = tokio::spawn(dns_state::keep(dns.resolver.clone(), state.clone()));
    let answered = dns.ask("orders.east.mesh.internal.", RecordType::A).await;
    let address = answered.answers[0].data.ip_addr().unwrap();
    let file = state.join("virtual-ips");
    eventually("the file", || {
        std::fs::read_to_string(&file).is_ok_and(|text| text.contains("orders.east"))
    })
    .await;
    keeper.abort();
    drop(dns);

    // No query, no directory: a packet to a remembered address still finds its service.
    let again = Dns::start_with(
        &[dead_address().await],
        dns_state::load(&state, pools()),
        any_port(),
    );
    let destination = again.resolver.destination_of(address).unwrap();
    assert_eq!(
        (destination.service.as_str(), destination.network.as_str()),
        ("orders", "east")
    );

    std::fs::write(&file, [0xff; 40]).unwrap();
    assert!(dns_state::load(&state, pools()).is_empty());
    std::fs::write(&file, "").unwrap();
    assert!(dns_state::load(&state, pools()).is_empty());
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_field() {
    let taken = std::net::TcpListener::bind(any_port()).unwrap();
    let address = taken.local_addr().unwrap();
    let config = dns_signal::config::DnsConfig {
        listen: vec![address],
        upstreams: vec![address.into()],
        upstream_trust_file: None,
        cache_answers: 0,
        suffix: "mesh.internal".parse().unwrap(),
        ttl: Duration::from_secs(5),
        interception: dns_signal::interception::Wish::None,
        dnsmasq: Default::default(),
        aliases: dns_signal_proto::alias::Aliases::new("west".parse().unwrap()),
    };
    let (resolver, _wanted) = dns_signal::dns_resolver::Resolver::new(
        "mesh.internal".parse().unwrap(),
        VirtualIps::new(pools()),
    );
    let error = DnsListener::bind(&config, resolver)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!(
            "field `dns.listen[0]`: value `{address}`: the port is in use; "
        )),
        "{error}"
    );
}

#[tokio::test]
async fn metrics_show_what_became_of_queries() {
    let dns = Dns::start(&[dead_address().await]);
    dns.resolver.publish(services());
    dns.ask("orders.east.mesh.internal.", RecordType::A).await;
    dns.ask("nothing.east.mesh.internal.", RecordType::A).await;
    let upstreams = [any_port().into()];
    let upstreams =
        dns_signal::upstream::Upstreams::new(&upstreams, None, dns.resolver.clone()).unwrap();
    let mut registry = prometheus_client::registry::Registry::with_prefix("dns_signal");
    registry.register_collector(Box::new(DnsMetrics::new(dns.resolver.clone(), upstreams)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    for line in [
        "dns_signal_dns_queries_total{transport=\"udp\"} 2",
        "dns_signal_dns_queries_total{transport=\"tcp\"} 2",
        "dns_signal_dns_outcomes_total{outcome=\"remote\"} 2",
        "dns_signal_dns_outcomes_total{outcome=\"no_such_name\"} 2",
        "dns_signal_virtual_ips 1",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
}
