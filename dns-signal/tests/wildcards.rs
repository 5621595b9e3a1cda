//! Names below a wildcard as a workload sees them: real sockets on loopback.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use dns_signal_proto::agent::NameVerdict;
use dns_signal_proto::services::{Families, Services};
use dns_signal_proto::virtual_ip::MAX_BELOW;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use support::{Dns, PATIENCE, Upstream, dead_address, query};
use tokio::time::timeout;

const API: &str = "api.prod.isle.mesh.internal.";

fn services() -> Services {
    let mut services = Services::new(41);
    let ipv4 = Families {
        ipv4: true,
        ipv6: false,
    };
    let (network, name) = ("isle".parse().unwrap(), "*.prod".parse().unwrap());
    services.insert_export(network, name, ipv4, (&[80], &[]));
    services.insert("orders.isle".parse().unwrap(), ipv4);
    services
}

fn absent(lasts: Duration) -> NameVerdict {
    NameVerdict::Absent {
        lasts,
        reason: "no such name".to_owned(),
    }
}

fn address(answer: &Message) -> IpAddr {
    answer.answers[0].data.ip_addr().unwrap()
}

#[tokio::test]
async fn any_name_is_answered_at_once_and_is_nxdomain_while_its_activator_says_so() {
    let mut dns = Dns::start(&[dead_address().await]);
    dns.resolver.publish(services());
    let first = address(&dns.ask(API, RecordType::A).await);
    let wanted = timeout(PATIENCE, dns.wanted.recv()).await.unwrap().unwrap();
    assert_eq!(wanted.destination.service.as_str(), "api.prod");
    assert_eq!(dns.resolver.destination_of(first), Some(wanted.destination));
    let answered = dns.ask("a.b.prod.isle.mesh.internal.", RecordType::A).await;
    assert_ne!(address(&answered), first);
    let answered = dns.ask(API, RecordType::AAAA).await;
    assert_eq!(answered.metadata.response_code, ResponseCode::NoError);
    assert!(answered.answers.is_empty(), "the wildcard has no IPv6");

    let now = Instant::now();
    let id = || "api.prod.isle".parse().unwrap();
    let said = absent(Duration::from_secs(60));
    dns.resolver.handle_verdict(id(), &said, now);
    for record_type in [
        RecordType::A,
        RecordType::AAAA,
        RecordType::TXT,
        RecordType::HTTPS,
    ] {
        let answered = dns.ask(API, record_type).await;
        assert_eq!(
            answered.metadata.response_code,
            ResponseCode::NXDomain,
            "{record_type}"
        );
        assert_eq!(answered.authorities.len(), 1, "with SOA");
    }
    let answered = dns.ask("_80._tcp.api.prod.isle.mesh.internal.", RecordType::SRV);
    assert_eq!(
        answered.await.metadata.response_code,
        ResponseCode::NXDomain
    );
    assert_eq!(dns.resolver.destination_of(first), None, "given back");

    // It is there after all, at the same address; and kept from now on.
    dns.resolver.handle_verdict(id(), &NameVerdict::Found, now);
    assert_eq!(address(&dns.ask(API, RecordType::A).await), first);
    dns.resolver
        .handle_verdict(id(), &absent(Duration::ZERO), now);
    assert_eq!(address(&dns.ask(API, RecordType::A).await), first);
}

#[tokio::test]
async fn what_is_said_of_a_service_or_of_a_stranger_changes_no_answer() {
    let dns = Dns::start(&[dead_address().await]);
    dns.resolver.publish(services());
    let orders = "orders.isle.mesh.internal.";
    let before = address(&dns.ask(orders, RecordType::A).await);
    let said = absent(Duration::from_secs(60));
    let now = Instant::now();
    for name in ["orders.isle", "nobody.west", "www.example"] {
        dns.resolver
            .handle_verdict(name.parse().unwrap(), &said, now);
    }
    assert_eq!(address(&dns.ask(orders, RecordType::A).await), before);
    assert_eq!(dns.resolver.assigned_count(), 1);
}

#[tokio::test]
async fn names_at_random_end_in_servfail_and_are_counted() {
    let upstream = Upstream::start(|_| Vec::new()).await;
    let dns = Dns::start(&[upstream.address]);
    dns.resolver.publish(services());
    let mut codes = Vec::new();
    for number in 0..MAX_BELOW + 10 {
        let name = format!("n{number}.prod.isle.mesh.internal.");
        let answer = dns.ask_udp(&query(&name, RecordType::A)).await;
        codes.push(Message::from_vec(&answer).unwrap().metadata.response_code);
    }
    assert!(
        codes[..MAX_BELOW]
            .iter()
            .all(|code| *code == ResponseCode::NoError)
    );
    assert!(
        codes[MAX_BELOW..]
            .iter()
            .all(|code| *code == ResponseCode::ServFail)
    );
    assert_eq!(dns.resolver.stats().wildcard_full.get(), 10);
    assert_eq!(dns.resolver.lent_count(), MAX_BELOW);
    let answered = dns.ask("orders.isle.mesh.internal.", RecordType::A).await;
    assert_eq!(answered.answers.len(), 1, "services have their own");
    assert!(upstream.queries().is_empty());
}
