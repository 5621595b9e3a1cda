//! Third-party tokens ([RFC 7635](https://www.rfc-editor.org/rfc/rfc7635)): another server, which shares a key with this
//! one, says by an encrypted token which key a client signs with, and for how long.
//!
//! ```text
//! ACCESS-TOKEN: | nonce length (16) | nonce (96 bits) | sealed with AES-GCM, the server's name as associated data |
//! sealed:       | key length (16) | key | timestamp (48 bits of seconds, 16 of 1/64000) | lifetime (32) |
//! ```

use crate::auth::Key;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use model::UnixTime;
use stun_types::attribute::AttributeType;

/// Section 6.2.
pub(crate) const ACCESS_TOKEN: AttributeType = AttributeType::new(0x001B);
/// Section 6.1.
pub(crate) const THIRD_PARTY_AUTHORIZATION: AttributeType = AttributeType::new(0x802E);

/// How far the clocks may be apart (section 4.1.1).
const DELTA: u64 = 5;
/// The longest time that a token is believed to be good for, in seconds.
const LONGEST: u64 = 24 * 3_600;

/// The key of one authorization server: 16 bytes for AES-128-GCM, or 32 for AES-256-GCM.
pub struct TokenKey {
    aead: LessSafeKey,
    bytes: Box<[u8]>,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

impl PartialEq for TokenKey {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl TokenKey {
    /// `None` for another length.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let algorithm = match bytes.len() {
            16 => &AES_128_GCM,
            32 => &AES_256_GCM,
            _ => return None,
        };
        Some(Self {
            aead: LessSafeKey::new(UnboundKey::new(algorithm, bytes).ok()?),
            bytes: bytes.into(),
        })
    }

    /// What is in the value of ACCESS-TOKEN, if it is of this key, for this server, and of this time.
    pub(crate) fn open(&self, server_name: &str, value: &[u8], now: UnixTime) -> Option<Opened> {
        let (length, rest) = value.split_first_chunk()?;
        if usize::from(u16::from_be_bytes(*length)) != NONCE_LEN {
            return None;
        }
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut sealed = sealed.to_vec();
        let aad = Aad::from(server_name.as_bytes());
        let opened = self.aead.open_in_place(nonce, aad, &mut sealed).ok()?;

        let (length, rest) = opened.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        let (timestamp, rest) = rest.split_first_chunk()?;
        let (lifetime, _) = rest.split_first_chunk()?;
        let made = u64::from_be_bytes(*timestamp) >> 16;
        let lifetime = u64::from(u32::from_be_bytes(*lifetime)).min(LONGEST);
        let is_of_this_time = lifetime > 0 && now.0.abs_diff(made) < lifetime + DELTA;
        Some(Opened {
            key: Key::of_token(key)?,
            // No later than if it had been made now.
            expires: UnixTime(made.min(now.0) + lifetime + DELTA),
        })
        .filter(|_| is_of_this_time)
    }
}

/// What a token says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    /// What the client signs with.
    pub(crate) key: Key,
    pub(crate) expires: UnixTime,
}

/// The token that an allocation is held with: requests without a token of their own are signed with its key.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// The key identifier of the authorization server, which is the user name.
    pub(crate) kid: Box<str>,
    pub(crate) key: Key,
    pub(crate) expires: UnixTime,
}
