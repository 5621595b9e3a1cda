//! Two realms that share the name of a user, and nothing else.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use super::common::{Client, Relay, Setup, server_addr};
use std::sync::Arc;
use stun_types::attribute::Nonce;
use turn_relay_proto::{
    AlternateTransport, Credentials, Entrance, Extensions, PeerPolicy, Realm, Shared,
};
use turn_types::message::REFRESH;

pub const EAST: &str = "east";

pub const PEER: &str = "10.0.0.9:7000";

pub const EASTERN_PEER: &str = "10.0.0.200:7000";

/// A realm with another alice, who may reach one half of the network.
pub fn east(shared: &Shared) -> Realm {
    let mut credentials = Credentials::new(EAST);
    credentials.add_user("alice", "looking-glass");
    credentials.add_user("carol", "christmas");
    let allowed = vec!["10.0.0.128/25".parse().unwrap()];
    let policy = PeerPolicy::new(allowed, &[]);
    let mut realm = Realm::new(shared, Arc::new(credentials), Arc::new(policy));
    realm.origins = vec!["https://east.example".into()];
    realm.server_names = vec!["east.example".into()];
    realm.entrances = vec![Entrance {
        transport: AlternateTransport::Tcp,
        address: server_addr(),
    }];
    realm
}

pub fn setup() -> Setup {
    Setup {
        others: |shared| vec![east(shared)],
        extensions: Extensions {
            usage: true,
            ..Extensions::default()
        },
        short_cut: false,
        ..Setup::default()
    }
}

pub fn of_east(address: &str, user: &str, password: &str) -> Client {
    let mut client = Client::named(address, user, password);
    client.realm = EAST.into();
    client
}

pub fn eastern_alice(address: &str) -> Client {
    of_east(address, "alice", "looking-glass")
}

/// With a nonce of its realm.
pub fn with_nonce(relay: &mut Relay, mut client: Client) -> Client {
    client.nonce = Some("none".into());
    let stale = client.exchange(relay, &client.signed(REFRESH, &[]));
    assert_eq!(stale.code(), 438);
    client.nonce = Some(stale.get::<Nonce>().unwrap().nonce().to_owned());
    client
}
