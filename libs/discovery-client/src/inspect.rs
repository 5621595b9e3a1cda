//! An operator's look at the directory: everything at once, no watch.

use std::collections::{BTreeMap, BTreeSet};

use identity::{Serial, TlsMaterial, Verifier};
use model::{NodeId, RelayName, Revision, UnixTime};
use net::Clock;
use protocol::directory::{
    PutRequest, RangeRequest, RangeResponse, Relay, directory_client::DirectoryClient,
};
use tonic::transport::Channel;

use crate::{
    DirectoryError, VerifiedRegistration,
    connection::{Client, connect, one_line},
    session::bounded,
    state,
};

/// The directory at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Discovery's revision.
    pub revision: Revision,
    /// Discovery's clock.
    pub time: UnixTime,
    /// The relays.
    pub relays: BTreeMap<RelayName, Relay>,
    /// Registrations that verify.
    pub registrations: BTreeMap<NodeId, VerifiedRegistration>,
    /// Those that do not, by key, and why.
    pub rejected: BTreeMap<String, String>,
    /// All nodes that are enrolled.
    pub nodes: BTreeSet<NodeId>,
    /// Revoked certificates, and the reasons given.
    pub revoked: BTreeMap<Serial, String>,
}

/// An operator's connection to discovery. Each call takes at most 3 s.
#[derive(Debug, Clone)]
pub struct Operator {
    client: DirectoryClient<Channel>,
    verifier: Verifier,
}

impl Operator {
    /// Connects to `https://host:port` with an operator's certificate (`Authority::new_admin`); `verifier` is to know
    /// the mesh CA.
    ///
    /// # Errors
    /// [`DirectoryError::Away`] with the reason.
    pub async fn connect(
        url: &str,
        tls: &TlsMaterial,
        verifier: Verifier,
    ) -> Result<Self, DirectoryError> {
        let channel = connect(url, Client::Known(tls))
            .await
            .map_err(DirectoryError::Away)?;
        let client = DirectoryClient::new(channel).max_decoding_message_size(64 * 1024 * 1024);
        Ok(Self { client, verifier })
    }

    /// Lists everything there is.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn snapshot(&mut self) -> Result<Snapshot, DirectoryError> {
        let mut snapshot = Snapshot::default();
        for entry in self.range("revocation/").await?.entries {
            if let Some(serial) = state::revocation(&entry.key) {
                let reason = String::from_utf8_lossy(&entry.value).into_owned();
                snapshot.revoked.insert(serial, reason);
            }
        }
        let revoked = snapshot.revoked.keys().cloned().collect();
        let verifier = self.verifier.with_revocations(revoked);
        for entry in self.range("relay/").await?.entries {
            let name = entry.key.trim_start_matches("relay/");
            if let Some((name, relay)) = state::relay(name, &entry.value) {
                snapshot.relays.insert(name, relay);
            }
        }
        for entry in self.range("node/").await?.entries {
            snapshot
                .nodes
                .extend(entry.key.trim_start_matches("node/").parse::<NodeId>());
        }
        let listed = self.range("registration/").await?;
        snapshot.revision = Revision(listed.revision);
        snapshot.time = UnixTime(listed.unix_time);
        for entry in listed.entries {
            match state::registration(&verifier, &entry, Clock.unix_time()) {
                Ok(registration) => {
                    snapshot
                        .registrations
                        .insert(registration.node.clone(), registration);
                }
                Err(reason) => {
                    snapshot.rejected.insert(entry.key, reason);
                }
            }
        }
        Ok(snapshot)
    }

    /// Revokes a certificate: its node is refused by discovery, and its documents by every node.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn revoke(&mut self, serial: &Serial, reason: &str) -> Result<(), DirectoryError> {
        let request = PutRequest {
            key: format!("revocation/{serial}"),
            value: reason.as_bytes().to_vec(),
            lease: 0,
            expected_revision: None,
        };
        bounded(self.client.put(request))
            .await
            .map(|_| ())
            .map_err(error)
    }

    async fn range(&mut self, prefix: &str) -> Result<RangeResponse, DirectoryError> {
        let request = RangeRequest {
            prefix: prefix.to_owned(),
        };
        bounded(self.client.range(request))
            .await
            .map(tonic::Response::into_inner)
            .map_err(error)
    }
}

/// A call's failure, by whose fault it is.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn error(status: tonic::Status) -> DirectoryError {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
            DirectoryError::Away(one_line(&status))
        }
        tonic::Code::DeadlineExceeded => DirectoryError::Timeout,
        _ => DirectoryError::Refused(status.message().to_owned()),
    }
}
