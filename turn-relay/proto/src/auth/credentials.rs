//! Who may allocate: static users, and expiring users minted from a shared secret.

use crate::auth::Key;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use model::UnixTime;
use rustc_hash::FxHashMap;
use sha1::Sha1;
use sha2::Sha256;

/// What the key is made with (RFC 8489 section 18.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PasswordHash {
    Md5,
    Sha256,
}

/// Immutable, shared by all shards. Of static users only keys are kept.
pub struct Credentials {
    realm: String,
    users: FxHashMap<Box<str>, User>,
    /// USERHASH (RFC 8489 section 14.4) to name, for static users.
    hashes: FxHashMap<[u8; 32], Box<str>>,
    secrets: Vec<Box<[u8]>>,
}

#[derive(PartialEq)]
struct User {
    md5: Key,
    sha256: Key,
}

/// How credentials differ from those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CredentialChanges {
    pub users_added: usize,
    pub users_removed: usize,
    /// With another password.
    pub users_changed: usize,
    pub secrets_added: usize,
    pub secrets_removed: usize,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("realm", &self.realm)
            .field("users", &self.users.len())
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Nobody yet. `realm` is what users are told they log in to, at most 127 characters.
    pub fn new(realm: impl Into<String>) -> Self {
        Self {
            realm: realm.into(),
            users: FxHashMap::default(),
            hashes: FxHashMap::default(),
            secrets: Vec::new(),
        }
    }

    /// A user with a password that does not expire.
    pub fn add_user(&mut self, name: &str, password: &str) {
        let user = User {
            md5: make_key(name, &self.realm, password, PasswordHash::Md5),
            sha256: make_key(name, &self.realm, password, PasswordHash::Sha256),
        };
        let hash = Sha256::digest(format!("{name}:{}", self.realm)).into();
        self.hashes.insert(hash, name.into());
        self.users.insert(name.into(), user);
    }

    /// A secret from which others mint expiring users: see [`rest_password`]. Several may be valid at a time, so that
    /// one can replace another.
    pub fn add_secret(&mut self, secret: &[u8]) {
        self.secrets.push(secret.into());
    }

    /// Whether there is nobody who could log in.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.secrets.is_empty()
    }

    /// What is different from `before`, as numbers that may be logged.
    pub fn changes_from(&self, before: &Self) -> CredentialChanges {
        let missing_in = |other: &Self, name: &str| !other.users.contains_key(name);
        let secrets_missing_in = |here: &Self, other: &Self| {
            let secrets = here.secrets.iter();
            secrets.filter(|s| !other.secrets.contains(s)).count()
        };
        let changed = |name: &str| {
            let both = before.users.get(name).zip(self.users.get(name));
            both.is_some_and(|(old, new)| old != new)
        };
        CredentialChanges {
            users_added: self.users.keys().filter(|n| missing_in(before, n)).count(),
            users_removed: before.users.keys().filter(|n| missing_in(self, n)).count(),
            users_changed: self.users.keys().filter(|name| changed(name)).count(),
            secrets_added: secrets_missing_in(self, before),
            secrets_removed: secrets_missing_in(before, self),
        }
    }

    pub fn realm(&self) -> &str {
        &self.realm
    }

    pub(crate) fn user_of_hash(&self, hash: &[u8]) -> Option<&str> {
        self.hashes.get(hash).map(|name| &**name)
    }

    /// The keys that this user may have signed with; none for a stranger.
    pub(crate) fn keys_of(&self, name: &str, hash: PasswordHash) -> Vec<Key> {
        if let Some(user) = self.users.get(name) {
            return vec![match hash {
                PasswordHash::Md5 => user.md5,
                PasswordHash::Sha256 => user.sha256,
            }];
        }
        if expiry_of(name).is_none() {
            return Vec::new();
        }
        self.secrets
            .iter()
            .map(|secret| make_key(name, &self.realm, &rest_password(secret, name), hash))
            .collect()
    }

    /// Who a user name stands for, and until when: `1900000000:west/workload/app-1` is `west/workload/app-1`.
    pub(crate) fn identity<'n>(&self, name: &'n str) -> (&'n str, Option<UnixTime>) {
        if self.users.contains_key(name) {
            return (name, None);
        }
        match expiry_of(name) {
            Some(expires) => {
                let who = name.split_once(':').map_or("", |(_, who)| who);
                (if who.is_empty() { name } else { who }, Some(expires))
            }
            None => (name, None),
        }
    }
}

/// The password of an expiring user, whose name is `expiry:anything` or `expiry`, expiry being a Unix time in seconds:
/// base64 of HMAC-SHA1 of the name under the secret
/// ([draft-uberti-behave-turn-rest-00 section 2.2](https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00#section-2.2)).
pub fn rest_password(secret: &[u8], name: &str) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(name.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn expiry_of(name: &str) -> Option<UnixTime> {
    let digits = name.split_once(':').map_or(name, |(digits, _)| digits);
    // No sign, no space: `parse` alone would take "+1".
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(UnixTime)
}

fn make_key(name: &str, realm: &str, password: &str, hash: PasswordHash) -> Key {
    let parts = [name, ":", realm, ":", password];
    match hash {
        PasswordHash::Md5 => {
            let digest = parts.iter().fold(Md5::new(), Digest::chain_update);
            Key::from(<[u8; 16]>::from(digest.finalize()))
        }
        PasswordHash::Sha256 => {
            let digest = parts.iter().fold(Sha256::new(), Digest::chain_update);
            Key::from(<[u8; 32]>::from(digest.finalize()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiring_user_is_the_same_whenever_it_was_minted() {
        let credentials = Credentials::new("west");
        assert_eq!(
            credentials.identity("1700000000:west/workload/app-1"),
            ("west/workload/app-1", Some(UnixTime(1_700_000_000)))
        );
        assert_eq!(
            credentials.identity("1700000000"),
            ("1700000000", Some(UnixTime(1_700_000_000)))
        );
        assert_eq!(credentials.identity("+17:x"), ("+17:x", None));
        assert_eq!(credentials.identity("alice"), ("alice", None));
    }

    #[test]
    fn the_password_is_that_of_the_draft() {
        // printf 1433895918:hello | openssl dgst -sha1 -hmac secret -binary | base64
        assert_eq!(
            rest_password(b"secret", "1433895918:hello"),
            "v0GrYcDxGIQmHBA8quUNyPujs/4="
        );
    }

    #[test]
    fn a_stranger_has_no_key() {
        let mut credentials = Credentials::new("west");
        credentials.add_user("alice", "secret");
        assert!(credentials.keys_of("bob", PasswordHash::Md5).is_empty());
        credentials.add_secret(b"one");
        credentials.add_secret(b"two");
        assert!(credentials.keys_of("bob", PasswordHash::Md5).is_empty());
        assert_eq!(credentials.keys_of("17:bob", PasswordHash::Md5).len(), 2);
        assert_eq!(credentials.keys_of("alice", PasswordHash::Md5).len(), 1);
    }
}
