//! Answers that are given again. As long as the view of the directory stands, a query that differs from an earlier one in
//! nothing but its id and the spelling of its name has the same answer, but for these two; so it need not be decided about
//! again. Nothing here allocates unless an answer is remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::agent::Destination;
use crate::query::HEADER_LEN;
use crate::services::Services;

/// Answers remembered; when there are more, all are forgotten and worked out again as they are asked for. With the bounds of
/// both messages: at most 14 MB.
const MAX_ANSWERS: usize = 16_384;
/// A longer query is decided about each time: common ones have less than 100 bytes.
const MAX_QUERY: usize = 320;
/// A longer answer is not remembered.
const MAX_ANSWER: usize = 512;
/// How often the link to a service is asked for again while its name is asked for. A packet to it asks anyhow.
const WANTED_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a message's id.
const ID_LEN: usize = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Repeated {
    view: Option<Arc<Services>>,
    /// By the query without its id, its name in lower case.
    answers: HashMap<Box<[u8]>, Standing>,
    /// Room for a key.
    key: Vec<u8>,
}

#[derive(Debug)]
struct Standing {
    answer: Box<[u8]>,
    destination: Destination,
    wanted_at: Instant,
}

/// An answer that was given before.
#[derive(Debug)]
pub struct Found<'a> {
    /// Its bytes, in four pieces: id, header and name as this query has them, and all else as it was.
    pub pieces: [&'a [u8]; 4],
    /// The service whose link should be asked for again.
    pub wanted: Option<&'a Destination>,
}

impl Repeated {
    /// To be called before [`Repeated::find`]: what an earlier view gave is forgotten.
    pub fn handle_view(&mut self, view: Option<&Arc<Services>>) {
        let is_same = match (&self.view, view) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            // Held, so that no other view can come to lie where it lies.
            self.view = view.cloned();
            self.answers.clear();
        }
    }

    /// The answer to a query, if it was given before.
    pub fn find<'a>(&'a mut self, query: &'a [u8], now: Instant) -> Option<Found<'a>> {
        let name_end = write_key(query, &mut self.key)?;
        let standing = self.answers.get_mut(self.key.as_slice())?;
        let is_due = now.saturating_duration_since(standing.wanted_at) >= WANTED_EVERY;
        if is_due {
            standing.wanted_at = now;
        }
        let answer = &standing.answer;
        Some(Found {
            pieces: [
                query.get(..ID_LEN)?,
                answer.get(ID_LEN..HEADER_LEN)?,
                query.get(HEADER_LEN..name_end)?,
                answer.get(name_end..)?,
            ],
            wanted: is_due.then_some(&standing.destination),
        })
    }

    /// Remembers an answer of this view, which is to stand for that destination as long as the view does.
    pub fn remember(
        &mut self,
        query: &[u8],
        answer: &[u8],
        destination: Destination,
        now: Instant,
    ) {
        let Some(name_end) = write_key(query, &mut self.key) else {
            return;
        };
        // The name must be where it is put in again.
        let name = HEADER_LEN..name_end;
        if answer.len() > MAX_ANSWER || answer.get(name.clone()) != query.get(name) {
            return;
        }
        if self.answers.len() >= MAX_ANSWERS {
            self.answers.clear();
        }
        let standing = Standing {
            answer: answer.into(),
            destination,
            wanted_at: now,
        };
        self.answers.insert(self.key.as_slice().into(), standing);
    }
}

/// Writes a query without its id and with its name in lower case; says where the name ends. `None`: longer than what is
/// remembered, or without a plain name.
fn write_key(query: &[u8], key: &mut Vec<u8>) -> Option<usize> {
    if query.len() > MAX_QUERY {
        return None;
    }
    key.clear();
    key.extend_from_slice(query.get(ID_LEN..)?);
    let mut at = HEADER_LEN;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        match length {
            0 => return Some(at),
            1..=63 => {
                let label = at - ID_LEN..at - ID_LEN + length;
                key.get_mut(label)?.make_ascii_lowercase();
                at += length;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn query(id: u16, name: &[u8], flags: u8) -> Vec<u8> {
        let mut query = vec![0; HEADER_LEN];
        query[..2].copy_from_slice(&id.to_be_bytes());
        query[2] = flags;
        query[5] = 1;
        query.push(u8::try_from(name.len()).unwrap());
        query.extend_from_slice(name);
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        query
    }

    fn answer_to(query: &[u8]) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x84;
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 198, 18, 0, 9]);
        answer
    }

    fn destination() -> Destination {
        Destination {
            network: "east".parse().unwrap(),
            service: "orders".parse().unwrap(),
            ipv4: None,
            ipv6: None,
        }
    }

    fn known() -> (Repeated, Instant) {
        let (mut repeated, now) = (Repeated::default(), Instant::now());
        repeated.handle_view(Some(&Arc::new(Services::new(1))));
        let first = query(1, b"orders", 1);
        repeated.remember(&first, &answer_to(&first), destination(), now);
        (repeated, now)
    }

    #[test]
    fn an_answer_is_the_same_but_for_id_and_spelling() {
        let (mut repeated, now) = known();
        let again = query(0xbeef, b"oRdErS", 1);
        let found = repeated.find(&again, now).expect("it was given before");
        assert_eq!(found.pieces.concat(), answer_to(&again));
    }

    #[test]
    fn what_differs_in_anything_else_is_decided_about() {
        let (mut repeated, now) = known();
        let mut others = vec![query(1, b"orders", 0), query(1, b"order5", 1)];
        let mut with_edns = query(1, b"orders", 1);
        with_edns.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        others.push(with_edns);
        others.push(query(1, b"orders", 1)[..20].to_vec());
        others.push(Vec::new());
        let mut compressed = query(1, b"orders", 1);
        compressed[HEADER_LEN] = 0xc0;
        others.push(compressed);
        for other in others {
            assert!(repeated.find(&other, now).is_none(), "{other:?}");
        }
    }

    #[test]
    fn another_view_forgets() {
        let (mut repeated, now) = known();
        let again = query(2, b"orders", 1);
        let view = repeated.view.clone();
        repeated.handle_view(view.as_ref());
        assert!(repeated.find(&again, now).is_some());
        repeated.handle_view(Some(&Arc::new(Services::new(1))));
        assert!(repeated.find(&again, now).is_none());
    }

    #[test]
    fn the_link_is_asked_for_again_after_a_while() {
        let (mut repeated, now) = known();
        let again = query(2, b"orders", 1);
        let mut asked = |at| {
            repeated
                .find(&again, at)
                .is_some_and(|found| found.wanted.is_some())
        };
        assert!(!asked(now));
        assert!(asked(now + WANTED_EVERY));
        assert!(!asked(now + WANTED_EVERY));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut repeated, now) = known();
        for n in 0..=MAX_ANSWERS {
            let query = query(1, format!("s{n}").as_bytes(), 1);
            repeated.remember(&query, &answer_to(&query), destination(), now);
            assert!(repeated.answers.len() <= MAX_ANSWERS);
        }
        let long = [query(1, b"orders", 1), vec![0; MAX_QUERY]].concat();
        let count = repeated.answers.len();
        repeated.remember(&long, &answer_to(&long), destination(), now);
        assert_eq!(repeated.answers.len(), count);
    }
}
