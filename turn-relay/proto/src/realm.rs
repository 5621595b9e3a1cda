//! Realms: those who share a relay and nothing else. Each has its own users, revocations, rules about peers, and bounds.
//!
//! A client is challenged for the realm that it reached: by the TLS server name it asked for, else by the listener, else by
//! the origin it says it comes from, and otherwise for the first realm. All of these only choose a challenge. What counts is
//! REALM in the request that answers it ([RFC 8489 section 9.2](https://www.rfc-editor.org/rfc/rfc8489#section-9.2)): it
//! says whose users are asked, and the nonce must have been made for it.

use crate::account::RealmUse;
use crate::config::AlternateTransport;
use crate::{ConnectionId, Credentials, FiveTuple, PeerPolicy, Revocations, Server, Shared};
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stun_types::attribute::{AttributeStaticType, AttributeType, Realm as RealmAttribute};
use wire::stun::Message;

/// ORIGIN of draft-ietf-tram-stun-origin-06, which expired: the ASCII serialization of an origin (RFC 6454 section 6.2), as
/// browsers and coturn's client send it. May be there more than once.
const ORIGIN: AttributeType = AttributeType::new(0x802F);

/// A listener: what clients reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    pub transport: AlternateTransport,
    /// An unspecified address stands for all of its family.
    pub address: SocketAddr,
}

impl Entrance {
    fn is_of(&self, path: FiveTuple) -> bool {
        let reached = path.server.0;
        let (ip, own) = (reached.ip(), self.address.ip());
        let is_here = ip == own || (own.is_unspecified() && own.is_ipv4() == ip.is_ipv4());
        is_here
            && reached.port() == self.address.port()
            && self.transport == AlternateTransport::of(path.transport)
    }
}

/// One realm.
#[derive(Clone, Debug)]
pub struct Realm {
    pub(crate) name: Arc<str>,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) used: Arc<RealmUse>,
    pub revocations: Arc<Revocations>,
    pub peer_policy: Arc<PeerPolicy>,
    /// Longest lifetime granted, if it is not that of [`Limits`](crate::Limits).
    pub max_lifetime: Option<Duration>,
    /// Listeners that lead here.
    pub entrances: Vec<Entrance>,
    /// Names that clients ask for in their TLS handshake (RFC 6066 section 3), in lower case.
    pub server_names: Vec<String>,
    /// Origins (RFC 6454 section 6.2), in lower case.
    pub origins: Vec<String>,
}

impl Realm {
    /// The realm that `credentials` are of. What its users use is counted in `shared`, by its name; of all realms the
    /// first one has to be made first.
    pub fn new(
        shared: &Shared,
        credentials: Arc<Credentials>,
        peer_policy: Arc<PeerPolicy>,
    ) -> Self {
        Self {
            name: credentials.realm().into(),
            used: shared.realm(credentials.realm()),
            credentials,
            revocations: Arc::default(),
            peer_policy,
            max_lifetime: None,
            entrances: Vec::new(),
            server_names: Vec::new(),
            origins: Vec::new(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// One of its users.
    pub(crate) fn user(&self, name: &str) -> RealmUser {
        RealmUser {
            realm: self.name.clone(),
            name: name.into(),
        }
    }
}

/// All realms of a relay, immutable.
#[derive(Debug)]
pub struct Realms {
    first: Arc<Realm>,
    others: FxHashMap<Box<str>, Arc<Realm>>,
    entrances: Vec<(Entrance, Arc<Realm>)>,
    server_names: FxHashMap<String, Arc<Realm>>,
    origins: FxHashMap<String, Arc<Realm>>,
}

impl Realms {
    /// The first one is for those whom nothing leads to another. Of two with the same name, or the same way to them, the
    /// first has it.
    pub fn new(first: Realm, others: impl IntoIterator<Item = Realm>) -> Self {
        let mut realms = Self {
            first: Arc::new(first),
            others: FxHashMap::default(),
            entrances: Vec::new(),
            server_names: FxHashMap::default(),
            origins: FxHashMap::default(),
        };
        realms.add_ways(&realms.first.clone());
        for realm in others {
            let realm = Arc::new(realm);
            if realms.named(realm.name().as_bytes()).is_some() {
                continue;
            }
            realms.add_ways(&realm);
            realms.others.insert(realm.name().into(), realm);
        }
        realms
    }

    fn add_ways(&mut self, realm: &Arc<Realm>) {
        for entrance in &realm.entrances {
            self.entrances.push((*entrance, realm.clone()));
        }
        for (ways, names) in [
            (&mut self.server_names, &realm.server_names),
            (&mut self.origins, &realm.origins),
        ] {
            for name in names {
                ways.entry(name.clone()).or_insert_with(|| realm.clone());
            }
        }
    }

    /// The one for whoever nothing leads to another.
    pub fn first(&self) -> &Arc<Realm> {
        &self.first
    }

    /// Whether there is more than one.
    pub(crate) fn are_several(&self) -> bool {
        !self.others.is_empty()
    }

    /// The one of this name.
    pub(crate) fn named(&self, name: &[u8]) -> Option<&Arc<Realm>> {
        if name == self.first.name().as_bytes() {
            return Some(&self.first);
        }
        std::str::from_utf8(name)
            .ok()
            .and_then(|name| self.others.get(name))
    }

    /// The one that a request with integrity is for.
    pub(crate) fn of_request(&self, message: &Message<'_>) -> Option<&Arc<Realm>> {
        message.integrity()?;
        self.named(message.value(RealmAttribute::TYPE)?)
    }

    /// The one that whoever says none is challenged for.
    fn reached(
        &self,
        path: FiveTuple,
        server_name: Option<&str>,
        message: &Message<'_>,
    ) -> &Arc<Realm> {
        let by_name = || self.server_names.get(server_name?);
        let by_entrance = || {
            let mut entrances = self.entrances.iter();
            entrances
                .find(|(entrance, _)| entrance.is_of(path))
                .map(|(_, realm)| realm)
        };
        let by_origin = || {
            let mut origins = message
                .attributes()
                .filter(|(kind, _)| *kind == ORIGIN)
                .filter_map(|(_, value)| std::str::from_utf8(value).ok());
            origins.find_map(|origin| self.origins.get(&origin.to_ascii_lowercase()))
        };
        by_name()
            .or_else(by_entrance)
            .or_else(by_origin)
            .unwrap_or(&self.first)
    }
}

impl From<Realm> for Realms {
    /// The only one.
    fn from(only: Realm) -> Self {
        Self::new(only, [])
    }
}

/// A user: the same name in another realm is somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RealmUser {
    pub realm: Arc<str>,
    pub name: Box<str>,
}

impl Server {
    /// Which name a client asked for in the TLS handshake of its connection, which is new.
    pub fn handle_server_name(&mut self, connection: ConnectionId, name: &str) {
        let name = name.to_ascii_lowercase();
        // Others lead nowhere, and nothing is stored for nothing.
        if self.config.realms.server_names.contains_key(&name) {
            self.server_names.insert(connection, name.into());
        }
    }

    pub(crate) fn forget_server_name(&mut self, path: FiveTuple) {
        if let Some(connection) = path.transport.connection() {
            self.server_names.remove(&connection);
        }
    }

    /// The realm that a request is challenged for.
    pub(crate) fn challenging_realm(&self, path: FiveTuple, message: &Message<'_>) -> Arc<Realm> {
        let realms = &self.config.realms;
        let reached = || {
            let connection = path.transport.connection();
            let name = connection.and_then(|connection| self.server_names.get(&connection));
            realms.reached(path, name.map(|name| &**name), message)
        };
        realms.of_request(message).unwrap_or_else(reached).clone()
    }
}
