//! Answers of upstreams, kept as long as their records say
//! ([RFC 1035 section 7.4](https://www.rfc-editor.org/rfc/rfc1035#section-7.4)), negative ones as long as their SOA says
//! ([RFC 2308 section 5](https://www.rfc-editor.org/rfc/rfc2308#section-5)).
//!
//! An answer is given again to a query that is the same byte for byte, but for its id: so nothing that a client asks for,
//! by DO, CD, the size it takes, EDNS options or the spelling of the name, is ever mixed with what another asked for. What
//! comes out is what the upstream said, but for the id and the TTLs, which count down.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::query::{HEADER_LEN, response_code, set_id, skip_name, u16_at};

/// A longer query is not looked for: common ones have less than 100 bytes.
const MAX_QUERY: usize = 320;
/// A longer answer is not kept.
const MAX_ANSWER: usize = 4_096;
/// Records of an answer that is kept, at most.
const MAX_RECORDS: usize = 64;
/// No answer is kept for longer.
const MAX_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// No negative answer is kept for longer (RFC 2308 section 5: one to three hours).
const MAX_NEGATIVE: Duration = Duration::from_secs(3 * 3_600);

const NXDOMAIN: u8 = 3;
const SOA: u16 = 6;
const SIG: u16 = 24;
const OPT: u16 = 41;
const TSIG: u16 = 250;
const IXFR: u16 = 251;
const AXFR: u16 = 252;
/// Bytes of a message's id.
const ID_LEN: usize = 2;

/// See the module. Two generations: when the younger is full, the older is forgotten; what is asked for stays young.
#[derive(Debug)]
pub struct Cache {
    young: HashMap<Box<[u8]>, Kept>,
    old: HashMap<Box<[u8]>, Kept>,
    /// Answers of one generation.
    room: usize,
}

#[derive(Debug)]
struct Kept {
    answer: Box<[u8]>,
    since: Instant,
    until: Instant,
    /// Where its TTLs are.
    ttls: Box<[u16]>,
}

/// How long an answer may be kept, and where its TTLs are.
#[derive(Debug, PartialEq, Eq)]
struct Lifetime {
    keep: Duration,
    ttls: Vec<u16>,
}

impl Cache {
    /// A cache for so many answers; with 0 nothing is kept.
    #[must_use]
    pub fn new(answers: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            room: answers.div_ceil(2),
        }
    }

    /// How many answers there are, those among them that are too old by now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The answer to this query, with its id.
    pub fn find(&mut self, query: &[u8], now: Instant) -> Option<Vec<u8>> {
        let key = key(query)?;
        if let Some((key, kept)) = self.old.remove_entry(key) {
            if kept.until <= now {
                return None;
            }
            self.insert(key, kept);
        }
        let kept = self.young.get(key)?;
        if kept.until <= now {
            self.young.remove(key);
            return None;
        }
        let elapsed = now.saturating_duration_since(kept.since).as_secs();
        let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
        let mut answer = kept.answer.to_vec();
        for at in &kept.ttls {
            if let Some(ttl) = answer.get_mut(usize::from(*at)..)?.first_chunk_mut::<4>() {
                *ttl = u32::from_be_bytes(*ttl)
                    .saturating_sub(elapsed)
                    .to_be_bytes();
            }
        }
        set_id(&mut answer, u16::from_be_bytes(*query.first_chunk()?));
        Some(answer)
    }

    /// Keeps an answer to this query, if it may be kept.
    pub fn keep(&mut self, query: &[u8], answer: &[u8], now: Instant) {
        let Some(key) = key(query) else {
            return;
        };
        if self.room == 0 {
            return;
        }
        let Some(Lifetime { keep, ttls }) = lifetime(answer) else {
            return;
        };
        self.old.remove(key);
        let kept = Kept {
            answer: answer.into(),
            since: now,
            until: now + keep,
            ttls: ttls.into(),
        };
        self.insert(key.into(), kept);
    }

    fn insert(&mut self, key: Box<[u8]>, kept: Kept) {
        if self.young.len() >= self.room && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, kept);
    }
}

/// All of a query but its id.
fn key(query: &[u8]) -> Option<&[u8]> {
    query.get(ID_LEN..).filter(|_| query.len() <= MAX_QUERY)
}

/// `None`: not to be kept, or not to be read to its end.
fn lifetime(answer: &[u8]) -> Option<Lifetime> {
    const TRUNCATED: u8 = 0x02;
    let header = answer.first_chunk::<HEADER_LEN>()?;
    let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let (answers, authorities, additionals) = (count(6), count(8), count(10));
    let is_plain = answer.len() <= MAX_ANSWER && header[2] & TRUNCATED == 0 && count(4) == 1;
    let records = answers + authorities + additionals;
    if !is_plain || records > MAX_RECORDS {
        return None;
    }
    let is_negative = match response_code(answer) {
        0 => answers == 0,
        NXDOMAIN => true,
        _ => return None,
    };
    let mut at = skip_name(answer, HEADER_LEN)?;
    let asked = u16_at(answer, at)?;
    if asked == AXFR || asked == IXFR {
        return None;
    }
    at += 4;
    let mut keep = MAX_KEPT;
    let mut ttls = Vec::with_capacity(records);
    let mut has_soa = false;
    for record in 0..records {
        at = skip_name(answer, at)?;
        let of_type = u16_at(answer, at)?;
        let ttl_at = at + 4;
        let length = usize::from(u16_at(answer, at + 8)?);
        let data = answer.get(at + 10..at + 10 + length)?;
        at += 10 + length;
        match of_type {
            // EDNS has its flags there; what it says was to this query (RFC 6891 section 6.1.3).
            OPT => {
                // The upper bits of RCODE.
                if *answer.get(ttl_at)? != 0 {
                    return None;
                }
                continue;
            }
            // Signed for one transaction.
            TSIG => return None,
            SIG if record >= answers + authorities => return None,
            SOA if (answers..answers + authorities).contains(&record) => {
                has_soa = true;
                // MINIMUM is the last of its numbers.
                let minimum = data.last_chunk::<4>()?;
                keep = keep.min(seconds(*minimum)).min(MAX_NEGATIVE);
            }
            _ => {}
        }
        keep = keep.min(seconds(*answer.get(ttl_at..)?.first_chunk()?));
        ttls.push(u16::try_from(ttl_at).ok()?);
    }
    // Without its SOA a negative answer is not to be kept (RFC 2308 section 5); without records nothing says how long.
    let may_keep = at == answer.len() && !ttls.is_empty() && (has_soa || !is_negative);
    (may_keep && !keep.is_zero()).then_some(Lifetime { keep, ttls })
}

/// With the highest bit it is none at all (RFC 2181 section 8).
fn seconds(ttl: [u8; 4]) -> Duration {
    let seconds = u32::from_be_bytes(ttl);
    Duration::from_secs(if seconds >> 31 == 0 {
        seconds.into()
    } else {
        0
    })
}
