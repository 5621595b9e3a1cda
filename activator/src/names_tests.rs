#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::{
    op::{Message, OpCode},
    rr::{
        Record,
        rdata::{A, AAAA, CNAME, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
};

use super::*;

/// A resolver of the test's own, with these names below `x.test`; over UDP it says that `long` does not fit.
struct Server {
    address: SocketAddr,
    queries: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let queries = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&queries);
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(answer) = answer(&buffer[..length], true) {
                    udp.send_to(&answer, from).await.unwrap();
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; length.into()];
                        stream.read_exact(&mut query).await.unwrap();
                        let answer = answer(&query, false).unwrap();
                        stream.write_u16(answer.len() as u16).await.unwrap();
                        stream.write_all(&answer).await.unwrap();
                    }
                });
            }
        });
        Self { address, queries }
    }
}

fn answer(query: &[u8], udp: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries[0].clone();
    let name = question.name().clone();
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    let zone = Name::from_ascii("x.test.").unwrap();
    let mut add = |name: &Name, ttl, data| {
        answer.add_answer(Record::from_rdata(name.clone(), ttl, data));
    };
    let ipv4 = question.query_type() == RecordType::A;
    let code = match name.to_ascii().split('.').next().unwrap() {
        "one" if ipv4 => {
            add(&name, 60, RData::A(A::new(10, 0, 0, 1)));
            ResponseCode::NoError
        }
        "both" if ipv4 => {
            add(&name, 60, RData::A(A::new(10, 0, 0, 1)));
            add(&name, 60, RData::A(A::new(10, 0, 0, 2)));
            ResponseCode::NoError
        }
        "both" => {
            let address = AAAA::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
            add(&name, 20, RData::AAAA(address));
            ResponseCode::NoError
        }
        "other" if ipv4 => {
            let target = Name::from_ascii("target.elsewhere.test.").unwrap();
            add(&name, 300, RData::CNAME(CNAME(target.clone())));
            add(&target, 30, RData::A(A::new(10, 0, 0, 9)));
            ResponseCode::NoError
        }
        "long" if udp => {
            answer.metadata.truncation = true;
            ResponseCode::NoError
        }
        "long" if ipv4 => {
            add(&name, 60, RData::A(A::new(10, 0, 0, 3)));
            ResponseCode::NoError
        }
        "one" | "other" | "long" | "nodata" => ResponseCode::NoError,
        "broken" => ResponseCode::ServFail,
        "silent" => return None,
        _ => ResponseCode::NXDomain,
    };
    if answer.answers.is_empty() && !answer.metadata.truncation {
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 60, 60, 60, 7);
        answer.add_authority(Record::from_rdata(zone, 7, RData::SOA(soa)));
    }
    answer.metadata.response_code = code;
    answer.metadata.recursion_available = true;
    answer.add_query(question);
    Some(answer.to_vec().unwrap())
}

async fn ask(server: &Server, name: &str, families: (bool, bool)) -> Resolved {
    let (servers, mut answered) = NameServers::new(true, &[server.address]).unwrap();
    servers.ask("api.prod".parse().unwrap(), name, families);
    let answered = answered.recv().await.unwrap();
    assert_eq!(answered.name.as_str(), "api.prod");
    answered.resolved
}

fn addresses(resolved: &Resolved) -> (Vec<String>, u64) {
    match resolved {
        Resolved::Addresses(addresses, ttl) => (
            addresses.iter().map(ToString::to_string).collect(),
            // Counted down already.
            ttl.as_millis().div_ceil(1_000) as u64,
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn addresses_of_both_families_come_with_the_shortest_ttl_of_any() {
    let server = Server::start().await;
    let both = ask(&server, "both.x.test", (true, true)).await;
    let expected = ["10.0.0.1", "10.0.0.2", "fd00::1"].map(str::to_owned);
    assert_eq!(addresses(&both), (expected.to_vec(), 20));
    let one = ask(&server, "one.x.test", (true, true)).await;
    assert_eq!(addresses(&one), (vec!["10.0.0.1".to_owned()], 60));
    let other = ask(&server, "other.x.test", (true, false)).await;
    assert_eq!(addresses(&other), (vec!["10.0.0.9".to_owned()], 30));
    let long = ask(&server, "long.x.test", (true, false)).await;
    assert_eq!(addresses(&long).0, ["10.0.0.3"], "over TCP");
    assert_eq!(server.queries.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn a_name_without_addresses_is_absent_for_as_long_as_the_soa_says() {
    let server = Server::start().await;
    for name in ["nobody.x.test", "nodata.x.test"] {
        match ask(&server, name, (true, true)).await {
            Resolved::Absent(ttl) => assert_eq!(ttl.as_millis().div_ceil(1_000), 7, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    let only_ipv4 = ask(&server, "one.x.test", (false, true)).await;
    assert!(matches!(only_ipv4, Resolved::Absent(_)), "{only_ipv4:?}");
}

#[tokio::test]
async fn an_error_and_silence_are_no_answers() {
    let server = Server::start().await;
    for name in ["broken.x.test", "silent.x.test"] {
        let resolved = ask(&server, name, (true, true)).await;
        assert!(
            matches!(resolved, Resolved::Failed(_)),
            "{name}: {resolved:?}"
        );
    }
    // Whoever exports no wildcard needs no resolver.
    NameServers::new(false, &[]).unwrap();
}
