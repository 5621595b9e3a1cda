//! Where a node can ask for its reflexive addresses: at the relays of the mesh that listen on UDP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use model::{NetworkName, RelayName, RelayTransport, RelayUri};
use protocol::directory::Relay;
use tokio::sync::{mpsc, watch};

use crate::view::View;

/// Looking up one name takes no longer.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(3);
/// Names that could not be looked up are looked up again after this.
const RETRY: Duration = Duration::from_secs(30);

type Relays = BTreeMap<RelayName, Relay>;

/// Looks the relays' names up, whenever there are others.
#[derive(Debug)]
pub struct StunServers {
    relays: watch::Sender<Relays>,
}

impl StunServers {
    /// The receiver gets the servers' addresses: those of other networks first, since what they see a node as is what the
    /// other networks' nodes see, too; `own` last. Works in the runtime that this is called in.
    #[must_use]
    pub fn new(own: NetworkName) -> (Self, mpsc::Receiver<Vec<SocketAddr>>) {
        let (relays, mut changes) = watch::channel(Relays::new());
        let (servers, found) = mpsc::channel(1);
        tokio::spawn(async move {
            if changes.changed().await.is_err() {
                return;
            }
            loop {
                let relays = changes.borrow_and_update().clone();
                let (addresses, complete) = look_up_all(&relays, &own).await;
                if servers.send(addresses).await.is_err() {
                    return;
                }
                let later = tokio::time::sleep(RETRY);
                tokio::select! {
                    () = later, if !complete => {}
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
        });
        (Self { relays }, found)
    }

    /// The directory's view changed.
    pub fn handle_view(&self, view: &View) {
        self.relays.send_if_modified(|relays| {
            let others = *relays != view.relays;
            if others {
                relays.clone_from(&view.relays);
            }
            others
        });
    }
}

/// The addresses, and whether each name had one.
async fn look_up_all(relays: &Relays, own: &NetworkName) -> (Vec<SocketAddr>, bool) {
    let udp = |relay: &&Relay| {
        RelayUri::decode(&relay.url).is_ok_and(|uri| uri.transport == RelayTransport::Udp)
    };
    let (mut ours, mut others): (Vec<&Relay>, Vec<&Relay>) = (Vec::new(), Vec::new());
    for relay in relays.values().filter(udp) {
        let to = if relay.network == own.as_str() {
            &mut ours
        } else {
            &mut others
        };
        to.push(relay);
    }
    let mut addresses = Vec::new();
    let mut complete = true;
    for relay in others.into_iter().chain(ours) {
        let Ok(uri) = RelayUri::decode(&relay.url) else {
            continue;
        };
        if let Some(address) = uri.address() {
            addresses.push(SocketAddr::new(address, uri.port));
            continue;
        }
        let lookup = tokio::net::lookup_host((uri.host.as_str(), uri.port));
        match tokio::time::timeout(LOOKUP_DEADLINE, lookup).await {
            Ok(Ok(found)) => addresses.extend(found),
            _ => complete = false,
        }
    }
    (addresses, complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relay(network: &str, url: &str) -> Relay {
        Relay {
            name: network.to_owned(),
            network: network.to_owned(),
            url: url.to_owned(),
            ..Relay::default()
        }
    }

    #[tokio::test]
    async fn relays_over_udp_are_asked_and_those_of_other_networks_first() {
        let (servers, mut found) = StunServers::new("west".parse().expect("a name"));
        let mut view = View::default();
        for (name, network, url) in [
            ("a", "west", "turn:203.0.113.12:3478?transport=udp"),
            ("b", "east", "turn:203.0.113.22"),
            ("c", "north", "turn:203.0.113.32?transport=tcp"),
            ("d", "south", "turn:[2001:db8::42]:3479"),
            ("e", "none", "turns:203.0.113.52"),
        ] {
            let name = name.parse().expect("a name");
            view.relays.insert(name, relay(network, url));
        }
        servers.handle_view(&view);
        let expected = [
            "203.0.113.22:3478",
            "[2001:db8::42]:3479",
            "203.0.113.12:3478",
        ];
        let expected = expected.map(|text| text.parse().expect("an address"));
        assert_eq!(found.recv().await, Some(expected.to_vec()));
        servers.handle_view(&view);
        view.relays.clear();
        servers.handle_view(&view);
        assert_eq!(
            found.recv().await,
            Some(Vec::new()),
            "and nothing in between"
        );
    }
}
