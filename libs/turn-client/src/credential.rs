//! The long-term credential mechanism, client side
//! ([RFC 8489 section 9.2](https://www.rfc-editor.org/rfc/rfc8489#section-9.2)).

use md5::Md5;
use sha2::{Digest, Sha256};
use stun_types::attribute::{
    AttributeStaticType, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm, Username,
};
use wire::stun::{IntegrityKind, Message};

use crate::input::Credential;
use wire::stun::write::{Key, Writer};

/// Longer realms and nonces are refused: 127 characters of UTF-8 (RFC 8489 sections 14.9 and 14.10).
const MAX_TEXT: usize = 763;
const MD5: u16 = 1;
const SHA256: u16 = 2;

/// What the relay asked us to sign with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Challenge {
    realm: Vec<u8>,
    nonce: Vec<u8>,
    /// PASSWORD-ALGORITHMS as received, and what we chose of it; `None` for relays of before RFC 8489.
    algorithms: Option<(Vec<u8>, u16)>,
}

/// Who we are, and how the relay wants to be told.
#[derive(Debug)]
pub(crate) struct Authenticator {
    credential: Credential,
    next: Option<Credential>,
    challenge: Option<(Challenge, Key)>,
    generation: u32,
}

impl Authenticator {
    pub(crate) fn new(credential: Credential) -> Self {
        Self {
            credential,
            next: None,
            challenge: None,
            generation: 0,
        }
    }

    /// Grows whenever a request would be signed differently than before.
    pub(crate) fn generation(&self) -> u32 {
        self.generation
    }

    /// For the next allocation, or when the present credential is refused: an allocation belongs to the one it
    /// was made with (RFC 8656 section 5). False when it is the present one.
    pub(crate) fn set_next(&mut self, credential: Credential) -> bool {
        self.next = (credential != self.credential).then_some(credential);
        self.next.is_some()
    }

    /// Goes over to the next credential; false when there is none.
    pub(crate) fn adopt_next(&mut self) -> bool {
        let Some(next) = self.next.take() else {
            return false;
        };
        self.credential = next;
        self.generation += 1;
        if let Some((challenge, key)) = &mut self.challenge {
            *key = make_key(&self.credential, challenge);
        }
        true
    }

    /// Takes the challenge of a 401 or the new nonce of a 438. False when there is none, or when it was weakened
    /// on its way (RFC 8489 section 9.2.5): the answer is then no answer.
    pub(crate) fn learn(&mut self, message: &Message<'_>) -> bool {
        let known = self.challenge.as_ref().map(|(challenge, _)| challenge);
        let realm = message.value(Realm::TYPE).map(<[u8]>::to_vec);
        let Some(realm) = realm.or_else(|| known.map(|c| c.realm.clone())) else {
            return false;
        };
        let Some(nonce) = message.value(Nonce::TYPE) else {
            return false;
        };
        if realm.len() > MAX_TEXT || nonce.len() > MAX_TEXT {
            return false;
        }
        let offered = message.value(PasswordAlgorithms::TYPE);
        if offered.is_none() && announces_algorithms(nonce) {
            return false;
        }
        let algorithms = match offered.filter(|_| announces_algorithms(nonce)) {
            Some(offered) => match choose(offered) {
                Some(chosen) => Some((offered.to_vec(), chosen)),
                None => return false,
            },
            None => None,
        };
        let challenge = Challenge {
            realm,
            nonce: nonce.to_vec(),
            algorithms,
        };
        if known == Some(&challenge) {
            return true;
        }
        self.generation += 1;
        let key = make_key(&self.credential, &challenge);
        self.challenge = Some((challenge, key));
        true
    }

    /// Adds what proves who we are, as far as we were asked. Returns the key that the answer must be signed with.
    pub(crate) fn sign(&self, writer: &mut Writer<'_>) -> Option<Key> {
        let (challenge, key) = self.challenge.as_ref()?;
        writer.add(Username::TYPE, self.credential.username.as_bytes());
        writer.add(Realm::TYPE, &challenge.realm);
        writer.add(Nonce::TYPE, &challenge.nonce);
        if let Some((offered, chosen)) = &challenge.algorithms {
            let [high, low] = chosen.to_be_bytes();
            writer.add(PasswordAlgorithms::TYPE, offered);
            writer.add(PasswordAlgorithm::TYPE, &[high, low, 0, 0]);
        }
        writer.sign(key);
        Some(*key)
    }
}

/// Whether the nonce says that PASSWORD-ALGORITHMS was sent with it: "obMatJos2" and then base64 of 24 bits, of
/// which the first says so.
fn announces_algorithms(nonce: &[u8]) -> bool {
    let Some([first, ..]) = nonce.strip_prefix(b"obMatJos2") else {
        return false;
    };
    matches!(first, b'g'..=b'z' | b'0'..=b'9' | b'+' | b'/')
}

/// SHA-256 if it is offered, else MD5: pairs of number and parameters (RFC 8489 section 14.11).
fn choose(mut offered: &[u8]) -> Option<u16> {
    let mut chosen = None;
    while let [a, b, c, d, rest @ ..] = offered {
        match u16::from_be_bytes([*a, *b]) {
            SHA256 => return Some(SHA256),
            MD5 => chosen = Some(MD5),
            _ => {}
        }
        let parameters = usize::from(u16::from_be_bytes([*c, *d])).next_multiple_of(4);
        offered = rest.get(parameters..)?;
    }
    chosen
}

fn make_key(credential: &Credential, challenge: &Challenge) -> Key {
    let parts = [
        credential.username.as_bytes(),
        b":",
        &challenge.realm,
        b":",
        credential.password.as_bytes(),
    ];
    match challenge.algorithms {
        None => Key::new(&hash::<Md5>(&parts), IntegrityKind::Sha1),
        Some((_, SHA256)) => Key::new(&hash::<Sha256>(&parts), IntegrityKind::Sha256),
        Some(_) => Key::new(&hash::<Md5>(&parts), IntegrityKind::Sha256),
    }
}

fn hash<D: Digest>(parts: &[&[u8]]) -> Vec<u8> {
    parts
        .iter()
        .fold(D::new(), Digest::chain_update)
        .finalize()
        .to_vec()
}
