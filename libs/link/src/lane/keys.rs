//! The keys of the lane: one secret per direction, out of the DTLS session, and a chain of epochs from each.
//!
//! ```text
//! exported        = DTLS exporter, label "EXPERIMENTAL-turnpike-lane", 32 bytes          RFC 5705
//! secret[0]       = HKDF-Expand(exported, "turnpike lane 1" aead direction, 32)          RFC 5869
//! key[e], iv[e]   = HKDF-Expand(secret[e], "key", ..), HKDF-Expand(secret[e], "iv", 12)
//! secret[e + 1]   = HKDF-Expand(secret[e], "next", 32)
//! nonce           = iv[e] XOR counter, as in TLS 1.3
//! ```
//!
//! `aead` is its number at IANA as two bytes, `direction` one byte: 0 for what the offerer sends, 1 for the answerer.
//! A secret is overwritten as soon as the next one is made of it; AWS-LC overwrites what it frees.

use aws_lc_rs::aead::{
    AES_128_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk};
use zeroize::Zeroizing;

use crate::config::LinkRole;

/// The label under which DTLS is asked for 32 bytes. [RFC 5705 §4](https://www.rfc-editor.org/rfc/rfc5705#section-4)
/// leaves "EXPERIMENTAL" to everybody.
pub(crate) const EXPORTER_LABEL: &str = "EXPERIMENTAL-turnpike-lane";

pub(crate) const SECRET_LEN: usize = 32;
pub(crate) const TAG_LEN: usize = 16;

/// An AEAD by its number in [IANA's registry](https://www.iana.org/assignments/aead-parameters).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aead {
    Aes128Gcm = 1,
    ChaCha20Poly1305 = 29,
}

impl Aead {
    /// What this end can do, the best first: AES where the CPU has instructions for it.
    pub(crate) fn by_preference() -> [Self; 2] {
        if has_aes() {
            [Self::Aes128Gcm, Self::ChaCha20Poly1305]
        } else {
            [Self::ChaCha20Poly1305, Self::Aes128Gcm]
        }
    }

    /// What both ends come to, whichever computes it: AES if both prefer it, else ChaCha20, which is fast enough
    /// anywhere.
    pub(crate) fn choose(ours: &[Self], theirs: &[u32]) -> Option<Self> {
        let aes = Self::Aes128Gcm;
        let both = |aead: Self| ours.contains(&aead) && theirs.contains(&(aead as u32));
        if ours.first() == Some(&aes) && theirs.first() == Some(&(aes as u32)) {
            return Some(aes);
        }
        [Self::ChaCha20Poly1305, aes]
            .into_iter()
            .find(|aead| both(*aead))
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull")
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

/// What the keys of an epoch, and of all later ones, come from.
pub(crate) struct Secret(Zeroizing<[u8; SECRET_LEN]>);

impl Secret {
    /// The first secret of what `sender` sends. `None` never, as long as HKDF-SHA-256 gives 32 bytes.
    pub(crate) fn first(exported: &[u8; SECRET_LEN], aead: Aead, sender: LinkRole) -> Option<Self> {
        let [high, low] = (aead as u16).to_be_bytes();
        let direction = match sender {
            LinkRole::Offerer => 0,
            LinkRole::Answerer => 1,
        };
        expand(exported, &[b"turnpike lane 1", &[high, low, direction]]).map(Self)
    }

    pub(crate) fn next(&self) -> Option<Self> {
        expand(&self.0, &[b"next"]).map(Self)
    }

    pub(crate) fn key(&self, aead: Aead) -> Option<Key> {
        let algorithm = aead.algorithm();
        // AES-128 takes 16 bytes, ChaCha20 32.
        let bytes: Zeroizing<[u8; 32]> = match aead {
            Aead::Aes128Gcm => {
                let short: Zeroizing<[u8; 16]> = expand(&self.0, &[b"key"])?;
                let mut bytes = Zeroizing::new([0; 32]);
                bytes[..16].copy_from_slice(&short[..]);
                bytes
            }
            Aead::ChaCha20Poly1305 => expand(&self.0, &[b"key"])?,
        };
        let unbound = UnboundKey::new(algorithm, &bytes[..algorithm.key_len()]).ok()?;
        Some(Key {
            key: LessSafeKey::new(unbound),
            iv: expand(&self.0, &[b"iv"])?,
        })
    }
}

/// The key of one epoch and direction.
pub(crate) struct Key {
    key: LessSafeKey,
    iv: Zeroizing<[u8; 12]>,
}

impl Key {
    /// Encrypts in place and gives the tag. The caller answers for `counter` being new for this key.
    pub(crate) fn seal(
        &self,
        counter: u32,
        header: &[u8],
        text: &mut [u8],
    ) -> Option<[u8; TAG_LEN]> {
        let tag = self
            .key
            .seal_in_place_separate_tag(self.nonce(counter), Aad::from(header), text)
            .ok()?;
        tag.as_ref().try_into().ok()
    }

    /// Checks and decrypts in place, the tag last; gives the plain text. What `text` holds after a failure is nothing
    /// to look at.
    pub(crate) fn open<'a>(
        &self,
        counter: u32,
        header: &[u8],
        text: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.key
            .open_in_place(self.nonce(counter), Aad::from(header), text)
            .ok()
    }

    fn nonce(&self, counter: u32) -> Nonce {
        let mut nonce = *self.iv;
        for (byte, of_counter) in nonce[8..].iter_mut().zip(counter.to_be_bytes()) {
            *byte ^= of_counter;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(secret: &[u8; SECRET_LEN], info: &[&[u8]]) -> Option<Zeroizing<[u8; N]>> {
    let mut out = Zeroizing::new([0; N]);
    Prk::new_less_safe(HKDF_SHA256, secret)
        .expand(info, Length(N))
        .and_then(|okm| okm.fill(&mut out[..]))
        .ok()?;
    Some(out)
}
