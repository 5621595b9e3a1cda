//! What it takes to use a relay.

use std::fmt;
use std::time::Duration;

use crate::{RelayTransport, ServerAddr};

/// One way to a relay: a URI, looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayWay {
    /// How it is spoken to.
    pub transport: RelayTransport,
    /// Where.
    pub server: ServerAddr,
    /// The URI's host: what its certificate has to be for.
    pub host: String,
}

/// What an allocation on a relay needs.
#[derive(Clone, PartialEq, Eq)]
pub struct RelayAccess {
    /// The ways to the relay, the preferred one first; never empty, at most [`MAX_RELAY_URIS`](crate::MAX_RELAY_URIS).
    pub ways: Vec<RelayWay>,
    /// TURN username.
    pub username: String,
    /// TURN password. Never logged.
    pub password: String,
    /// How long the relay accepts the credential from now on.
    pub lifetime: Duration,
}

impl fmt::Debug for RelayAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ways,
            username,
            lifetime,
            ..
        } = self;
        write!(f, "RelayAccess({username} at {ways:?} for {lifetime:?})")
    }
}
