//! Reading a query, no further than needed: what is not ours is forwarded as it came.
//!
//! ```text
//!  0                   1
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
//! |              ID               |
//! |QR| OPCODE |AA|TC|RD|RA|Z|AD|CD| RCODE |
//! |            QDCOUNT            | 1
//! |            ANCOUNT            |
//! |            NSCOUNT            |
//! |            ARCOUNT            |
//! |  QNAME, QTYPE, QCLASS         |
//! ```
//! ([RFC 1035 section 4.1](https://www.rfc-editor.org/rfc/rfc1035#section-4.1))

use hickory_proto::op::{Message, Query as Question};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Bytes of the header.
pub const HEADER_LEN: usize = 12;

/// A query with one question.
#[derive(Clone, Debug)]
pub struct Query {
    /// Chosen by the client.
    pub id: u16,
    /// RD: to be echoed.
    pub recursion_desired: bool,
    /// CD: to be echoed.
    pub checking_disabled: bool,
    /// The question, in the client's own spelling.
    pub question: Question,
    /// Where the question ends in the message.
    pub question_end: usize,
}

/// What is wrong with a message, and whether it can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than a header, or itself a response: never answered, or two servers could answer each other forever.
    Unanswerable,
    /// OPCODE is not QUERY: NOTIMP.
    NotImplemented,
    /// Not exactly one readable question: FORMERR.
    Format,
}

/// Reads header and question.
///
/// # Errors
/// What is wrong, which is also how to answer.
pub fn decode(message: &[u8]) -> Result<Query, Malformed> {
    let Some(header) = message.first_chunk::<HEADER_LEN>() else {
        return Err(Malformed::Unanswerable);
    };
    if header[2] & 0x80 != 0 {
        return Err(Malformed::Unanswerable);
    }
    if header[2] & 0x78 != 0 {
        return Err(Malformed::NotImplemented);
    }
    if header[4..6] != [0, 1] {
        return Err(Malformed::Format);
    }
    let (question, question_end) = question(message).ok_or(Malformed::Format)?;
    Ok(Query {
        id: u16::from_be_bytes([header[0], header[1]]),
        recursion_desired: header[2] & 0x01 != 0,
        checking_disabled: header[3] & 0x10 != 0,
        question,
        question_end,
    })
}

/// The first question of any message, and where it ends.
pub fn question(message: &[u8]) -> Option<(Question, usize)> {
    let mut decoder = BinDecoder::new(message);
    decoder.read_slice(HEADER_LEN).ok()?;
    let question = Question::read(&mut decoder).ok()?;
    Some((question, decoder.index()))
}

/// What a client says about itself by EDNS ([RFC 6891 section 6.1](https://www.rfc-editor.org/rfc/rfc6891#section-6.1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientEdns {
    /// The largest UDP answer it takes, at least 512 bytes.
    pub max_payload: u16,
    /// 0 is the only version there is.
    pub version: u8,
    /// DO: to be echoed.
    pub dnssec_ok: bool,
}

/// Reads the rest of a query that we answer ourselves: whether there is EDNS.
///
/// # Errors
/// [`Malformed::Format`] when the records after the question cannot be read.
pub fn decode_edns(message: &[u8]) -> Result<Option<ClientEdns>, Malformed> {
    // Without further records there is nothing to read (RFC 1035 section 4.1.1); the usual case of old stub resolvers.
    if message
        .get(6..HEADER_LEN)
        .is_some_and(|counts| counts.iter().all(|byte| *byte == 0))
    {
        return Ok(None);
    }
    let message = Message::from_vec(message).map_err(|_| Malformed::Format)?;
    Ok(message.edns.map(|edns| ClientEdns {
        max_payload: edns.max_payload().max(512),
        version: edns.version(),
        dnssec_ok: edns.flags().dnssec_ok,
    }))
}

/// Whether `answer` answers `query`: a response with its id and question. Servers may write the name in other case.
pub fn is_answer_to(answer: &[u8], id: u16, question_asked: &Question) -> bool {
    let Some(header) = answer.first_chunk::<HEADER_LEN>() else {
        return false;
    };
    let is_response = header[2] & 0x80 != 0 && header[2] & 0x78 == 0;
    if !is_response || header[..2] != id.to_be_bytes() {
        return false;
    }
    // An error may come without the question (RFC 1035 is silent; FORMERR and REFUSED often do).
    if header[4..6] == [0, 0] {
        return response_code(answer) != 0;
    }
    header[4..6] == [0, 1]
        && question(answer).is_some_and(|(question, _)| {
            question.query_type() == question_asked.query_type()
                && question.query_class() == question_asked.query_class()
                && question.name() == question_asked.name()
        })
}

/// RCODE, without EDNS's upper bits.
pub fn response_code(answer: &[u8]) -> u8 {
    answer.get(3).map_or(0, |byte| byte & 0x0f)
}

/// Replaces the message's id.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(start) = message.first_chunk_mut::<2>() {
        *start = id.to_be_bytes();
    }
}

/// Where the question ends, unread.
pub(crate) fn question_end(message: &[u8]) -> Option<usize> {
    let after = skip_name(message, HEADER_LEN)? + 4;
    (after <= message.len()).then_some(after)
}

/// Where the EDNS record begins, if it is the message's last, as it is unless the message is signed.
pub(crate) fn edns_at(message: &[u8]) -> Option<usize> {
    const OPT: u16 = 41;
    let count = |at| u16_at(message, at).map(usize::from);
    let mut at = match count(4)? {
        0 => HEADER_LEN,
        1 => question_end(message)?,
        _ => return None,
    };
    let mut last = None;
    for _ in 0..count(6)? + count(8)? + count(10)? {
        last = Some(at);
        let after_name = skip_name(message, at)?;
        at = after_name + 10 + usize::from(u16_at(message, after_name + 8)?);
    }
    let begin = last.filter(|_| at == message.len() && count(10) > Some(0))?;
    // The root's name, a single zero (RFC 6891 section 6.1.2).
    (message.get(begin) == Some(&0) && u16_at(message, begin + 1) == Some(OPT)).then_some(begin)
}

pub(crate) fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?))
}

/// Where a name ends that begins at `at`.
pub(crate) fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            // A pointer ends it.
            0xc0.. => return Some(at + 2),
            _ => return None,
        }
    }
}
