//! What a node knows of the mesh, and what happens to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use identity::Serial;
use model::{NodeId, RelayName, Revision, UnixTime};
use protocol::{
    directory::Relay,
    document::{Document, Registration},
};

/// The directory as last seen. Immutable: a change makes a new one.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// All changes up to here are in it.
    pub revision: Revision,
    /// Every relay of the mesh, from discovery's configuration. Its `network` is a valid name.
    pub relays: BTreeMap<RelayName, Relay>,
    /// What activators said of themselves; each was verified.
    pub registrations: BTreeMap<NodeId, VerifiedRegistration>,
    /// Certificates that are not to be believed any more: end their links.
    pub revoked: BTreeSet<Serial>,
    /// Whether discovery is reachable; if not, this is the last view there was.
    pub connected: bool,
}

/// A registration whose signature was verified and whose author is the node it names.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedRegistration {
    /// The activator.
    pub node: NodeId,
    /// What it said.
    pub registration: Registration,
    /// The certificate it was signed with.
    pub certificate: Serial,
    /// Until when the document is valid.
    pub expires: UnixTime,
    /// When the directory got it.
    pub revision: Revision,
}

/// What happens. Delivered in order over a bounded channel.
#[derive(Debug, Clone)]
pub enum Event {
    /// There is a new view; [`crate::Directory::view`] has it too.
    ViewChanged(Arc<View>),
    /// A document for this node. Signature, audience, times and revocation were checked, and that its signer is the
    /// one who sent it. Delivered at most once.
    Message {
        /// Who signed and sent it.
        from: NodeId,
        /// What it says.
        document: Box<Document>,
        /// The certificate it was signed with.
        certificate: Serial,
    },
    /// A document was not believed. Was logged; once for each document.
    Rejected {
        /// The key of the registration, or the alleged sender of the mail.
        from: String,
        /// Why.
        reason: String,
    },
    /// Discovery is reachable and the view is up to date.
    Connected,
    /// Discovery is not reachable any more; the task keeps trying.
    Disconnected {
        /// Why, in one line.
        reason: String,
    },
}
