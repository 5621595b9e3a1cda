//! Forwarding over TLS and HTTPS, to servers that record what they get, well-behaved or not.

#![allow(clippy::unwrap_used)]

#[path = "support/secure.rs"]
mod secure;
mod support;

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::RecordType;
use http::{Response, StatusCode};
use secure::{Authority, Secure, text_answer};
use support::{
    Dns, Upstream, eventually, peculiar_answer, query, read_framed, services, write_framed,
};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

const NAME: &str = "dns.example";
const PAD_TO: usize = 128;

fn tls(server: &Secure) -> String {
    format!("tls://{}#{NAME}", server.address)
}

/// Answers everything with a short text.
async fn well_behaved(authority: &Authority, name: &str) -> Secure {
    Secure::start(authority, name, b"dot", |_, mut stream| async move {
        while let Some(query) = read_framed(&mut stream).await {
            write_framed(&mut stream, &text_answer(&query, 200)).await;
        }
    })
    .await
}

fn texts(answer: &[u8]) -> usize {
    Message::from_vec(answer).unwrap().answers.len()
}

#[tokio::test]
async fn queries_share_a_padded_connection_and_answers_come_in_whatever_order() {
    let authority = Authority::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let server = Secure::start(&authority, NAME, b"dot", move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            // Both, before either is answered.
            let first = read_framed(&mut stream).await.unwrap();
            let second = read_framed(&mut stream).await.unwrap();
            for query in [second, first] {
                write_framed(&mut stream, &text_answer(&query, 200)).await;
                seen.lock().unwrap().push(query);
            }
            let _ = read_framed(&mut stream).await;
        }
    })
    .await;
    let dns = Dns::start_encrypted(&[&tls(&server)], &authority.file());
    let plain = query("a-name.example.com.", RecordType::TXT);
    let mut message = Message::from_vec(&query("example.com.", RecordType::TXT)).unwrap();
    let mut edns = Edns::new();
    edns.set_max_payload(1232).set_dnssec_ok(true);
    message.set_edns(edns);
    let with_edns = message.to_vec().unwrap();
    let (first, second) = tokio::join!(dns.ask_udp(&plain), dns.ask_udp(&with_edns));
    // As the answers would be without encryption: nothing of padding, and EDNS only for whom asked with it.
    assert_eq!(first, text_answer(&plain, 200));
    let second = Message::from_vec(&second).unwrap();
    let expected = Message::from_vec(&text_answer(&with_edns, 200)).unwrap();
    assert_eq!(
        (second.edns, second.answers),
        (expected.edns, expected.answers)
    );
    assert_eq!(server.accepted(), 1);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    for query in &asked {
        assert_eq!(query.len() % PAD_TO, 0, "{} bytes", query.len());
    }
    let does = |query: &&Vec<u8>| {
        let edns = Message::from_vec(query).unwrap().edns.unwrap();
        edns.flags().dnssec_ok
    };
    assert_eq!(asked.iter().filter(does).count(), 1, "DO goes along");
    let fact = &dns.upstreams.facts()[0];
    assert_eq!((fact.connected, &fact.problem), (Some(true), &None));
}

#[tokio::test]
async fn a_query_whose_connection_ends_is_asked_again_on_another() {
    let authority = Authority::new();
    let server = Secure::start(&authority, NAME, b"dot", |number, mut stream| async move {
        let query = read_framed(&mut stream).await.unwrap();
        write_framed(&mut stream, &text_answer(&query, 200)).await;
        // The next one is read and forgotten, unless this is the second connection.
        while let Some(query) = read_framed(&mut stream).await {
            if number == 0 {
                return;
            }
            write_framed(&mut stream, &text_answer(&query, 200)).await;
        }
    })
    .await;
    // Its answers would be longer: it is not needed.
    let next = Secure::start(&authority, NAME, b"dot", |_, mut stream| async move {
        while let Some(query) = read_framed(&mut stream).await {
            write_framed(&mut stream, &text_answer(&query, 400)).await;
        }
    })
    .await;
    let dns = Dns::start_encrypted(&[&tls(&server), &tls(&next)], &authority.file());
    for name in ["a.example.com.", "b.example.com.", "c.example.com."] {
        let query = query(name, RecordType::TXT);
        assert_eq!(dns.ask_udp(&query).await, text_answer(&query, 200));
    }
    assert_eq!(server.accepted(), 2);
    let stats = dns.resolver.stats();
    assert_eq!(stats.upstream_lost.get(), 1);
    assert_eq!(stats.upstream_failed.get(), 0);
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_another_authority_is_refused_and_nothing_goes_in_clear_text()
 {
    let authority = Authority::new();
    let stranger = Authority::new();
    let good = well_behaved(&authority, NAME).await;
    for (server, problem) in [
        (
            well_behaved(&authority, "other.example").await,
            "not valid for name \"dns.example\"",
        ),
        (
            well_behaved(&stranger, NAME).await,
            "invalid peer certificate",
        ),
    ] {
        let clear = UdpSocket::bind(server.address).unwrap();
        clear.set_nonblocking(true).unwrap();
        let dns = Dns::start_encrypted(&[&tls(&server)], &authority.file());
        let asked = query("example.com.", RecordType::A);
        let failed = Message::from_vec(&dns.ask_udp(&asked).await).unwrap();
        assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
        assert!(dns.resolver.stats().upstream_untrusted.get() > 0);
        let fact = dns.upstreams.facts().remove(0);
        assert_eq!(fact.connected, Some(false));
        assert!(fact.problem.unwrap().contains(problem));
        let mut datagram = [0; 512];
        let error = clear.recv(&mut datagram).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        // Names of the mesh are answered whatever becomes of upstreams.
        dns.resolver.publish(services());
        let answered = dns.ask("orders.east.mesh.internal.", RecordType::A).await;
        assert_eq!(answered.answers.len(), 1);

        // Another upstream does it.
        let dns = Dns::start_encrypted(&[&tls(&server), &tls(&good)], &authority.file());
        assert_eq!(dns.ask_udp(&asked).await, text_answer(&asked, 200));
    }
}

#[tokio::test]
async fn an_upstream_that_fails_is_left_alone_for_a_while_and_comes_back() {
    let authority = Authority::new();
    let server = Secure::start(&authority, NAME, b"dot", |number, mut stream| async move {
        // The first ones end before they answered.
        while let Some(query) = read_framed(&mut stream).await {
            if number < 3 {
                return;
            }
            write_framed(&mut stream, &text_answer(&query, 200)).await;
        }
    })
    .await;
    let dns = Dns::start_encrypted(&[&tls(&server)], &authority.file());
    let mut failures = 0;
    let answered = timeout(support::PATIENCE, async {
        loop {
            let query = query("example.com.", RecordType::A);
            if texts(&dns.ask_udp(&query).await) > 0 {
                break;
            }
            failures += 1;
        }
    });
    answered.await.expect("it comes back");
    assert_eq!(server.accepted(), 4);
    assert!(
        failures > 10,
        "{failures} queries failed meanwhile, quickly"
    );
    assert_eq!(dns.upstreams.facts()[0].problem, None);
}

#[tokio::test]
async fn in_clear_text_is_asked_only_while_encrypted_upstreams_do_not_answer() {
    let authority = Authority::new();
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let server = Secure::start(&authority, NAME, b"dot", move |_, mut stream| {
        let down = Arc::clone(&down);
        async move {
            while let Some(query) = read_framed(&mut stream).await {
                if down.load(Ordering::SeqCst) {
                    return;
                }
                write_framed(&mut stream, &text_answer(&query, 200)).await;
            }
        }
    })
    .await;
    let clear = Upstream::start(|query| vec![peculiar_answer(query)]).await;
    let in_clear = clear.address.to_string();
    let dns = Dns::start_encrypted(&[&in_clear, &tls(&server)], &authority.file());
    let asked = |number: usize| query(&format!("n{number}.example.com."), RecordType::A);
    for number in 0..3 {
        let asked = asked(number);
        assert_eq!(dns.ask_udp(&asked).await, text_answer(&asked, 200));
    }
    assert_eq!(clear.queries().len(), 0, "although it is named first");
    is_down.store(true, Ordering::SeqCst);
    for number in 3..6 {
        let asked = asked(number);
        assert_eq!(dns.ask_udp(&asked).await, peculiar_answer(&asked));
    }
    is_down.store(false, Ordering::SeqCst);
    let back = timeout(support::PATIENCE, async {
        let mut number = 6;
        while dns.ask_udp(&asked(number)).await != text_answer(&asked(number), 200) {
            number += 1;
        }
    });
    back.await.expect("it is asked again");
    let in_clear = clear.queries().len();
    assert_eq!(texts(&dns.ask_udp(&asked(0)).await), 1);
    assert_eq!(clear.queries().len(), in_clear);
}

#[tokio::test]
async fn what_is_too_long_for_a_datagram_is_truncated_and_whole_over_tcp() {
    let authority = Authority::new();
    let server = Secure::start(&authority, NAME, b"dot", |_, mut stream| async move {
        while let Some(query) = read_framed(&mut stream).await {
            write_framed(&mut stream, &text_answer(&query, 1_000)).await;
        }
    })
    .await;
    let dns = Dns::start_encrypted(&[&tls(&server)], &authority.file());
    let plain = query("example.com.", RecordType::TXT);
    for _ in 0..2 {
        let short = dns.ask_udp(&plain).await;
        assert_eq!(short[2] & 0x02, 0x02, "TC");
        assert_eq!(short.len(), plain.len(), "the question alone");
        Message::from_vec(&short).unwrap();
        assert_eq!(
            dns.ask_tcp(&plain).await.len(),
            text_answer(&plain, 1_000).len()
        );
    }
    assert_eq!(dns.resolver.stats().forwarded.get(), 1, "the rest was kept");
    let mut message = Message::from_vec(&plain).unwrap();
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns.clone());
    let long = dns.ask_udp(&message.to_vec().unwrap()).await;
    assert_eq!(texts(&long), 1);
    edns.set_max_payload(600);
    message.set_edns(edns);
    let short = dns.ask_udp(&message.to_vec().unwrap()).await;
    let short = Message::from_vec(&short).unwrap();
    assert!(short.metadata.truncation && short.answers.is_empty() && short.edns.is_some());
}

#[tokio::test]
async fn a_connection_on_which_nobody_asks_is_closed() {
    let authority = Authority::new();
    let (ended, mut ends) = tokio::sync::mpsc::channel(1);
    let server = Secure::start(&authority, NAME, b"dot", move |_, mut stream| {
        let ended = ended.clone();
        async move {
            let query = read_framed(&mut stream).await.unwrap();
            write_framed(&mut stream, &text_answer(&query, 200)).await;
            let mut rest = Vec::new();
            ended
                .send(stream.read_to_end(&mut rest).await)
                .await
                .unwrap();
        }
    })
    .await;
    let dns = Dns::start_encrypted(&[&tls(&server)], &authority.file());
    let query = query("example.com.", RecordType::A);
    assert_eq!(texts(&dns.ask_udp(&query).await), 1);
    let ended = timeout(Duration::from_secs(60), ends.recv()).await;
    // With the good-bye of TLS: without it, reading it to its end is an error.
    assert_eq!(ended.expect("it is closed").unwrap().unwrap(), 0);
    eventually("known to be closed", || {
        dns.upstreams.facts()[0].connected == Some(false)
    })
    .await;
}

/// Requests as (path, header `content-type`, body).
type Requests = Arc<Mutex<Vec<(String, String, Vec<u8>)>>>;

/// Answers requests for `/dns-query`; all others with 404.
async fn https(authority: &Authority, requests: &Requests) -> Secure {
    let requests = Arc::clone(requests);
    Secure::start(authority, NAME, b"h2", move |_, stream| {
        let requests = Arc::clone(&requests);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, mut reply))) = connection.accept().await {
                let requests = Arc::clone(&requests);
                tokio::spawn(async move {
                    let (head, mut body) = request.into_parts();
                    let mut query = Vec::new();
                    while let Some(chunk) = body.data().await {
                        query.extend_from_slice(&chunk.unwrap());
                    }
                    let kind = head.headers["content-type"].to_str().unwrap().to_owned();
                    let answer = text_answer(&query, 800);
                    let path = head.uri.path().to_owned();
                    let status = match &*path {
                        "/dns-query" if head.method == http::Method::POST => StatusCode::OK,
                        _ => StatusCode::NOT_FOUND,
                    };
                    requests.lock().unwrap().push((path, kind, query));
                    let head = Response::builder()
                        .status(status)
                        .header("content-type", "application/dns-message")
                        .body(())
                        .unwrap();
                    let mut sent = reply.send_response(head, false).unwrap();
                    sent.send_data(Bytes::from(answer), true).unwrap();
                });
            }
        }
    })
    .await
}

#[tokio::test]
async fn over_https_each_query_is_a_request_on_one_connection() {
    let authority = Authority::new();
    let requests = Requests::default();
    let server = https(&authority, &requests).await;
    let upstream = format!("https://{}/dns-query#{NAME}", server.address);
    let dns = Dns::start_encrypted(&[&upstream], &authority.file());
    let names: Vec<_> = (0..40)
        .map(|number| query(&format!("n{number}.example.com."), RecordType::TXT))
        .collect();
    let answers = futures_util::future::join_all(names.iter().map(|name| dns.ask_tcp(name)));
    for (name, answer) in names.iter().zip(answers.await) {
        assert_eq!(answer, text_answer(name, 800));
    }
    assert_eq!(server.accepted(), 1);
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 40);
    for (path, kind, body) in &*requests {
        assert_eq!(
            (&**path, &**kind),
            ("/dns-query", "application/dns-message")
        );
        assert_eq!(body[..2], [0, 0], "the id says nothing");
        assert_eq!(body.len() % PAD_TO, 0);
    }
}

#[tokio::test]
async fn over_https_a_wrong_path_is_told_and_the_next_upstream_is_asked() {
    let authority = Authority::new();
    let requests = Requests::default();
    let server = https(&authority, &requests).await;
    let wrong = format!("https://{}/wrong#{NAME}", server.address);
    let clear = Upstream::start(|query| vec![peculiar_answer(query)]).await;
    let dns = Dns::start_encrypted(&[&wrong, &clear.address.to_string()], &authority.file());
    let asked = query("example.com.", RecordType::A);
    assert_eq!(dns.ask_udp(&asked).await, peculiar_answer(&asked));
    let facts = dns.upstreams.facts();
    let problem = facts[0].problem.as_deref().unwrap();
    assert_eq!(
        problem,
        "it answers with the HTTP status 404 Not Found: is the path /wrong right?"
    );
    assert_eq!((facts[1].connected, &facts[1].problem), (None, &None));
    // One that does not speak HTTP/2.
    let other = well_behaved(&authority, NAME).await;
    let other = format!("https://{}#{NAME}", other.address);
    let dns = Dns::start_encrypted(&[&other], &authority.file());
    let failed = Message::from_vec(&dns.ask_udp(&asked).await).unwrap();
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert!(dns.upstreams.facts()[0].problem.is_some());
}
