//! Tickets that only this process can read, and only where an allocation is: whose it is, the allocation says itself.
//!
//! ```text
//! base64url of: (shard, index, number) under a key stream | HMAC-SHA256(key, shard, index, number)[..16]
//!                8 bytes                                     16 bytes, which the key stream is made from
//! ```
//!
//! As 32 characters: coturn's client keeps no more, and treats it as text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const BODY: usize = 8;
const TAG: usize = 16;
/// Characters of every ticket.
pub(crate) const TICKET_LEN: usize = (BODY + TAG) * 4 / 3;

/// Where an allocation is, and which ticket of its tickets this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) shard: u16,
    /// In the shard's table; 24 bits, of which a shard never needs all.
    pub(crate) index: u32,
    pub(crate) number: u32,
}

/// Writes and reads tickets. All shards have the same key.
pub(crate) struct Tickets {
    key: [u8; 32],
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets(…)")
    }
}

impl Tickets {
    /// With a key made from another one.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let key = hmac(secret, &[b"mobility tickets"]);
        Self { key }
    }

    /// `None` for a place beyond 256 shards or 2^24 allocations.
    pub(crate) fn write(&self, place: Place) -> Option<String> {
        let shard = u8::try_from(place.shard).ok()?;
        let [0, i0, i1, i2] = place.index.to_be_bytes() else {
            return None;
        };
        let [n0, n1, n2, n3] = place.number.to_be_bytes();
        let mut bytes = [0; BODY + TAG];
        bytes[..BODY].copy_from_slice(&[shard, i0, i1, i2, n0, n1, n2, n3]);
        let tag = self.tag(&bytes[..BODY]);
        bytes[BODY..].copy_from_slice(&tag);
        self.mask(&mut bytes);
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    pub(crate) fn read(&self, ticket: &[u8]) -> Option<Place> {
        let mut bytes = [0; BODY + TAG];
        if ticket.len() != TICKET_LEN
            || URL_SAFE_NO_PAD.decode_slice(ticket, &mut bytes) != Ok(bytes.len())
        {
            return None;
        }
        self.mask(&mut bytes);
        let tag = self.tag(&bytes[..BODY]);
        if !bool::from(subtle::ConstantTimeEq::ct_eq(&tag[..], &bytes[BODY..])) {
            return None;
        }
        let [shard, i0, i1, i2, n0, n1, n2, n3, ..] = bytes;
        Some(Place {
            shard: shard.into(),
            index: u32::from_be_bytes([0, i0, i1, i2]),
            number: u32::from_be_bytes([n0, n1, n2, n3]),
        })
    }

    fn tag(&self, body: &[u8]) -> [u8; TAG] {
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hmac(&self.key, &[b"tag", body])[..TAG]);
        tag
    }

    /// There and back.
    fn mask(&self, bytes: &mut [u8; BODY + TAG]) {
        let (body, tag) = bytes.split_at_mut(BODY);
        let stream = hmac(&self.key, &[b"mask", tag]);
        for (byte, mask) in body.iter_mut().zip(stream) {
            *byte ^= mask;
        }
    }
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_by_whoever_has_the_key_and_only_whole() {
        let tickets = Tickets::new(&[7; 32]);
        let place = Place {
            shard: 255,
            index: 0xFF_FFFF,
            number: 0xDEAD_BEEF,
        };
        let ticket = tickets.write(place).unwrap();
        assert_eq!(ticket.len(), TICKET_LEN);
        assert_eq!(tickets.read(ticket.as_bytes()), Some(place));
        assert_eq!(Tickets::new(&[8; 32]).read(ticket.as_bytes()), None);
        for at in 0..ticket.len() {
            let mut bytes = ticket.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(tickets.read(&bytes), None);
            assert_eq!(tickets.read(&ticket.as_bytes()[..at]), None);
        }
        let beyond = Place {
            index: 1 << 24,
            ..place
        };
        assert_eq!(tickets.write(beyond), None);
    }
}
