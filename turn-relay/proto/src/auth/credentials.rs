//! Who may allocate: static users, and expiring users minted from a shared secret.

use crate::LookupLimits;
use crate::auth::Key;
use crate::auth::token::{Opened, TokenKey};
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
    /// By key identifier.
    token_keys: FxHashMap<Box<str>, TokenKey>,
    /// What tokens are for; the realm, unless it has another name.
    server_name: Option<String>,
    lookup: Option<LookupLimits>,
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
    /// Added, removed, or other than before.
    pub token_keys_changed: usize,
}

impl CredentialChanges {
    pub fn add(&mut self, more: Self) {
        self.users_added += more.users_added;
        self.users_removed += more.users_removed;
        self.users_changed += more.users_changed;
        self.secrets_added += more.secrets_added;
        self.secrets_removed += more.secrets_removed;
        self.token_keys_changed += more.token_keys_changed;
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("realm", &self.realm)
            .field("users", &self.users.len())
            .field("secrets", &self.secrets.len())
            .field("token_keys", &self.token_keys.len())
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
            token_keys: FxHashMap::default(),
            server_name: None,
            lookup: None,
        }
    }

    /// A user with a password that does not expire.
    pub fn add_user(&mut self, name: &str, password: &str) {
        self.add_hashed_user(name, &HashedPassword::new(name, &self.realm, password));
    }

    /// The same, of whom only the keys are known; they must be of this realm.
    pub fn add_hashed_user(&mut self, name: &str, keys: &HashedPassword) {
        let user = User {
            md5: keys.md5.into(),
            sha256: keys.sha256.into(),
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

    /// An authorization server that makes tokens for this one (RFC 7635), by the identifier of the key they share.
    pub fn add_token_key(&mut self, kid: &str, key: TokenKey) {
        self.token_keys.insert(kid.into(), key);
    }

    /// Everyone else is asked about: [`Output::LookUp`](crate::Output::LookUp).
    pub fn look_up_others(&mut self, limits: LookupLimits) {
        self.lookup = Some(limits);
    }

    pub(crate) fn lookup(&self) -> Option<LookupLimits> {
        self.lookup
    }

    /// Whether somebody has to be asked about this name: it is not known here, and there is somebody to be asked.
    pub(crate) fn must_look_up(&self, name: &str) -> bool {
        let is_minted = !self.secrets.is_empty() && expiry_of(name).is_some();
        let is_known = self.users.contains_key(name) || self.token_keys.contains_key(name);
        self.lookup.is_some() && !is_known && !is_minted
    }

    /// What authorization servers call this one, at most 127 characters; without it they call it by the realm.
    pub fn set_server_name(&mut self, name: String) {
        self.server_name = Some(name);
    }

    /// What tokens are for, if any would be taken.
    pub(crate) fn third_party(&self) -> Option<&str> {
        let name = self.server_name.as_deref().unwrap_or(&self.realm);
        (!self.token_keys.is_empty()).then_some(name)
    }

    /// Whether a user name is the identifier of a token key.
    pub(crate) fn is_kid(&self, name: &str) -> bool {
        self.token_keys.contains_key(name) && !self.users.contains_key(name)
    }

    pub(crate) fn open_token(&self, kid: &str, token: &[u8], now: UnixTime) -> Option<Opened> {
        let key = self.token_keys.get(kid)?;
        key.open(self.third_party()?, token, now)
    }

    /// Whether there is nobody who could log in.
    pub fn is_empty(&self) -> bool {
        let nobody = self.users.is_empty() && self.secrets.is_empty();
        nobody && self.token_keys.is_empty() && self.lookup.is_none()
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
        let kids = before.token_keys.keys().chain(self.token_keys.keys());
        let mut kids: Vec<&str> = kids.map(|kid| &**kid).collect();
        kids.sort_unstable();
        kids.dedup();
        kids.retain(|kid| before.token_keys.get(*kid) != self.token_keys.get(*kid));
        CredentialChanges {
            token_keys_changed: kids.len(),
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
        let forms = [rest_password, rest_password_sha256];
        let passwords = forms.iter().flat_map(|form| {
            let secrets = self.secrets.iter();
            secrets.map(move |secret| form(secret, name))
        });
        passwords
            .map(|password| make_key(name, &self.realm, &password, hash))
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

/// The same with HMAC-SHA256 in the place of HMAC-SHA1: 44 characters of base64 for 28.
pub fn rest_password_sha256(secret: &[u8], name: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(name.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

/// What a user's password is to a server: the keys of both password algorithms (RFC 8489 section 18.5.1). Whoever has
/// them can log in to this realm as this user, and does not know the password.
#[derive(Clone, PartialEq, Eq)]
pub struct HashedPassword {
    pub md5: [u8; 16],
    pub sha256: [u8; 32],
}

impl std::fmt::Debug for HashedPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashedPassword(…)")
    }
}

impl HashedPassword {
    pub(crate) fn key(&self, hash: PasswordHash) -> Key {
        match hash {
            PasswordHash::Md5 => self.md5.into(),
            PasswordHash::Sha256 => self.sha256.into(),
        }
    }

    pub fn new(name: &str, realm: &str, password: &str) -> Self {
        let parts = [name, ":", realm, ":", password];
        Self {
            md5: digest_of::<Md5>(&parts).into(),
            sha256: digest_of::<Sha256>(&parts).into(),
        }
    }
}

fn digest_of<D: Digest>(parts: &[&str]) -> md5::digest::Output<D> {
    parts.iter().fold(D::new(), Digest::chain_update).finalize()
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
        PasswordHash::Md5 => Key::from(<[u8; 16]>::from(digest_of::<Md5>(&parts))),
        PasswordHash::Sha256 => Key::from(<[u8; 32]>::from(digest_of::<Sha256>(&parts))),
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
        // The same with -sha256.
        assert_eq!(
            rest_password_sha256(b"secret", "1433895918:hello"),
            "mlDFMId1j6cnzynccdkv2YNpL00pIO+b64b6txeuBwA="
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
        // Each secret mints with both hashes.
        assert_eq!(credentials.keys_of("17:bob", PasswordHash::Md5).len(), 4);
        assert_eq!(credentials.keys_of("alice", PasswordHash::Md5).len(), 1);
    }
}
