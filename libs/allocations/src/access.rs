//! Gets what an allocation needs, in tasks of its own: the relay's address and a credential.

use std::{net::SocketAddr, time::Duration};

use discovery_client::Directory;
use model::{RelayAccess, RelayName, RelayUri, RelayWay, ServerAddr};
use net::Clock;
use tokio::{runtime::Handle, sync::mpsc};

/// Looking up a relay's name takes no longer.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);

/// The answer to one question.
#[derive(Debug)]
pub struct AccessResult {
    /// The relay it was for.
    pub relay: RelayName,
    /// What an allocation needs, or why it cannot be had.
    pub access: Result<RelayAccess, String>,
}

/// Asks for access to relays.
#[derive(Debug)]
pub struct AccessFetcher {
    directory: Directory,
    results: mpsc::Sender<AccessResult>,
    runtime: Handle,
}

impl AccessFetcher {
    /// The results come over the channel, exactly one for each [`Self::fetch`]. It works in the runtime this is called in.
    /// `relays`: so many may be asked for at a time.
    pub fn new(directory: Directory, relays: usize) -> (Self, mpsc::Receiver<AccessResult>) {
        // There is one question per relay on its way at most.
        let (results, receiver) = mpsc::channel(relays * 2);
        let runtime = Handle::current();
        let fetcher = Self {
            directory,
            results,
            runtime,
        };
        (fetcher, receiver)
    }

    /// Asks in the background.
    pub fn fetch(&self, relay: RelayName, uris: Vec<RelayUri>) {
        let (directory, results) = (self.directory.clone(), self.results.clone());
        self.runtime.spawn(async move {
            let access = access(&directory, &relay, &uris).await;
            let _ = results.send(AccessResult { relay, access }).await;
        });
    }
}

async fn access(
    directory: &Directory,
    relay: &RelayName,
    uris: &[RelayUri],
) -> Result<RelayAccess, String> {
    let (mut ways, mut failed) = (Vec::new(), None);
    for uri in uris {
        match look_up(uri).await {
            Ok(server) => ways.push(RelayWay {
                transport: uri.transport,
                server: ServerAddr(server),
                host: uri.host.clone(),
            }),
            Err(problem) => failed = failed.or(Some(problem)),
        }
    }
    if ways.is_empty() {
        return Err(failed.unwrap_or_else(|| "it has no URI".to_owned()));
    }
    let credential = directory
        .turn_credentials(relay)
        .await
        .map_err(|error| error.to_string())?;
    Ok(RelayAccess {
        ways,
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
