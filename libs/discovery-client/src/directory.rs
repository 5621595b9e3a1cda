//! The handle that a service asks.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use identity::{NodeIdentity, Verifier};
use model::{NodeId, RelayName, UnixTime};
use protocol::{
    directory::{
        PostRequest, ReportRequest, TurnCredentialsRequest, directory_client::DirectoryClient,
    },
    document::SignedDocument,
};
use tokio::sync::{mpsc, oneshot, watch};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use crate::{DirectoryError, IdentityHandle, View, connection::DEADLINE, inspect};

/// Credentials for one relay (TURN REST: long-term credentials that expire).
#[derive(Clone, PartialEq, Eq)]
pub struct TurnCredential {
    /// `<expiry>:<node id>`.
    pub username: String,
    /// Base64 of an HMAC; a secret.
    pub password: String,
    /// Until when.
    pub expires: UnixTime,
}

impl std::fmt::Debug for TurnCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnCredential")
            .field("username", &self.username)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Connected, or why not.
pub(crate) type Link = Result<Channel, String>;

pub(crate) struct Shared {
    pub(crate) identity: Arc<IdentityHandle>,
    pub(crate) view: ArcSwap<View>,
    pub(crate) verifier: ArcSwap<Verifier>,
    pub(crate) link: watch::Sender<Link>,
    /// Told to connect anew.
    pub(crate) moved: tokio::sync::Notify,
    pub(crate) published: watch::Sender<Option<SignedDocument>>,
    /// The registration's lease; 0: none. Outlives connections.
    pub(crate) lease: AtomicU64,
    pub(crate) stop: mpsc::Sender<oneshot::Sender<()>>,
}

/// The directory, as this node sees it. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("view", &self.view())
            .finish_non_exhaustive()
    }
}

impl Directory {
    /// The directory as last seen; never waits.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// Why discovery cannot be reached now; none while it can.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.shared.link.borrow().as_ref().err().cloned()
    }

    /// This node's identity as of now, to sign with.
    #[must_use]
    pub fn identity(&self) -> Arc<NodeIdentity> {
        self.shared.identity.current()
    }

    /// Verifies documents for this node, with the revocations as of now.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        self.shared.verifier.load_full()
    }

    /// Leaves a document in a node's mailbox. Waits for a connection if there is none; at most 3 s in all.
    ///
    /// # Errors
    /// See [`DirectoryError`]. After [`DirectoryError::Timeout`] it may still arrive.
    pub async fn post(&self, to: &NodeId, document: SignedDocument) -> Result<(), DirectoryError> {
        self.post_traced(to, document, None).await
    }

    /// As [`Self::post`], for a document that belongs to a trace: `traceparent` of
    /// [W3C Trace Context](https://www.w3.org/TR/trace-context-1/), ASCII.
    ///
    /// # Errors
    /// As there.
    pub async fn post_traced(
        &self,
        to: &NodeId,
        document: SignedDocument,
        traceparent: Option<String>,
    ) -> Result<(), DirectoryError> {
        let mut request = Request::new(PostRequest {
            to: to.to_string(),
            document: Some(document),
        });
        if let Some(Ok(value)) = traceparent.map(MetadataValue::try_from) {
            request.metadata_mut().insert("traceparent", value);
        }
        self.call(async |mut client| client.post(request).await)
            .await
            .map(|_| ())
    }

    /// Short-lived credentials for a relay. At most 3 s.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn turn_credentials(
        &self,
        relay: &RelayName,
    ) -> Result<TurnCredential, DirectoryError> {
        let request = TurnCredentialsRequest {
            relay: relay.to_string(),
        };
        let response = self
            .call(async |mut client| client.turn_credentials(request).await)
            .await?;
        let response = response.into_inner();
        Ok(TurnCredential {
            username: response.username,
            password: response.password,
            expires: UnixTime(response.expires_unix_time),
        })
    }

    /// Tells discovery's console what this activator sees of itself; answers when it wants to know again: never, if not at
    /// all. At most 3 s.
    ///
    /// # Errors
    /// See [`DirectoryError`].
    pub async fn report(&self, report: ReportRequest) -> Result<Option<Duration>, DirectoryError> {
        let response = self
            .call(async |mut client| client.report(report).await)
            .await?;
        let seconds = u64::from(response.into_inner().again_seconds);
        Ok((seconds > 0).then(|| Duration::from_secs(seconds)))
    }

    /// Keeps this registration in the directory, under a lease, over reconnections; `None` withdraws it.
    /// Replaces what was published before. Sign it anew before the document expires.
    pub fn publish(&self, registration: Option<SignedDocument>) {
        self.shared.published.send_replace(registration);
    }

    /// Connects anew: this host has other addresses, and a connection from one that is gone would be missed late. What is
    /// asked meanwhile waits, within its deadline.
    pub fn reconnect(&self) {
        self.shared.moved.notify_one();
    }

    /// Withdraws the registration and ends the task. At most 1 s.
    pub async fn shutdown(&self) {
        let (done, wait) = oneshot::channel();
        if self.shared.stop.try_send(done).is_ok() {
            let _ = tokio::time::timeout(Duration::from_secs(1), wait).await;
        }
    }

    async fn call<T>(
        &self,
        request: impl AsyncFnOnce(DirectoryClient<Channel>) -> Result<T, tonic::Status>,
    ) -> Result<T, DirectoryError> {
        let mut link = self.shared.link.subscribe();
        let work = async {
            let channel = match link.wait_for(Result::is_ok).await.as_deref() {
                Ok(Ok(channel)) => channel.clone(),
                _ => return Err(DirectoryError::Away("this node is shutting down".into())),
            };
            request(DirectoryClient::new(channel))
                .await
                .map_err(inspect::error)
        };
        match tokio::time::timeout(DEADLINE, work).await {
            Ok(result) => result,
            Err(_) => Err(match &*self.shared.link.borrow() {
                Ok(_) => DirectoryError::Timeout,
                Err(reason) => DirectoryError::Away(reason.clone()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_can_be_made_from_spawned_tasks() {
        fn is_send<T: Send>(_: impl FnOnce(Directory, NodeId, RelayName) -> T) {}
        is_send(|d, to, _| async move { d.post(&to, SignedDocument::default()).await });
        is_send(|d, _, relay| async move { d.turn_credentials(&relay).await });
        is_send(|d, _, _| async move { d.report(ReportRequest::default()).await });
        is_send(|d, _, _| async move { d.shutdown().await });
    }
}
