//! Forwarding: upstreams that record what they get, well-behaved or not.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use support::{
    Dns, PATIENCE, Upstream, any_port, dead_address, eventually, peculiar_answer, query, services,
};
use tokio::net::UdpSocket;
use tokio::time::timeout;

#[tokio::test]
async fn all_else_is_forwarded_and_answered_without_a_byte_changed() {
    let upstream = Upstream::start(|query| vec![peculiar_answer(query)]).await;
    let dns = Dns::start(&[upstream.address]);
    dns.resolver.publish(services());

    // Flags and trailing bytes that a decoder would lose.
    let mut asked = query("eXample.COM.", RecordType::TXT);
    asked[3] |= 0x70;
    let mut expected_answer = peculiar_answer(&asked);
    expected_answer[..2].copy_from_slice(&[0xbe, 0xef]);
    assert_eq!(dns.ask_udp(&asked).await, expected_answer);
    assert_eq!(dns.ask_tcp(&asked).await, expected_answer);

    let queries = upstream.queries();
    assert_eq!(queries.len(), 2, "one over UDP, one over TCP");
    for forwarded in &queries {
        assert_eq!(forwarded[2..], asked[2..], "only the id differs");
    }
    let ids: Vec<_> = queries.iter().map(|query| &query[..2]).collect();
    assert!(
        ids.iter().any(|id| **id != [0xbe, 0xef]),
        "the client's id must not be used towards the upstream"
    );
    assert_eq!(dns.resolver.stats().forwarded.get(), 2);
}

#[tokio::test]
async fn edns_reaches_the_upstream_and_large_answers_come_back() {
    let upstream = Upstream::start(|query| {
        let mut answer = peculiar_answer(query);
        answer.resize(4000, 7);
        vec![answer]
    })
    .await;
    let dns = Dns::start(&[upstream.address]);
    let mut message = Message::from_vec(&query("example.com.", RecordType::TXT)).unwrap();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    message.set_edns(edns);
    let asked = message.to_vec().unwrap();
    assert_eq!(dns.ask_udp(&asked).await.len(), 4000);
    assert_eq!(upstream.queries()[0][2..], asked[2..]);
}

#[tokio::test]
async fn a_forged_or_mistaken_answer_is_not_believed() {
    let upstream = Upstream::start(|query| {
        let good = peculiar_answer(query);
        let mut wrong_id = good.clone();
        wrong_id[0] ^= 1;
        let mut wrong_name = good.clone();
        wrong_name[13] ^= 1;
        vec![
            wrong_id,
            wrong_name,
            b"short".to_vec(),
            query.to_vec(),
            good,
        ]
    })
    .await;
    let dns = Dns::start(&[upstream.address]);
    let asked = query("example.com.", RecordType::A);
    assert_eq!(dns.ask_udp(&asked).await, peculiar_answer(&asked));
    assert_eq!(dns.resolver.stats().upstream_mismatches.get(), 4);
}

#[tokio::test]
async fn when_an_upstream_is_dead_or_silent_or_refuses_the_next_is_asked() {
    let silent = Upstream::start(|_| Vec::new()).await;
    let refusing = Upstream::start(|query| {
        let mut answer = peculiar_answer(query);
        answer[3] = 5;
        vec![answer]
    })
    .await;
    let good = Upstream::start(|query| vec![peculiar_answer(query)]).await;
    let asked = query("example.com.", RecordType::A);
    for first in [dead_address().await, silent.address, refusing.address] {
        let dns = Dns::start(&[first, good.address]);
        assert_eq!(dns.ask_udp(&asked).await, peculiar_answer(&asked));
        let started = Instant::now();
        assert_eq!(dns.ask_udp(&asked).await, peculiar_answer(&asked));
        assert!(
            started.elapsed() < Duration::from_millis(1400),
            "the good one is remembered"
        );
    }
    // Nobody does better: the refusal itself is passed on.
    let dns = Dns::start(&[refusing.address]);
    assert_eq!(dns.ask_udp(&asked).await[3] & 0x0f, 5);
}

#[tokio::test]
async fn without_any_upstream_the_client_hears_servfail_before_it_gives_up() {
    let dead = dead_address().await;
    let dns = Dns::start(&[dead]);
    let asked = query("example.com.", RecordType::A);
    let failed = Message::from_vec(&dns.ask_udp(&asked).await).unwrap();
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(failed.queries[0].name().to_ascii(), "example.com.");

    let silent = Upstream::start(|_| Vec::new()).await;
    let dns = Dns::start(&[silent.address]);
    let started = Instant::now();
    let failed = Message::from_vec(&dns.ask_udp(&asked).await).unwrap();
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    let took = started.elapsed();
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(10)).contains(&took),
        "{took:?}"
    );
    assert_eq!(
        silent.queries().len(),
        3,
        "a lost datagram would have been repeated"
    );
    // Meanwhile, and ever, names of the mesh are answered.
    dns.resolver.publish(services());
    let answered = dns.ask("orders.east.mesh.internal.", RecordType::A).await;
    assert_eq!(answered.answers.len(), 1);
}

#[tokio::test]
async fn the_number_of_queries_waiting_for_upstreams_is_bounded() {
    let silent = Upstream::start(|_| Vec::new()).await;
    let dns = Dns::start(&[silent.address]);
    let socket = UdpSocket::bind(any_port()).await.unwrap();
    socket.connect(dns.address).await.unwrap();
    let asked = query("example.com.", RecordType::A);
    let stats = dns.resolver.stats();
    // More than the limit, in steps that socket buffers hold.
    for round in 1..=9 {
        for _ in 0..64 {
            socket.send(&asked).await.unwrap();
        }
        eventually("a round arrived", || stats.udp.get() == round * 64).await;
    }
    eventually("the rest refused", || {
        stats.forward_limit.get() == 9 * 64 - 512
    })
    .await;
    let mut buffer = [0; 512];
    timeout(PATIENCE, socket.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(buffer[3] & 0x0f, 2);
}

/// An answer that may be kept for five minutes.
fn kept_answer(query: &[u8]) -> Vec<u8> {
    let mut answer = Message::from_vec(query).unwrap();
    answer.metadata.message_type = MessageType::Response;
    let name = answer.queries[0].name().clone();
    answer.add_answer(Record::from_rdata(
        name,
        300,
        RData::A(A::new(192, 0, 2, 1)),
    ));
    answer.to_vec().unwrap()
}

#[tokio::test]
async fn who_asks_the_same_again_is_answered_without_the_upstream() {
    let upstream = Upstream::start(|query| vec![kept_answer(query)]).await;
    let dns = Dns::start(&[upstream.address]);
    let plain = query("example.com.", RecordType::A);
    let mut dnssec = Message::from_vec(&plain).unwrap();
    dnssec.set_edns({
        let mut edns = Edns::new();
        edns.set_dnssec_ok(true);
        edns
    });
    let dnssec = dnssec.to_vec().unwrap();
    let mut other_id = plain.clone();
    other_id[..2].copy_from_slice(&[1, 2]);
    for (query, asked) in [
        (&plain, 1),
        (&plain, 1),
        (&dnssec, 2),
        (&other_id, 2),
        (&dnssec, 2),
    ] {
        let answer = Message::from_vec(&dns.ask_udp(query).await).unwrap();
        let expected = Message::from_vec(&kept_answer(query)).unwrap();
        assert_eq!(answer.metadata, expected.metadata, "its id among them");
        assert_eq!(answer.edns, expected.edns);
        assert!((290..=300).contains(&answer.answers[0].ttl));
        assert_eq!(upstream.queries().len(), asked);
    }
    // What was learned over UDP is true over TCP.
    assert_eq!(
        dns.ask_tcp(&plain).await[2..12],
        dns.ask_udp(&plain).await[2..12]
    );
    let stats = dns.resolver.stats();
    assert_eq!((stats.forwarded.get(), stats.cached.get()), (2, 5));
}
