//! RFC 7830 and RFC 8467: what an encrypted upstream is asked is padded, and its answers are not, for the client.

#![allow(clippy::unwrap_used)]

use dns_signal_proto::answer::fit;
use dns_signal_proto::padding::{pad, unpad};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::rr::rdata::{A, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

const PADDING: u16 = 12;
const COOKIE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

fn query(name: &str) -> Message {
    let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(name).unwrap();
    message.add_query(Query::query(name, RecordType::TXT));
    message
}

fn with_edns(mut message: Message) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(1400).set_dnssec_ok(true);
    let cookie = EdnsOption::Unknown(10, COOKIE.to_vec());
    edns.options_mut().insert(cookie);
    message.set_edns(edns);
    message
}

fn bytes(message: &Message) -> Vec<u8> {
    message.to_vec().unwrap()
}

/// The server's answer to what it got: padded, if it has EDNS.
fn answer_to(asked: &[u8], length: usize) -> Vec<u8> {
    let mut answer = Message::from_vec(asked).unwrap();
    answer.metadata.message_type = MessageType::Response;
    let name = answer.queries[0].name().clone();
    let texts = vec!["x".repeat(100); length / 100];
    let text = RData::TXT(TXT::new(texts));
    answer.add_answer(Record::from_rdata(name, 300, text));
    if let Some(edns) = &mut answer.edns {
        let padding = EdnsOption::Unknown(PADDING, vec![0; 77]);
        edns.options_mut().remove(EdnsCode::Padding);
        edns.options_mut().insert(padding);
    }
    bytes(&answer)
}

#[test]
fn a_query_has_whole_blocks_and_asks_for_what_it_asked_for() {
    for name in [
        ".",
        "example.com.",
        &format!("{}example.com.", "label.".repeat(30)),
    ] {
        for message in [query(name), with_edns(query(name))] {
            let asked = pad(&bytes(&message));
            assert_eq!(asked.len() % 128, 0);
            let read = Message::from_vec(&asked).unwrap();
            assert_eq!(
                (&read.metadata, &read.queries),
                (&message.metadata, &message.queries)
            );
            let edns = read.edns.unwrap();
            assert!(edns.option(EdnsCode::Padding).is_some());
            if let Some(own) = &message.edns {
                assert_eq!(edns.flags(), own.flags());
                assert_eq!(edns.max_payload(), own.max_payload());
                assert_eq!(edns.option(EdnsCode::Cookie), own.option(EdnsCode::Cookie));
            }
        }
    }
}

#[test]
fn the_client_gets_what_it_would_get_without() {
    for message in [query("example.com."), with_edns(query("example.com."))] {
        let asked = bytes(&message);
        let padded = answer_to(&pad(&asked), 200);
        let answer = unpad(&asked, padded.clone());
        assert!(answer.len() < padded.len());
        let mut expected = message.clone();
        expected.metadata.message_type = MessageType::Response;
        let read = Message::from_vec(&answer).unwrap();
        assert_eq!(
            (&read.edns, &read.metadata),
            (&expected.edns, &expected.metadata)
        );
        assert_eq!(read.answers, Message::from_vec(&padded).unwrap().answers);
    }
}

#[test]
fn what_must_not_be_changed_is_not_padded() {
    // Something after EDNS, which could be a signature.
    let mut signed = with_edns(query("example.com."));
    let name = Name::from_ascii("key.").unwrap();
    signed.add_additional(Record::from_rdata(name, 0, RData::A(A::new(1, 2, 3, 4))));
    let mut padded = with_edns(query("example.com."));
    let options = padded.edns.as_mut().unwrap().options_mut();
    options.insert(EdnsOption::Unknown(PADDING, vec![0; 3]));
    let mut longer = bytes(&query("example.com."));
    longer.push(0);
    for asked in [bytes(&signed), bytes(&padded), longer, vec![0; 5]] {
        assert_eq!(pad(&asked), asked);
    }
}

#[test]
fn over_udp_a_client_gets_no_more_than_it_takes() {
    let plain = bytes(&query("example.com."));
    let long = answer_to(&plain, 500);
    let short = fit(&plain, long.clone());
    let read = Message::from_vec(&short).unwrap();
    assert!(read.metadata.truncation && read.answers.is_empty() && read.edns.is_none());
    assert_eq!(short.len(), plain.len());
    // 1400 bytes.
    let more = bytes(&with_edns(query("example.com.")));
    assert_eq!(fit(&more, long.clone()), long);
    let longer = answer_to(&more, 1_400);
    let read = Message::from_vec(&fit(&more, longer)).unwrap();
    assert!(read.metadata.truncation && read.answers.is_empty() && read.edns.is_some());
    let small = answer_to(&plain, 100);
    assert_eq!(fit(&plain, small.clone()), small);
}

proptest! {
    #[test]
    fn nothing_is_too_strange(
        query in prop::collection::vec(any::<u8>(), 0..64),
        answer in prop::collection::vec(any::<u8>(), 12..1_200),
    ) {
        let _ = pad(&query);
        let _ = unpad(&query, answer.clone());
        prop_assert!(fit(&query, answer.clone()).len() <= answer.len());
        // With counts that make sense more often.
        let mut answer = answer;
        answer[4..12].copy_from_slice(&[0, 1, 0, 1, 0, 0, 0, 1]);
        let _ = unpad(&query, answer.clone());
        let _ = pad(&answer);
        prop_assert!(fit(&query, answer.clone()).len() <= answer.len());
    }
}
