//! Everything that can enter, packets excepted (they go straight to [`Forwarder`](crate::forward::Forwarder)).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use identity::Serial;
use model::{NodeId, RelayAccess, RelayName, RelayedAddr, ServiceName};
use protocol::{directory, document};

use crate::{links::LinkKey, names::Resolved};

/// What happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// The directory's view changed.
    View {
        /// All relays of the mesh.
        relays: &'a BTreeMap<RelayName, directory::Relay>,
        /// Certificates that are not to be believed any more.
        revoked: &'a BTreeSet<Serial>,
    },
    /// The answer to [`Reserve::FetchAccess`](turn_client::Reserve::FetchAccess).
    Access {
        /// The relay.
        relay: RelayName,
        /// What to allocate with, or why it could not be had.
        access: Result<RelayAccess, String>,
    },
    /// [`Reserve::Allocate`](turn_client::Reserve::Allocate) could not be followed for a reason of this host's.
    NotStarted {
        /// The relay.
        relay: RelayName,
    },
    /// The allocation on a relay is up.
    Allocated {
        /// The relay.
        relay: RelayName,
        /// One per address family at most.
        relayed: Vec<RelayedAddr>,
    },
    /// The allocation on a relay will soon be gone: the relay drains.
    AllocationEnding {
        /// The relay.
        relay: RelayName,
    },
    /// No link uses this relay's allocation any more: the answer to [`Output::Leave`](crate::Output::Leave).
    Left {
        /// The relay.
        relay: RelayName,
    },
    /// The allocation on a relay is gone; it will be tried again without further ado.
    AllocationLost {
        /// The relay.
        relay: RelayName,
        /// Why, for who asks over the directory.
        trouble: document::relay_trouble::Kind,
    },
    /// The relay refused the credential.
    CredentialRefused {
        /// The relay.
        relay: RelayName,
    },
    /// A verified offer.
    Offer {
        /// Who signed it.
        from: NodeId,
        /// Serial of the certificate it was signed with.
        serial: Serial,
        /// The offer.
        offer: document::Offer,
    },
    /// A verified notice that the other side gave a link up.
    Bye {
        /// Who signed it.
        from: NodeId,
        /// The notice.
        bye: document::Bye,
    },
    /// `Bind` on the `control` channel.
    Bind {
        /// The link.
        link: LinkKey,
        /// What it asks for.
        bindings: Vec<document::Binding>,
    },
    /// The answer to [`Output::Resolve`](crate::Output::Resolve).
    Resolved {
        /// The name.
        name: ServiceName,
        /// What became of it.
        resolved: Resolved,
        /// All addresses of this host as they are now: nothing may lead to them.
        own: &'a [IpAddr],
    },
    /// A link is open.
    LinkOpened {
        /// The link.
        link: LinkKey,
    },
    /// A link is over; it was closed by whichever side.
    LinkClosed {
        /// The link.
        link: LinkKey,
    },
    /// Stop: withdraw, close, release.
    Shutdown,
}
