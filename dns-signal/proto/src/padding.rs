//! Padding of what is asked over an encrypted connection ([RFC 7830](https://www.rfc-editor.org/rfc/rfc7830)): its length
//! shall say little of what is asked. Queries are padded to whole blocks of 128 bytes
//! ([RFC 8467 section 4.1](https://www.rfc-editor.org/rfc/rfc8467#section-4.1)). It is between us and the upstream: what we
//! added, and what the upstream added because of it, does not reach the client.

use crate::query::{HEADER_LEN, edns_at, question_end, u16_at};

/// Queries have a multiple of so many bytes.
const BLOCK: usize = 128;
/// OPTION-CODE of padding.
const PADDING: u16 = 12;
/// Bytes of an option before its data: OPTION-CODE and OPTION-LENGTH.
const OPTION_HEADER: usize = 4;
/// An OPT record without options: the root's name, TYPE, the largest UDP payload (1232, which matters to nobody here),
/// no extended RCODE, version 0, no flags, RDLENGTH ([RFC 6891 section 6.1.2](https://www.rfc-editor.org/rfc/rfc6891#section-6.1.2)).
const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0];
/// From an OPT record's begin to its RDLENGTH.
const LENGTH_AT: usize = 9;
/// The least significant byte of ARCOUNT.
const ADDITIONALS: usize = 11;

/// The query, padded. As it is when it has records besides EDNS (a signature would not fit any more), when it is padded
/// already, or when it cannot be read to its end.
#[must_use]
pub fn pad(query: &[u8]) -> Vec<u8> {
    let mut padded = query.to_vec();
    let Some(records) = query.get(6..HEADER_LEN) else {
        return padded;
    };
    let opt_at = match records {
        [0, 0, 0, 0, 0, 0] if question_end(query) == Some(query.len()) => {
            padded.extend_from_slice(&OPT);
            padded[ADDITIONALS] = 1;
            query.len()
        }
        [0, 0, 0, 0, 0, 1] => match edns_at(query) {
            Some(at) if may_grow(query, at) => at,
            _ => return padded,
        },
        _ => return padded,
    };
    let length = (padded.len() + OPTION_HEADER).next_multiple_of(BLOCK);
    let fill = length - padded.len() - OPTION_HEADER;
    padded.extend_from_slice(&PADDING.to_be_bytes());
    // Less than a block.
    padded.extend_from_slice(&(fill as u16).to_be_bytes());
    padded.resize(length, 0);
    if set_length(&mut padded, opt_at) {
        padded
    } else {
        query.to_vec()
    }
}

/// The answer to a query that was sent as [`pad`] made it, as it would be to `query` itself: without padding, and
/// without EDNS if the query has none.
#[must_use]
pub fn unpad(query: &[u8], mut answer: Vec<u8>) -> Vec<u8> {
    let Some(at) = edns_at(&answer) else {
        return answer;
    };
    if query.get(6..HEADER_LEN) == Some(&[0; 6]) {
        let is_all_said = answer.get(at + 5) == Some(&0);
        let additionals = u16_at(&answer, ADDITIONALS - 1).unwrap_or(0);
        // The upper bits of RCODE would be lost.
        if is_all_said {
            answer.truncate(at);
            let fewer = additionals.saturating_sub(1).to_be_bytes();
            answer[ADDITIONALS - 1..=ADDITIONALS].copy_from_slice(&fewer);
        }
        return answer;
    }
    let mut unpadded = answer[..at + OPT.len()].to_vec();
    for (code, option) in options(&answer, at) {
        if code != PADDING {
            unpadded.extend_from_slice(option);
        }
    }
    if set_length(&mut unpadded, at) {
        unpadded
    } else {
        answer
    }
}

/// Whether another option may follow those of the OPT record that begins at `at`: none is padding, or cut off.
fn may_grow(query: &[u8], at: usize) -> bool {
    let mut end = at + OPT.len();
    for (code, option) in options(query, at) {
        if code == PADDING {
            return false;
        }
        end += option.len();
    }
    end == query.len()
}

/// The options of the OPT record that begins at `at` and ends the message, each whole; up to the first that is not.
fn options(message: &[u8], at: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = message.get(at + OPT.len()..).unwrap_or_default();
    std::iter::from_fn(move || {
        let code = u16_at(rest, 0)?;
        let length = OPTION_HEADER + usize::from(u16_at(rest, 2)?);
        let (option, after) = rest.split_at_checked(length)?;
        rest = after;
        Some((code, option))
    })
}

/// Writes how long the OPT record's data is that begins at `at` and ends the message; `false`: too long.
fn set_length(message: &mut [u8], at: usize) -> bool {
    let Ok(length) = u16::try_from(message.len() - at - OPT.len()) else {
        return false;
    };
    message[at + LENGTH_AT..at + OPT.len()].copy_from_slice(&length.to_be_bytes());
    true
}
