//! Nonces that the server recognizes without remembering them.
//!
//! ```text
//! obMatJos2 | base64 of 24 bits of security features | base64url of (time, HMAC-SHA256(key, time, client, realm)[..14])
//!    9      |                  4                      |                         24
//! ```
//!
//! The first 13 characters are the nonce cookie of
//! [RFC 8489 section 9.2](https://www.rfc-editor.org/rfc/rfc8489#section-9.2): whoever removes the PASSWORD-ALGORITHMS
//! from an answer on its way cannot remove the announcement in the nonce with it.
//!
//! To a request that is too small for that answer goes a short nonce, without cookie: base64url of the lower 16 bits of
//! the time and 7 bytes of the HMAC, 12 characters.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use model::ClientAddr;
use sha2::Sha256;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// "Password algorithms" is the highest of the 24 bits: base64 of 0x80 0x00 0x00.
const COOKIE: &str = "obMatJos2gAAA";
const TAG_LEN: usize = 14;
const SHORT_TAG_LEN: usize = 7;
/// Bytes of a short nonce.
pub(crate) const SHORT_NONCE_LEN: usize = 12;
/// Bytes of every nonce.
pub(crate) const NONCE_LEN: usize = COOKIE.len() + 24;

/// Issues and checks nonces. Two of them with the same key, start and lifetime accept each other's.
#[derive(Clone)]
pub(crate) struct Nonces {
    key: [u8; 32],
    started: Instant,
    lifetime: Duration,
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nonces")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl Nonces {
    pub(crate) fn new(key: [u8; 32], started: Instant, lifetime: Duration) -> Self {
        Self {
            key,
            started,
            lifetime,
        }
    }

    pub(crate) fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = lifetime;
    }

    /// Seconds since the start, which is before all that is asked.
    fn seconds(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.started).as_secs() as u32
    }

    fn tag(&self, seconds: u32, client: ClientAddr, realm: &str) -> [u8; TAG_LEN] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(&seconds.to_be_bytes());
        match client.0.ip() {
            IpAddr::V4(ip) => mac.update(&ip.octets()),
            IpAddr::V6(ip) => mac.update(&ip.octets()),
        }
        mac.update(&client.0.port().to_be_bytes());
        // The length last: it tells realms apart, and addresses of different lengths before them.
        mac.update(realm.as_bytes());
        mac.update(&(realm.len() as u32).to_be_bytes());
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&mac.finalize().into_bytes()[..TAG_LEN]);
        tag
    }

    pub(crate) fn issue(&self, now: Instant, client: ClientAddr, realm: &str) -> String {
        let seconds = self.seconds(now);
        let mut bytes = [0; 4 + TAG_LEN];
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        bytes[4..].copy_from_slice(&self.tag(seconds, client, realm));
        let mut nonce = String::with_capacity(NONCE_LEN);
        nonce.push_str(COOKIE);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut nonce);
        nonce
    }

    pub(crate) fn issue_short(&self, now: Instant, client: ClientAddr, realm: &str) -> String {
        let seconds = self.seconds(now);
        let mut bytes = [0; 2 + SHORT_TAG_LEN];
        bytes[..2].copy_from_slice(&(seconds as u16).to_be_bytes());
        bytes[2..].copy_from_slice(&self.tag(seconds, client, realm)[..SHORT_TAG_LEN]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether this server gave this nonce to this client for this realm, at most a lifetime ago.
    pub(crate) fn is_fresh(
        &self,
        now: Instant,
        client: ClientAddr,
        realm: &str,
        nonce: &[u8],
    ) -> bool {
        let Some(encoded) = nonce.strip_prefix(COOKIE.as_bytes()) else {
            return self.is_fresh_short(now, client, realm, nonce);
        };
        let mut bytes = [0; 4 + TAG_LEN];
        if encoded.len() != NONCE_LEN - COOKIE.len()
            || URL_SAFE_NO_PAD.decode_slice(encoded, &mut bytes) != Ok(bytes.len())
        {
            return false;
        }
        let [s0, s1, s2, s3, ..] = bytes;
        let seconds = u32::from_be_bytes([s0, s1, s2, s3]);
        let age = self.seconds(now).checked_sub(seconds);
        let known =
            subtle::ConstantTimeEq::ct_eq(&self.tag(seconds, client, realm)[..], &bytes[4..]);
        bool::from(known) && age.is_some_and(|age| u64::from(age) <= self.lifetime.as_secs())
    }
}

impl Nonces {
    fn is_fresh_short(&self, now: Instant, client: ClientAddr, realm: &str, nonce: &[u8]) -> bool {
        let mut bytes = [0; 2 + SHORT_TAG_LEN];
        if nonce.len() != SHORT_NONCE_LEN
            || URL_SAFE_NO_PAD.decode_slice(nonce, &mut bytes) != Ok(bytes.len())
        {
            return false;
        }
        // The last second that ends in these bits; the HMAC is over all of it.
        let now = self.seconds(now);
        let age = (now as u16).wrapping_sub(u16::from_be_bytes([bytes[0], bytes[1]]));
        let Some(seconds) = now.checked_sub(u32::from(age)) else {
            return false;
        };
        let tag = &self.tag(seconds, client, realm)[..SHORT_TAG_LEN];
        bool::from(subtle::ConstantTimeEq::ct_eq(tag, &bytes[2..]))
            && u64::from(age) <= self.lifetime.as_secs()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_for_its_client_and_its_time_only() {
        let start = Instant::now();
        let nonces = Nonces::new([7; 32], start, Duration::from_secs(60));
        let client = ClientAddr("192.0.2.1:5000".parse().unwrap());
        let other = ClientAddr("192.0.2.1:5001".parse().unwrap());
        let at = |seconds| start + Duration::from_secs(seconds);
        let nonce = nonces.issue(at(100), client, "west");
        assert_eq!(nonce.len(), NONCE_LEN);
        assert!(nonces.is_fresh(at(100), client, "west", nonce.as_bytes()));
        assert!(nonces.is_fresh(at(160), client, "west", nonce.as_bytes()));
        assert!(!nonces.is_fresh(at(161), client, "west", nonce.as_bytes()));
        assert!(!nonces.is_fresh(at(99), client, "west", nonce.as_bytes()));
        assert!(!nonces.is_fresh(at(100), other, "west", nonce.as_bytes()));
        assert!(!nonces.is_fresh(at(100), client, "east", nonce.as_bytes()));
        let stranger = Nonces::new([8; 32], start, Duration::from_secs(60));
        assert!(!stranger.is_fresh(at(100), client, "west", nonce.as_bytes()));
        for length in 0..nonce.len() {
            assert!(!nonces.is_fresh(at(100), client, "west", &nonce.as_bytes()[..length]));
        }
    }

    #[test]
    fn so_is_a_short_one_even_when_its_bits_of_the_time_come_again() {
        let start = Instant::now();
        let nonces = Nonces::new([7; 32], start, Duration::from_secs(60));
        let client = ClientAddr("192.0.2.1:5000".parse().unwrap());
        let other = ClientAddr("192.0.2.1:5001".parse().unwrap());
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in [0, 100, 65_500, 200_000] {
            let nonce = nonces.issue_short(at(second), client, "west");
            let nonce = nonce.as_bytes();
            assert_eq!(nonce.len(), SHORT_NONCE_LEN);
            assert!(nonces.is_fresh(at(second), client, "west", nonce));
            assert!(nonces.is_fresh(at(second + 60), client, "west", nonce));
            assert!(!nonces.is_fresh(at(second + 61), client, "west", nonce));
            assert!(!nonces.is_fresh(at(second + 65_536), client, "west", nonce));
            assert!(!nonces.is_fresh(at(second), other, "west", nonce));
            assert!(!nonces.is_fresh(at(second), client, "east", nonce));
        }
    }
}
