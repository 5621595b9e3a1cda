//! Who sent a request: the long-term credential mechanism of
//! [RFC 8489 section 9.2](https://www.rfc-editor.org/rfc/rfc8489#section-9.2), with SHA-1 and SHA-256.

mod credentials;
mod integrity;
pub(crate) mod nonce;
mod revocations;
pub(crate) mod token;
#[cfg(test)]
mod vectors;

pub use credentials::{
    CredentialChanges, Credentials, HashedPassword, rest_password, rest_password_sha256,
};
pub(crate) use integrity::{Key, Signer};
pub use revocations::Revocations;
pub use token::TokenKey;

use crate::lookup::{Known, Lookups};
use crate::{Now, Realm, RealmUser};
use credentials::PasswordHash;
use std::sync::Arc;
use stun_types::attribute::{
    AttributeStaticType, Nonce, PasswordAlgorithm, PasswordAlgorithms, Realm as RealmAttribute,
    Userhash, Username,
};
use token::{ACCESS_TOKEN, Session};
use wire::stun::Message;

/// The longest USERNAME ([RFC 8489 section 14.3](https://www.rfc-editor.org/rfc/rfc8489#section-14.3)): fewer than 509 bytes.
pub const MAX_USER: usize = 508;

/// What PASSWORD-ALGORITHMS offers, in order of preference: SHA-256, MD5 (RFC 8489 section 14.11), no parameters.
pub(crate) const PASSWORD_ALGORITHMS: [u8; 8] = [0, 2, 0, 0, 0, 1, 0, 0];

/// A request whose integrity is proven.
#[derive(Debug)]
pub(crate) struct Authenticated {
    /// Whose users it is one of.
    pub(crate) realm: Arc<Realm>,
    /// Who it is: the same for all expiring credentials of one name, so that an allocation outlives each of them.
    pub(crate) user: RealmUser,
    /// The whole user name, where it says more than who it is.
    pub(crate) credential: Option<Box<str>>,
    /// The third-party token that it is signed with, its own or the allocation's.
    pub(crate) session: Option<Session>,
    /// Whether the credential's time is over. It then still serves what it made, and makes nothing new.
    pub(crate) expired: bool,
    /// For the answer.
    pub(crate) signer: Signer,
}

/// The answer to a request that is not authentic, per RFC 8489 section 9.2.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// 400, without anything to try again with.
    BadRequest,
    /// 401, with realm and nonce.
    Unauthorized,
    /// The same, to whoever holds a credential that is revoked.
    Revoked,
    /// 438, with realm and a new nonce.
    StaleNonce,
    /// The same, to whoever has not proved anything.
    UnknownStale,
    /// None yet: somebody has to be asked about the user.
    LookUp,
}

/// Checks a request in the order of RFC 8489 section 9.2.4, with what is known of its nonce. Keeps nothing about it.
/// `realm` is the one that its REALM names, if there is such a one, and `session` the token that the allocation on this
/// path is held with.
pub(crate) fn authenticate(
    realm: Option<&Arc<Realm>>,
    now: Now,
    message: &Message<'_>,
    nonce_is_fresh: bool,
    session: Option<&Session>,
    lookups: Option<&Lookups>,
) -> Result<Authenticated, Challenge> {
    let integrity = message.integrity().ok_or(Challenge::Unauthorized)?;
    let is_named = message.has(Username::TYPE) || message.has(Userhash::TYPE);
    if !is_named || !message.has(RealmAttribute::TYPE) || !message.has(Nonce::TYPE) {
        return Err(Challenge::BadRequest);
    }
    let hash = password_hash(message)?;
    let realm = realm.ok_or(Challenge::Unauthorized)?;
    let credentials = &realm.credentials;
    let name = match (message.value(Username::TYPE), message.value(Userhash::TYPE)) {
        (Some(name), _) => std::str::from_utf8(name).map_err(|_| Challenge::BadRequest)?,
        (None, Some(hash)) => credentials
            .user_of_hash(hash)
            .ok_or(Challenge::Unauthorized)?,
        (None, None) => return Err(Challenge::BadRequest),
    };
    let mut session = session_of(credentials, now, name, message, session)?;
    let found = match credentials.must_look_up(name) {
        false => None,
        true => match lookups.map_or(Known::Nothing, |known| known.get(name, now.instant)) {
            Known::Found(found) => Some(found),
            Known::Refused => return Err(Challenge::Unauthorized),
            Known::Nothing if nonce_is_fresh => return Err(Challenge::LookUp),
            Known::Nothing => return Err(Challenge::UnknownStale),
        },
    };
    let candidates = match &session {
        Some(session) => session.key.as_clients_have_it().to_vec(),
        None if found.is_some() => found.iter().map(|f| f.keys.key(hash)).collect(),
        None => credentials.keys_of(name, hash),
    };
    let key = candidates
        .iter()
        .find(|key| key.verify(&integrity))
        .ok_or(Challenge::Unauthorized)?;
    if let Some(session) = &mut session {
        session.key = *key;
    }
    // Only now: a nonce is stale for those who prove that they hold the password (section 9.2.4).
    if !nonce_is_fresh {
        return Err(Challenge::StaleNonce);
    }
    let (user, expires) = match &session {
        Some(_) => (name, None),
        None if found.is_some() => {
            let identity = found.and_then(|found| found.identity.as_deref());
            (identity.unwrap_or(name), None)
        }
        None => credentials.identity(name),
    };
    if realm.revocations.contains(user) || realm.revocations.contains(name) {
        return Err(Challenge::Revoked);
    }
    Ok(Authenticated {
        realm: realm.clone(),
        user: realm.user(user),
        session,
        credential: (user != name).then(|| name.into()),
        expired: expires.is_some_and(|expires| expires < now.unix),
        signer: Signer {
            key: *key,
            kind: integrity.kind,
        },
    })
}

/// The token that a request is signed with, if its user name is that of a token key: the one that it brings, or else the one
/// that the allocation is held with.
fn session_of(
    credentials: &Credentials,
    now: Now,
    name: &str,
    message: &Message<'_>,
    held: Option<&Session>,
) -> Result<Option<Session>, Challenge> {
    if !credentials.is_kid(name) {
        return Ok(None);
    }
    let session = match message.value(ACCESS_TOKEN) {
        Some(token) => {
            let opened = credentials.open_token(name, token, now.unix);
            opened.map(|opened| Session {
                kid: name.into(),
                key: opened.key,
                expires: opened.expires,
            })
        }
        None => held
            .filter(|held| &*held.kid == name && held.expires > now.unix)
            .cloned(),
    };
    session.map(Some).ok_or(Challenge::Unauthorized)
}

/// MD5 unless the client chose among what was offered; a choice that does not repeat the offer was tampered with.
fn password_hash(message: &Message<'_>) -> Result<PasswordHash, Challenge> {
    let offered = message.value(PasswordAlgorithms::TYPE);
    let chosen = message.value(PasswordAlgorithm::TYPE);
    match (offered, chosen) {
        (None, None) => Ok(PasswordHash::Md5),
        (Some(offered), Some([0, number @ 1..=2, 0, 0])) if offered == PASSWORD_ALGORITHMS => {
            Ok(match number {
                1 => PasswordHash::Md5,
                _ => PasswordHash::Sha256,
            })
        }
        _ => Err(Challenge::BadRequest),
    }
}
