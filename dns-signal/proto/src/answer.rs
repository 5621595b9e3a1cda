//! Writing the answers that we give ourselves.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record};

use crate::query::{self, ClientEdns, HEADER_LEN, Malformed, Query, edns_at, question_end};

/// The largest UDP answer we send or ask for: it crosses any path unfragmented
/// ([DNS flag day 2020](https://www.dnsflagday.net/2020/)).
pub const MAX_UDP_PAYLOAD: u16 = 1232;

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// One A or AAAA record each.
    Addresses(Vec<IpAddr>),
    /// A PTR record.
    Pointer(Name),
    /// One SRV record for each port, all at this name, and the name's addresses with them.
    Ports(Name, Vec<u16>, Vec<IpAddr>),
    /// A TXT record for each string, at most 255 bytes (RFC 1464: one attribute each).
    Text(Vec<String>),
    /// The SOA record itself.
    Authority(Authority),
    /// NOERROR without answer, with the zone's SOA.
    NoData(Authority),
    /// NXDOMAIN, with the zone's SOA.
    NoSuchName(Authority),
    /// REFUSED.
    Refused,
    /// SERVFAIL.
    Failed,
}

/// A zone of ours, as its SOA record tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// The zone's name.
    pub zone: Name,
    /// Rises with every change.
    pub serial: u32,
}

/// Encodes the answer to `query`. `limit` is the largest message the transport takes: over UDP what [`udp_limit`] says;
/// what does not fit is replaced by a truncated answer, so that the client asks again over TCP
/// ([RFC 2181 section 9](https://www.rfc-editor.org/rfc/rfc2181#section-9)). `ttl` has whole seconds.
pub fn encode(
    query: &Query,
    edns: Option<ClientEdns>,
    reply: &Reply,
    ttl: Duration,
    limit: usize,
) -> Vec<u8> {
    let mut message = Message::response(query.id, OpCode::Query);
    message.metadata.recursion_desired = query.recursion_desired;
    message.metadata.checking_disabled = query.checking_disabled;
    message.metadata.recursion_available = true;
    message.metadata.authoritative = !matches!(reply, Reply::Refused | Reply::Failed);
    message.add_query(query.question.clone());
    if let Some(edns) = edns {
        message.set_edns(our_edns(edns));
    }

    if edns.is_some_and(|edns| edns.version > 0) {
        message.metadata.authoritative = false;
        message.metadata.response_code = ResponseCode::BADVERS;
    } else {
        let ttl = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX);
        fill(&mut message, query.question.name(), reply, ttl);
    }
    finish(&message, limit)
}

fn fill(message: &mut Message, owner: &Name, reply: &Reply, ttl: u32) {
    match reply {
        Reply::Addresses(addresses) => {
            for address in addresses {
                message.add_answer(address_record(owner, *address, ttl));
            }
        }
        Reply::Ports(target, ports, addresses) => {
            for port in ports {
                let data = RData::SRV(SRV::new(0, 0, *port, target.clone()));
                message.add_answer(Record::from_rdata(owner.clone(), ttl, data));
            }
            for address in addresses {
                message.add_additional(address_record(target, *address, ttl));
            }
        }
        Reply::Text(texts) => {
            for text in texts {
                let data = RData::TXT(TXT::new(vec![text.clone()]));
                message.add_answer(Record::from_rdata(owner.clone(), ttl, data));
            }
        }
        Reply::Pointer(name) => {
            let data = RData::PTR(PTR(name.clone()));
            message.add_answer(Record::from_rdata(owner.clone(), ttl, data));
        }
        Reply::Authority(authority) => {
            message.add_answer(soa(authority, ttl));
        }
        Reply::NoData(authority) => {
            message.add_authority(soa(authority, ttl));
        }
        Reply::NoSuchName(authority) => {
            message.metadata.response_code = ResponseCode::NXDomain;
            message.add_authority(soa(authority, ttl));
        }
        Reply::Refused => message.metadata.response_code = ResponseCode::Refused,
        Reply::Failed => message.metadata.response_code = ResponseCode::ServFail,
    }
}

fn address_record(owner: &Name, address: IpAddr, ttl: u32) -> Record {
    let data = match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    };
    Record::from_rdata(owner.clone(), ttl, data)
}

/// The SOA record. Its TTL and its last field are how long a client may remember that something is not there
/// ([RFC 2308 section 5](https://www.rfc-editor.org/rfc/rfc2308#section-5)).
fn soa(authority: &Authority, ttl: u32) -> Record {
    let zone = authority.zone.clone();
    let contact = Name::from_ascii("hostmaster")
        .and_then(|name| name.append_domain(&zone))
        .unwrap_or_else(|_| zone.clone());
    let data = SOA::new(
        zone.clone(),
        contact,
        authority.serial,
        3600,
        600,
        86_400,
        ttl,
    );
    Record::from_rdata(zone, ttl, RData::SOA(data))
}

fn our_edns(client: ClientEdns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP_PAYLOAD)
        .set_version(0)
        .set_dnssec_ok(client.dnssec_ok);
    edns
}

fn finish(message: &Message, limit: usize) -> Vec<u8> {
    match message.to_vec() {
        Ok(bytes) if bytes.len() <= limit => bytes,
        Ok(_) => message.truncate().to_vec().unwrap_or_default(),
        // What was read from a message can be written to one.
        Err(_) => Vec::new(),
    }
}

/// The largest UDP answer for a client: 512 bytes without EDNS, else what it takes, within our own bound.
pub fn udp_limit(edns: Option<ClientEdns>) -> usize {
    usize::from(edns.map_or(512, |edns| edns.max_payload.min(MAX_UDP_PAYLOAD)))
}

/// The answer to what cannot be understood: its header alone, turned around. `None`: no answer may be given.
pub fn encode_malformed(message: &[u8], malformed: Malformed) -> Option<Vec<u8>> {
    let code = match malformed {
        Malformed::Unanswerable => return None,
        Malformed::Format => 1,
        Malformed::NotImplemented => 4,
    };
    let header = message.first_chunk::<HEADER_LEN>()?;
    // QR set; OPCODE, RD and CD kept; no records.
    Some(vec![
        header[0],
        header[1],
        0x80 | (header[2] & 0x79),
        (header[3] & 0x10) | code,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ])
}

/// SERVFAIL for a query that could not be forwarded: its header and question, turned around.
pub fn encode_failure(message: &[u8], query: &Query) -> Vec<u8> {
    let mut answer = message
        .get(..query.question_end)
        .unwrap_or_default()
        .to_vec();
    if let Some(header) = answer.first_chunk_mut::<HEADER_LEN>() {
        header[2] = 0x80 | (header[2] & 0x79);
        // RA, CD, SERVFAIL.
        header[3] = 0x80 | (header[3] & 0x10) | 2;
        header[6..].fill(0);
    }
    answer
}

/// What a client gets over UDP of what an upstream said: all of it, or, when `message`, its query, says that it takes less, a truncated
/// answer. An upstream that is asked over a stream has no reason to truncate.
#[must_use]
pub fn fit(message: &[u8], answer: Vec<u8>) -> Vec<u8> {
    // What everybody takes.
    if answer.len() <= 512 {
        return answer;
    }
    let edns = query::decode_edns(message).ok().flatten();
    let takes = edns.map_or(512, |edns| usize::from(edns.max_payload));
    if answer.len() <= takes {
        return answer;
    }
    // Errors may come without the question.
    let end = match answer[4..6] {
        [0, 1] => question_end(&answer).unwrap_or(HEADER_LEN),
        _ => HEADER_LEN,
    };
    let mut truncated = answer[..end].to_vec();
    // TC; the question alone.
    truncated[2] |= 0x02;
    truncated[6..HEADER_LEN].fill(0);
    let edns = edns_at(&answer).map(|at| &answer[at..]);
    if let Some(edns) = edns.filter(|edns| end + edns.len() <= takes) {
        truncated.extend_from_slice(edns);
        truncated[HEADER_LEN - 1] = 1;
    }
    truncated
}
