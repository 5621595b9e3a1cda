//! Queries and answers as bytes.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;
use std::time::Duration;

use dns_signal_proto::answer::{
    Authority, Reply, encode, encode_failure, encode_malformed, udp_limit,
};
use dns_signal_proto::query::{ClientEdns, Malformed, decode, decode_edns, is_answer_to, set_id};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query as Question, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::*;

const TTL: Duration = Duration::from_secs(5);

fn query(name: &str, record_type: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(
        Name::from_ascii(name).unwrap(),
        record_type,
    ));
    message
}

fn authority() -> Authority {
    Authority {
        zone: Name::from_ascii("mesh.internal.").unwrap(),
        serial: 9,
    }
}

fn answer(message: &Message, reply: &Reply, limit: usize) -> Message {
    let bytes = message.to_vec().unwrap();
    let edns = decode_edns(&bytes).unwrap();
    let bytes = encode(&decode(&bytes).unwrap(), edns, reply, TTL, limit);
    assert!(bytes.len() <= limit);
    Message::from_vec(&bytes).unwrap()
}

#[test]
fn an_address_is_answered_with_the_question_in_the_client_s_own_spelling() {
    let asked = query("oRdErS.eAsT.mesh.INTERNAL.", RecordType::A);
    let bytes = asked.to_vec().unwrap();
    let reply = Reply::Addresses(vec!["198.18.0.7".parse().unwrap()]);
    let answered = encode(&decode(&bytes).unwrap(), None, &reply, TTL, 512);
    // Header aside, the answer starts with the bytes of the question.
    assert_eq!(answered[12..bytes.len()], bytes[12..]);

    let answered = Message::from_vec(&answered).unwrap();
    assert_eq!(answered.metadata.id, 0x1234);
    assert_eq!(answered.metadata.message_type, MessageType::Response);
    assert!(answered.metadata.authoritative && answered.metadata.recursion_available);
    assert!(answered.metadata.recursion_desired && !answered.metadata.truncation);
    assert_eq!(answered.metadata.response_code, ResponseCode::NoError);
    let [record] = &answered.answers[..] else {
        panic!("{answered}")
    };
    assert_eq!(record.ttl, 5);
    assert_eq!(record.name.to_ascii(), "oRdErS.eAsT.mesh.INTERNAL.");
    assert_eq!(
        record.data.ip_addr(),
        Some("198.18.0.7".parse::<IpAddr>().unwrap())
    );
    assert!(answered.edns.is_none(), "EDNS only for those who speak it");
}

#[test]
fn what_is_not_there_is_said_with_the_soa() {
    let asked = query("nothing.east.mesh.internal.", RecordType::A);
    for (reply, code) in [
        (Reply::NoSuchName(authority()), ResponseCode::NXDomain),
        (Reply::NoData(authority()), ResponseCode::NoError),
    ] {
        let answered = answer(&asked, &reply, 512);
        assert_eq!(answered.metadata.response_code, code);
        assert!(answered.answers.is_empty());
        let [record] = &answered.authorities[..] else {
            panic!("{answered}")
        };
        assert_eq!(record.name.to_ascii(), "mesh.internal.");
        let RData::SOA(soa) = &record.data else {
            panic!("{record}")
        };
        // RFC 2308 section 5: the smaller of both is how long to remember.
        assert_eq!((record.ttl, soa.minimum, soa.serial), (5, 5, 9));
    }
    let answered = answer(&asked, &Reply::Authority(authority()), 512);
    assert_eq!(answered.answers[0].record_type(), RecordType::SOA);
}

#[test]
fn refusal_and_failure_claim_no_authority() {
    let asked = query("orders.east.mesh.internal.", RecordType::A);
    for (reply, code) in [
        (Reply::Refused, ResponseCode::Refused),
        (Reply::Failed, ResponseCode::ServFail),
    ] {
        let answered = answer(&asked, &reply, 512);
        assert_eq!(answered.metadata.response_code, code);
        assert!(!answered.metadata.authoritative && answered.authorities.is_empty());
    }
}

#[test]
fn edns_is_answered_with_edns() {
    let mut asked = query("orders.east.mesh.internal.", RecordType::AAAA);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    asked.set_edns(edns);
    let reply = Reply::Addresses(vec!["fd74::7".parse().unwrap()]);
    let answered = answer(&asked, &reply, 1232);
    let edns = answered.edns.as_ref().unwrap();
    assert!(edns.flags().dnssec_ok);
    assert_eq!((edns.version(), edns.max_payload()), (0, 1232));

    // RFC 6891 section 6.1.3.
    asked.edns.as_mut().unwrap().set_version(1);
    let answered = answer(&asked, &reply, 1232);
    // 16 has two names.
    assert_eq!(
        u16::from(answered.metadata.response_code),
        u16::from(ResponseCode::BADVERS)
    );
    assert!(answered.answers.is_empty());
}

#[test]
fn the_client_s_limit_is_respected_within_ours() {
    let edns = |max_payload| {
        Some(ClientEdns {
            max_payload,
            version: 0,
            dnssec_ok: false,
        })
    };
    assert_eq!(udp_limit(None), 512);
    assert_eq!(udp_limit(edns(700)), 700);
    assert_eq!(udp_limit(edns(4096)), 1232);

    let addresses = vec!["fd74::7".parse().unwrap(); 40];
    let answered = answer(
        &query("orders.east.mesh.internal.", RecordType::AAAA),
        &Reply::Addresses(addresses),
        512,
    );
    assert!(answered.metadata.truncation);
    assert_eq!((answered.queries.len(), answered.answers.len()), (1, 0));
}

#[test]
fn what_cannot_be_understood_is_answered_by_its_header_or_not_at_all() {
    let good = query("orders.east.mesh.internal.", RecordType::A)
        .to_vec()
        .unwrap();
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let table = [
        (Vec::new(), Malformed::Unanswerable, None),
        (good[..11].to_vec(), Malformed::Unanswerable, None),
        (
            with(|bytes| bytes[2] |= 0x80),
            Malformed::Unanswerable,
            None,
        ),
        (
            with(|bytes| bytes[2] |= 0x28),
            Malformed::NotImplemented,
            Some(4),
        ),
        (with(|bytes| bytes[5] = 0), Malformed::Format, Some(1)),
        (with(|bytes| bytes[5] = 2), Malformed::Format, Some(1)),
        (good[..12].to_vec(), Malformed::Format, Some(1)),
        (good[..good.len() - 1].to_vec(), Malformed::Format, Some(1)),
        // A label of 64 bytes; a pointer to itself; one beyond the end.
        (with(|bytes| bytes[12] = 64), Malformed::Format, Some(1)),
        (
            with(|bytes| bytes[12..14].copy_from_slice(&[0xc0, 12])),
            Malformed::Format,
            Some(1),
        ),
        (
            with(|bytes| bytes[12..14].copy_from_slice(&[0xff, 0xff])),
            Malformed::Format,
            Some(1),
        ),
    ];
    for (bytes, malformed, code) in table {
        assert_eq!(decode(&bytes).unwrap_err(), malformed, "{bytes:x?}");
        let answered = encode_malformed(&bytes, malformed);
        assert_eq!(answered.as_ref().map(|bytes| bytes[3] & 0x0f), code);
        if let Some(answered) = answered {
            assert_eq!(answered.len(), 12);
            assert_eq!(answered[..2], bytes[..2]);
            assert_eq!(answered[2] & 0x80, 0x80);
        }
    }
}

#[test]
fn records_after_the_question_must_be_readable_when_we_answer_ourselves() {
    let mut bytes = query("orders.east.mesh.internal.", RecordType::A)
        .to_vec()
        .unwrap();
    bytes[11] = 1;
    assert!(decode(&bytes).is_ok());
    assert_eq!(decode_edns(&bytes), Err(Malformed::Format));
    // Two OPT records: RFC 6891 section 6.1.1.
    let opt = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
    bytes[11] = 2;
    bytes.extend_from_slice(&opt);
    bytes.extend_from_slice(&opt);
    assert_eq!(decode_edns(&bytes), Err(Malformed::Format));
}

#[test]
fn an_upstream_s_answer_must_have_id_and_question() {
    let asked = query("Example.com.", RecordType::A);
    let question = asked.queries[0].clone();
    let mut good = Message::response(0x1234, OpCode::Query);
    good.add_query(Question::query(
        Name::from_ascii("example.COM.").unwrap(),
        RecordType::A,
    ));
    let bytes = good.to_vec().unwrap();
    assert!(is_answer_to(&bytes, 0x1234, &question));
    assert!(!is_answer_to(&bytes, 0x1235, &question), "id");
    assert!(
        !is_answer_to(&asked.to_vec().unwrap(), 0x1234, &question),
        "not a response"
    );
    assert!(!is_answer_to(&bytes[..11], 0x1234, &question), "cut");
    for (name, record_type) in [
        ("example.org.", RecordType::A),
        ("example.com.", RecordType::AAAA),
    ] {
        let mut other = Message::response(0x1234, OpCode::Query);
        other.add_query(Question::query(
            Name::from_ascii(name).unwrap(),
            record_type,
        ));
        assert!(
            !is_answer_to(&other.to_vec().unwrap(), 0x1234, &question),
            "{name} {record_type}"
        );
    }
    // An error without question is believed, a success without one is not.
    let mut bare = Message::error_msg(0x1234, OpCode::Query, ResponseCode::Refused);
    assert!(is_answer_to(&bare.to_vec().unwrap(), 0x1234, &question));
    bare.metadata.response_code = ResponseCode::NoError;
    assert!(!is_answer_to(&bare.to_vec().unwrap(), 0x1234, &question));
}

#[test]
fn a_query_that_could_not_be_forwarded_fails_with_its_question() {
    let mut asked = query("example.com.", RecordType::A);
    asked.set_edns(Edns::new());
    let bytes = asked.to_vec().unwrap();
    let failed = Message::from_vec(&encode_failure(&bytes, &decode(&bytes).unwrap())).unwrap();
    assert_eq!(failed.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(failed.metadata.message_type, MessageType::Response);
    assert_eq!(
        (failed.metadata.id, &failed.queries),
        (0x1234, &asked.queries)
    );
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), header in any::<bool>()) {
        if header && bytes.len() >= 12 {
            bytes[2] &= 0x07;
            bytes[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
        }
        let before = bytes.clone();
        match decode(&bytes) {
            Ok(query) => {
                prop_assert!(query.question_end <= bytes.len());
                let edns = decode_edns(&bytes).ok().flatten();
                let answered = encode(&query, edns, &Reply::Refused, TTL, udp_limit(edns));
                prop_assert!(answered.len() <= udp_limit(edns));
                if !answered.is_empty() {
                    prop_assert_eq!(&answered[..2], &bytes[..2]);
                }
                prop_assert!(encode_failure(&bytes, &query).len() >= 12);
            }
            Err(malformed) => {
                let _ = encode_malformed(&bytes, malformed);
            }
        }
        set_id(&mut bytes, 1);
        if bytes.len() >= 2 {
            prop_assert_eq!(&bytes[2..], &before[2..]);
        }
    }
}
