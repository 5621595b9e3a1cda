//! Gets what an allocation needs, in tasks of its own: the relay's address and a credential.

use std::{net::SocketAddr, time::Duration};

use activator_proto::reservation::RelayAccess;
use discovery_client::Directory;
use model::{RelayName, RelayUri, ServerAddr};
use net::Clock;
use tokio::{runtime::Handle, sync::mpsc};

/// Looking up a relay's name takes no longer.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);

/// The answer to one question.
#[derive(Debug)]
pub(crate) struct AccessResult {
    pub(crate) relay: RelayName,
    pub(crate) access: Result<RelayAccess, String>,
}

/// Asks for access to relays.
#[derive(Debug)]
pub(crate) struct AccessFetcher {
    directory: Directory,
    results: mpsc::Sender<AccessResult>,
    runtime: Handle,
}

impl AccessFetcher {
    /// The results come over the channel, exactly one for each [`Self::fetch`]. It works in the runtime this is called in.
    pub(crate) fn new(directory: Directory) -> (Self, mpsc::Receiver<AccessResult>) {
        // The core has one question per relay on its way at most.
        let (results, receiver) = mpsc::channel(activator_proto::reservation::MAX_RESERVATIONS * 2);
        let runtime = Handle::current();
        let fetcher = Self {
            directory,
            results,
            runtime,
        };
        (fetcher, receiver)
    }

    /// Asks in the background.
    pub(crate) fn fetch(&self, relay: RelayName, uri: RelayUri) {
        let (directory, results) = (self.directory.clone(), self.results.clone());
        self.runtime.spawn(async move {
            let access = access(&directory, &relay, &uri).await;
            let _ = results.send(AccessResult { relay, access }).await;
        });
    }
}

async fn access(
    directory: &Directory,
    relay: &RelayName,
    uri: &RelayUri,
) -> Result<RelayAccess, String> {
    let server = look_up(uri).await?;
    let credential = directory
        .turn_credentials(relay)
        .await
        .map_err(|error| error.to_string())?;
    Ok(RelayAccess {
        server: ServerAddr(server),
        username: credential.username,
        password: credential.password,
        lifetime: credential.expires.since(Clock.unix_time()),
    })
}

async fn look_up(uri: &RelayUri) -> Result<SocketAddr, String> {
    if let Some(address) = uri.address() {
        return Ok(SocketAddr::new(address, uri.port));
    }
    let lookup = tokio::net::lookup_host((uri.host.as_str(), uri.port));
    match tokio::time::timeout(LOOKUP_DEADLINE, lookup).await {
        Ok(Ok(mut addresses)) => addresses
            .next()
            .ok_or_else(|| format!("`{}` has no address", uri.host)),
        Ok(Err(error)) => Err(format!("cannot look up `{}`: {error}", uri.host)),
        Err(_) => Err(format!("looking up `{}` took too long", uri.host)),
    }
}
