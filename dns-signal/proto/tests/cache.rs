//! What is kept of upstreams' answers, how long, and for whom.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use dns_signal_proto::cache::Cache;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn message(text: &str) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name(text), RecordType::A));
    message
}

fn query(text: &str) -> Vec<u8> {
    message(text).to_vec().unwrap()
}

/// The answer to it, as an upstream makes it.
fn response(query: &[u8]) -> Message {
    let mut answer = Message::from_vec(query).unwrap();
    answer.metadata.message_type = MessageType::Response;
    answer
}

fn address(text: &str, ttl: u32) -> Record {
    Record::from_rdata(name(text), ttl, RData::A(A::new(192, 0, 2, 1)))
}

fn soa(ttl: u32, minimum: u32) -> Record {
    let soa = SOA::new(
        name("ns.example."),
        name("host.example."),
        1,
        2,
        3,
        4,
        minimum,
    );
    Record::from_rdata(name("example."), ttl, RData::SOA(soa))
}

fn positive(query: &[u8], ttls: &[u32]) -> Vec<u8> {
    let mut answer = response(query);
    for ttl in ttls {
        answer.add_answer(address("www.example.", *ttl));
    }
    answer.to_vec().unwrap()
}

fn negative(query: &[u8], code: ResponseCode, soas: &[Record]) -> Vec<u8> {
    let mut answer = response(query);
    answer.metadata.response_code = code;
    for soa in soas {
        answer.add_authority(soa.clone());
    }
    answer.to_vec().unwrap()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// For how many whole seconds an answer is given again; 0: not at all.
fn kept_for(query: &[u8], answer: &[u8]) -> u64 {
    let mut cache = Cache::new(8);
    let now = Instant::now();
    cache.keep(query, answer, now);
    let mut found = 0;
    while found < 200_000 && cache.find(query, now + seconds(found)).is_some() {
        found += if found < 400 { 1 } else { 100 };
    }
    found
}

#[test]
fn the_same_query_has_the_same_answer_with_its_id_and_less_time_to_live() {
    let mut cache = Cache::new(8);
    let now = Instant::now();
    let asked = query("www.example.");
    let answer = positive(&asked, &[300, 60]);
    cache.keep(&asked, &answer, now);
    let mut again = asked.clone();
    again[..2].copy_from_slice(&[0xab, 0xcd]);
    let found = cache
        .find(&again, now + Duration::from_millis(41_900))
        .unwrap();
    let mut expected = positive(&asked, &[300 - 41, 60 - 41]);
    expected[..2].copy_from_slice(&[0xab, 0xcd]);
    assert_eq!(found, expected, "no other byte is changed");
    assert!(cache.find(&again, now + seconds(59)).is_some());
    assert_eq!(cache.find(&again, now + seconds(60)), None);
    assert!(cache.is_empty(), "it is gone");
}

#[test]
fn what_a_client_asks_for_is_not_mixed_with_what_another_asked_for() {
    let now = Instant::now();
    let plain = message("www.example.");
    let mut checking_disabled = plain.clone();
    checking_disabled.metadata.checking_disabled = true;
    let mut edns = plain.clone();
    edns.set_edns(Edns::new());
    let mut dnssec = plain.clone();
    dnssec.set_edns({
        let mut edns = Edns::new();
        edns.set_dnssec_ok(true);
        edns
    });
    let mut authenticated = plain.clone();
    authenticated.metadata.authentic_data = true;
    let all = [
        plain,
        checking_disabled,
        edns,
        dnssec,
        authenticated,
        message("WWW.example."),
    ];
    let all = all.map(|message| message.to_vec().unwrap());
    for kept in &all {
        let mut cache = Cache::new(8);
        cache.keep(kept, &positive(kept, &[300]), now);
        let found: Vec<bool> = all
            .iter()
            .map(|query| cache.find(query, now).is_some())
            .collect();
        let expected: Vec<bool> = all.iter().map(|query| query == kept).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn negative_answers_are_kept_as_long_as_their_soa_says() {
    let asked = query("absent.example.");
    for code in [ResponseCode::NXDomain, ResponseCode::NoError] {
        let kept = |soas: &[Record]| kept_for(&asked, &negative(&asked, code, soas));
        assert_eq!(kept(&[soa(300, 60)]), 60, "MINIMUM");
        assert_eq!(kept(&[soa(30, 60)]), 30, "the SOA's own");
        assert_eq!(kept(&[]), 0, "no SOA");
        assert_eq!(kept(&[soa(0, 60)]), 0);
        assert_eq!(
            kept(&[soa(86_400, 86_400)]),
            3 * 3_600,
            "at most three hours"
        );
    }
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        assert_eq!(
            kept_for(&asked, &negative(&asked, code, &[soa(300, 60)])),
            0
        );
    }
    // An alias whose end is not there.
    let mut answer =
        Message::from_vec(&negative(&asked, ResponseCode::NXDomain, &[soa(300, 20)])).unwrap();
    answer.add_answer(address("absent.example.", 100));
    assert_eq!(kept_for(&asked, &answer.to_vec().unwrap()), 20);
}

#[test]
fn what_may_not_be_kept_is_not() {
    let asked = query("www.example.");
    let good = positive(&asked, &[300]);
    assert_eq!(kept_for(&asked, &good), 300);
    assert_eq!(
        kept_for(&asked, &positive(&asked, &[300, 0])),
        0,
        "a TTL of 0"
    );
    assert_eq!(
        kept_for(&asked, &positive(&asked, &[300, 1 << 31])),
        0,
        "RFC 2181"
    );
    assert_eq!(
        kept_for(&asked, &positive(&asked, &[300; 65])),
        0,
        "too many records"
    );
    assert_eq!(
        kept_for(&asked, &positive(&asked, &[u32::MAX >> 1])),
        86_400,
        "a day"
    );
    let changed = |at: usize, bit: u8| {
        let mut answer = good.clone();
        answer[at] |= bit;
        answer
    };
    assert_eq!(kept_for(&asked, &changed(2, 0x02)), 0, "truncated");
    assert_eq!(kept_for(&asked, &changed(3, 0x02)), 0, "SERVFAIL");
    let mut trailing = good.clone();
    trailing.push(0);
    assert_eq!(kept_for(&asked, &trailing), 0, "bytes after the end");
    for end in 0..good.len() {
        assert_eq!(kept_for(&asked, &good[..end]), 0, "cut at {end}");
    }
    let mut long = message("www.example.");
    (0..60).for_each(|_| {
        _ = long.add_query(Query::query(name("a.long.name.example."), RecordType::A))
    });
    let long = long.to_vec().unwrap();
    assert_eq!(kept_for(&long, &good), 0, "a query of {} bytes", long.len());
    let mut edns = response(&asked);
    edns.add_answer(address("www.example.", 300));
    edns.set_edns(Edns::new());
    assert_eq!(
        kept_for(&asked, &edns.to_vec().unwrap()),
        300,
        "OPT has no TTL"
    );
}

#[test]
fn no_message_whatever_its_bytes_stops_it() {
    let asked = query("www.example.");
    let good = negative(&asked, ResponseCode::NXDomain, &[soa(300, 60)]);
    let mut cache = Cache::new(64);
    let now = Instant::now();
    for at in 0..good.len() {
        for value in [0, 1, 63, 64, 0x7f, 0xc0, 0xff] {
            let mut answer = good.clone();
            answer[at] = value;
            cache.keep(&asked, &answer, now);
            cache.find(&asked, now);
        }
    }
}

#[test]
fn there_are_never_more_than_there_is_room_and_what_is_asked_for_stays() {
    let mut cache = Cache::new(100);
    let now = Instant::now();
    let often = query("often.example.");
    cache.keep(&often, &positive(&often, &[300]), now);
    for n in 0..1_000 {
        let other = query(&format!("n{n}.example."));
        cache.keep(&other, &positive(&other, &[300]), now);
        assert!(cache.len() <= 100, "{}", cache.len());
        assert!(cache.find(&often, now).is_some(), "after {n} others");
    }
    let mut none = Cache::new(0);
    none.keep(&often, &positive(&often, &[300]), now);
    assert!(none.is_empty());
}
