//! The view and what changes it. Survives connections.
//!
//! What discovery lists replaces the view; what it then tells changes it. Everything signed is verified here, once
//! for each revision of a key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use identity::{Serial, Verifier};
use model::{NetworkName, NodeId, RelayName, Revision, Role, UnixTime};
use net::Clock;
use prost::Message as _;
use protocol::{
    directory::{Envelope, KeyValue, RangeResponse, Relay, WatchResponse, event::Kind},
    document::{SignedDocument, document::Body},
};
use tokio::sync::mpsc;

use crate::{Event, VerifiedRegistration, View, directory::Shared, task::verifier};

/// All keys, with the revision at which each prefix was listed.
#[derive(Default)]
pub(crate) struct Listing {
    parts: Vec<(String, Revision)>,
    entries: Vec<KeyValue>,
}

impl Listing {
    pub(crate) fn add(&mut self, prefix: &str, response: RangeResponse) {
        self.parts
            .push((prefix.to_owned(), Revision(response.revision)));
        self.entries.extend(response.entries);
    }
}

/// What the session must do after news.
#[derive(Default)]
pub(crate) struct News {
    /// Keys of mail that was read.
    pub(crate) mail: Vec<String>,
    /// A revocation was taken back: what it hid must be seen again.
    pub(crate) list_again: bool,
}

pub(crate) struct State {
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    /// When each prefix was listed: older events are known.
    listed: Vec<(String, Revision)>,
    /// Registrations that were not believed, so that each is complained about once.
    rejected: BTreeMap<String, Revision>,
    /// Mail up to here was delivered.
    last_mail: Revision,
}

impl State {
    pub(crate) fn new(shared: Arc<Shared>, events: mpsc::Sender<Event>) -> Self {
        Self {
            shared,
            events,
            listed: Vec::new(),
            rejected: BTreeMap::new(),
            last_mail: Revision(0),
        }
    }

    /// Replaces the view; returns the keys of mail that was read.
    pub(crate) async fn on_listed(&mut self, listing: Listing) -> Vec<String> {
        let mut old = self.shared.view.load_full();
        let mut view = View {
            connected: true,
            ..View::default()
        };
        let mut mail = Vec::new();
        view.revision = listing
            .parts
            .iter()
            .map(|(_, revision)| *revision)
            .min()
            .unwrap_or_default();
        // Discovery lost its data file, or has one since: what was seen under its old revisions is not what they mean now.
        if view.revision < old.revision.max(self.last_mail) {
            tracing::info!(was = %old.revision, is = %view.revision, "discovery counts anew");
            old = Arc::default();
            self.last_mail = Revision(0);
            self.rejected.clear();
        }
        let keys: BTreeSet<&str> = listing
            .entries
            .iter()
            .map(|entry| entry.key.as_str())
            .collect();
        self.rejected.retain(|key, _| keys.contains(key.as_str()));
        view.revoked = listing
            .entries
            .iter()
            .filter_map(|entry| revocation(&entry.key))
            .collect();
        self.set_revocations(&view);
        self.listed = listing.parts;
        for entry in listing.entries {
            if entry.key.starts_with("mailbox/") {
                mail.push(entry);
            } else {
                self.put(&mut view, &old, entry).await;
            }
        }
        self.store(view).await;
        self.deliver(mail).await
    }

    /// Changes the view.
    pub(crate) async fn on_watched(&mut self, response: WatchResponse) -> News {
        let old = self.shared.view.load_full();
        let mut news = News::default();
        let mut view = View {
            revision: Revision(response.revision),
            ..View::default()
        };
        let mut touched = false;
        let mut mail = Vec::new();
        for event in response.events {
            let Some(kind) = event.kind else { continue };
            let (Kind::Put(entry) | Kind::Delete(entry)) = &kind;
            let is_mail = entry.key.starts_with("mailbox/");
            if self.is_known(entry) {
                continue;
            }
            if !is_mail && !std::mem::replace(&mut touched, true) {
                view = View {
                    revision: view.revision,
                    ..(*old).clone()
                };
            }
            match kind {
                Kind::Put(entry) if is_mail => mail.push(entry),
                Kind::Put(entry) => self.put(&mut view, &old, entry).await,
                Kind::Delete(_) if is_mail => {}
                Kind::Delete(entry) => news.list_again |= self.remove(&mut view, &entry.key),
            }
        }
        if touched {
            self.store(view).await;
        }
        news.mail = self.deliver(mail).await;
        news
    }

    /// The connection works, and the view is up to date.
    pub(crate) async fn connected(&self) {
        tracing::info!(revision = %self.shared.view.load().revision, "connected to discovery");
        self.send(Event::Connected).await;
    }

    /// The view stays as it is.
    pub(crate) async fn disconnected(&self, reason: String) {
        let view = View {
            connected: false,
            ..(*self.shared.view.load_full()).clone()
        };
        self.shared.view.store(Arc::new(view));
        self.send(Event::Disconnected { reason }).await;
    }

    /// An event from before its prefix was listed.
    fn is_known(&self, entry: &KeyValue) -> bool {
        let listed = self
            .listed
            .iter()
            .find(|(prefix, _)| entry.key.starts_with(prefix.as_str()));
        listed.is_none_or(|(_, revision)| entry.mod_revision <= revision.0)
    }

    async fn put(&mut self, view: &mut View, old: &View, entry: KeyValue) {
        match entry.key.split_once('/') {
            Some(("relay", name)) => {
                if let Some((name, relay)) = relay(name, &entry.value) {
                    view.relays.insert(name, relay);
                } else {
                    self.reject(&entry, "it is not a relay").await;
                }
            }
            Some(("registration", _)) => self.put_registration(view, old, entry).await,
            Some(("revocation", _)) => {
                if let Some(serial) = revocation(&entry.key)
                    && view.revoked.insert(serial.clone())
                {
                    self.set_revocations(view);
                    view.registrations
                        .retain(|_, registration| registration.certificate != serial);
                }
            }
            _ => {}
        }
    }

    async fn put_registration(&mut self, view: &mut View, old: &View, entry: KeyValue) {
        let Some(node) = registrant(&entry.key) else {
            return;
        };
        let revision = Revision(entry.mod_revision);
        if let Some(known) = old.registrations.get(&node)
            && known.revision == revision
            && !view.revoked.contains(&known.certificate)
        {
            view.registrations.insert(node, known.clone());
            return;
        }
        // Whatever was there before is not what the directory has now.
        view.registrations.remove(&node);
        match registration(&self.shared.verifier.load(), &entry, Clock.unix_time()) {
            Ok(registration) => {
                self.rejected.remove(&entry.key);
                view.registrations.insert(node, registration);
            }
            Err(reason) => self.reject(&entry, &reason).await,
        }
    }

    /// Returns whether all must be listed again.
    fn remove(&mut self, view: &mut View, key: &str) -> bool {
        self.rejected.remove(key);
        match key.split_once('/') {
            Some(("relay", name)) => {
                view.relays.retain(|relay, _| relay.as_str() != name);
                false
            }
            Some(("registration", _)) => {
                if let Some(node) = registrant(key) {
                    view.registrations.remove(&node);
                }
                false
            }
            // What the revocation hid must be seen again.
            Some(("revocation", _)) => true,
            _ => false,
        }
    }

    /// Hands over mail in the order it came, each once; returns the keys, for all of it is done with.
    async fn deliver(&mut self, mail: Vec<KeyValue>) -> Vec<String> {
        let mut done = Vec::with_capacity(mail.len());
        for entry in mail {
            done.push(entry.key.clone());
            if Revision(entry.mod_revision) <= self.last_mail {
                continue;
            }
            self.last_mail = Revision(entry.mod_revision);
            let event = match self.open(&entry) {
                Ok(event) => event,
                Err((from, reason)) => {
                    tracing::warn!(%from, %reason, "mail is not believed");
                    Event::Rejected { from, reason }
                }
            };
            self.send(event).await;
        }
        done
    }

    fn open(&self, entry: &KeyValue) -> Result<Event, (String, String)> {
        let envelope = Envelope::decode(entry.value.as_slice())
            .map_err(|_| ("unknown".to_owned(), "it is not an envelope".to_owned()))?;
        let from: String = envelope.from.chars().take(220).collect();
        let fail = |reason: String| (from.clone(), reason);
        let document = envelope
            .document
            .ok_or_else(|| fail("there is no document".into()))?;
        let verifier = self.shared.verifier.load();
        let verified = verifier
            .verify(&document, Clock.unix_time())
            .map_err(|error| fail(error.to_string()))?;
        if verified.node.to_string() != envelope.from {
            return Err(fail(format!(
                "it is signed by {}, who did not send it",
                verified.node
            )));
        }
        if matches!(verified.document.body, Some(Body::Registration(_))) {
            return Err(fail("registrations are not mail".into()));
        }
        Ok(Event::Message {
            from: verified.node,
            document: Box::new(verified.document),
            certificate: verified.serial,
        })
    }

    async fn reject(&mut self, entry: &KeyValue, reason: &str) {
        let revision = Revision(entry.mod_revision);
        if self.rejected.insert(entry.key.clone(), revision) != Some(revision) {
            tracing::warn!(key = %entry.key, %reason, "an entry of the directory is not believed");
            let (from, reason) = (entry.key.clone(), reason.to_owned());
            self.send(Event::Rejected { from, reason }).await;
        }
    }

    fn set_revocations(&self, view: &View) {
        let verifier = verifier(&self.shared.identity.current());
        self.shared
            .verifier
            .store(Arc::new(verifier.with_revocations(view.revoked.clone())));
    }

    async fn store(&self, view: View) {
        let view = Arc::new(view);
        self.shared.view.store(view.clone());
        self.send(Event::ViewChanged(view)).await;
    }

    /// Nobody listening is no reason to stop.
    async fn send(&self, event: Event) {
        let _ = self.events.send(event).await;
    }
}

pub(crate) fn relay(name: &str, value: &[u8]) -> Option<(RelayName, Relay)> {
    let relay = Relay::decode(value).ok()?;
    relay.network.parse::<NetworkName>().ok()?;
    Some((name.parse().ok().filter(|_| relay.name == name)?, relay))
}

pub(crate) fn revocation(key: &str) -> Option<Serial> {
    key.strip_prefix("revocation/")?.parse().ok()
}

/// The activator a registration's key names.
fn registrant(key: &str) -> Option<NodeId> {
    let (network, name) = key.strip_prefix("registration/")?.split_once('/')?;
    Some(NodeId {
        network: network.parse().ok()?,
        role: Role::Activator,
        name: name.parse().ok()?,
    })
}

/// Verifies an entry under `registration/`; otherwise why not.
pub(crate) fn registration(
    verifier: &Verifier,
    entry: &KeyValue,
    now: UnixTime,
) -> Result<VerifiedRegistration, String> {
    let node = registrant(&entry.key).ok_or("its key names no node")?;
    let signed = SignedDocument::decode(entry.value.as_slice())
        .map_err(|_| "it is not a signed document".to_owned())?;
    let verified = verifier
        .verify(&signed, now)
        .map_err(|error| error.to_string())?;
    if verified.node != node {
        return Err(format!("it is signed by {}", verified.node));
    }
    let Some(Body::Registration(registration)) = verified.document.body else {
        return Err("it is not a registration".into());
    };
    Ok(VerifiedRegistration {
        node,
        registration,
        certificate: verified.serial,
        expires: UnixTime(verified.document.expires_unix_time),
        revision: Revision(entry.mod_revision),
    })
}
