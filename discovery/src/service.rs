//! The gRPC service: a switchboard. Who calls, may they, then the store.

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use futures_util::stream::Stream;
use identity::{Authority, Verifier};
use model::{LeaseId, NodeId, RelayName, Revision, UnixTime};
use prost::Message as _;
use protocol::{
    directory::{self as api, directory_server::Directory},
    document::SignedDocument,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    TimeSource,
    authorize::{self, Denied, Key},
    enroll::{self, EnrollError, Enrolled},
    mailbox::{self, PostError},
    metrics::Metrics,
    peer::{Peer, Peers},
    records::{self, NodeRecord},
    store::{Core, Store, StoreError, Update},
    turn_rest,
    watch::{Watch, Watches, key_value, status},
};

/// A value put by a node: a signed document of 16 KiB with certificate and signature.
const MAX_VALUE: usize = 24 * 1024;
const LEASE_TTL: std::ops::RangeInclusive<u32> = 2..=3600;
const MAX_PREFIXES: usize = 8;

pub(crate) struct Service {
    pub(crate) authority: Authority,
    pub(crate) store: Store,
    pub(crate) peers: Arc<Peers>,
    /// For registrations, which are for everyone.
    pub(crate) verifier: Verifier,
    pub(crate) time: TimeSource,
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) watches: Watches,
    pub(crate) metrics: Metrics,
    pub(crate) secrets: BTreeMap<RelayName, Vec<u8>>,
    pub(crate) certificate_lifetime: Duration,
    pub(crate) credential_lifetime: Duration,
}

impl Service {
    fn peer<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        self.peers.identify(request, (self.time)())
    }

    fn enrolled(&self, node: Enrolled) -> api::EnrollResponse {
        api::EnrollResponse {
            certificate: node.certificate,
            ca_certificate: self.authority.certificate_der().to_vec(),
            unix_time: (self.time)().0,
        }
    }

    async fn do_enroll(
        &self,
        request: Request<api::EnrollRequest>,
    ) -> Result<api::EnrollResponse, Status> {
        let request = request.into_inner();
        let asked = (
            request.token.as_str(),
            request.certificate_request.as_slice(),
            request.node.as_str(),
        );
        let now = (self.time)();
        let result = enroll::enroll(
            &self.authority,
            &self.store,
            self.certificate_lifetime,
            asked,
            now,
        );
        match result.await {
            Ok(enrolled) => {
                tracing::info!(node = %enrolled.node, "enrolled");
                self.metrics.enrolled.inc();
                Ok(self.enrolled(enrolled))
            }
            Err(error) => {
                tracing::warn!(%error, "refused to enroll a node");
                Err(enroll_status(&error))
            }
        }
    }

    async fn do_renew(
        &self,
        request: Request<api::RenewRequest>,
    ) -> Result<api::EnrollResponse, Status> {
        let peer = self.peer(&request)?;
        let node = peer.node()?;
        let asked = (node, request.get_ref().certificate_request.as_slice());
        let now = (self.time)();
        let enrolled = enroll::renew(
            &self.authority,
            &self.store,
            self.certificate_lifetime,
            asked,
            now,
        )
        .await
        .map_err(|error| enroll_status(&error))?;
        tracing::info!(%node, old = %peer.serial, "renewed");
        self.metrics.renewed.inc();
        Ok(self.enrolled(enrolled))
    }

    async fn do_put(&self, request: Request<api::PutRequest>) -> Result<api::PutResponse, Status> {
        let peer = self.peer(&request)?;
        let request = request.into_inner();
        let key = authorize::may_put(&peer.subject, &request.key).map_err(denied)?;
        if request.value.len() > MAX_VALUE {
            return Err(Status::invalid_argument("the value is longer than 24 KiB"));
        }
        if let Key::Registration(..) = key {
            self.check_registration(&peer, &request)?;
        }
        let owner = peer.owner();
        let lease = (request.lease != 0).then_some((LeaseId(request.lease), owner.as_str()));
        let expected = request.expected_revision.map(Revision);
        let put = |core: &mut Core, _| core.put(&request.key, &request.value, lease, expected);
        let revision = self.store.update(put).await.map_err(update_status)?;
        self.on_changed(&peer, &key);
        Ok(api::PutResponse {
            revision: revision.0,
        })
    }

    /// Nobody has to trust this check; it tells an activator what is wrong before its peers do.
    fn check_registration(&self, peer: &Peer, request: &api::PutRequest) -> Result<(), Status> {
        let wrong = |what: String| Status::invalid_argument(format!("the registration: {what}"));
        if request.lease == 0 {
            return Err(wrong("it needs a lease".into()));
        }
        let signed = SignedDocument::decode(request.value.as_slice())
            .map_err(|_| wrong("not a signed document".into()))?;
        let verified = self
            .verifier
            .verify(&signed, (self.time)())
            .map_err(|error| wrong(error.to_string()))?;
        if verified.node == *peer.node()? {
            Ok(())
        } else {
            Err(wrong(format!("it is signed by {}", verified.node)))
        }
    }

    fn on_changed(&self, peer: &Peer, key: &Key) {
        match key {
            Key::Revocation(serial) => {
                tracing::info!(%serial, by = peer.owner(), "revocations changed");
                self.reload_revocations();
            }
            Key::Registration(network, node) => tracing::debug!(%network, %node, "registration"),
            _ => {}
        }
    }

    pub(crate) fn reload_revocations(&self) {
        let revoked = self.store.read(|core| {
            core.range("revocation/")
                .filter_map(|(key, _)| key.strip_prefix("revocation/")?.parse().ok())
                .collect()
        });
        self.peers.set_revocations(revoked);
    }

    async fn do_delete(
        &self,
        request: Request<api::DeleteRequest>,
    ) -> Result<api::DeleteResponse, Status> {
        let peer = self.peer(&request)?;
        let request = request.into_inner();
        let key = authorize::may_delete(&peer.subject, &request.key).map_err(denied)?;
        let expected = request.expected_revision.map(Revision);
        let (revision, deleted) = self
            .store
            .update(|core, _| core.delete(&request.key, expected))
            .await
            .map_err(update_status)?;
        self.on_changed(&peer, &key);
        Ok(api::DeleteResponse {
            revision: revision.0,
            deleted,
        })
    }

    fn do_range(&self, request: &Request<api::RangeRequest>) -> Result<api::RangeResponse, Status> {
        let peer = self.peer(request)?;
        let prefix = request.get_ref().prefix.as_str();
        authorize::may_list(&peer.subject, prefix).map_err(denied)?;
        let unix_time = (self.time)().0;
        Ok(self.store.read(|core| api::RangeResponse {
            entries: core
                .range(prefix)
                .map(|(key, entry)| key_value(key, entry))
                .collect(),
            revision: core.revision().0,
            unix_time,
        }))
    }

    async fn do_watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<impl Stream<Item = Result<api::WatchResponse, Status>> + Send + use<>, Status> {
        let peer = self.peer(&request)?;
        let request = request.into_inner();
        if !(1..=MAX_PREFIXES).contains(&request.prefixes.len()) {
            return Err(Status::invalid_argument("a watch has 1 to 8 prefixes"));
        }
        for prefix in &request.prefixes {
            authorize::may_list(&peer.subject, prefix).map_err(denied)?;
        }
        self.remember(&peer).await?;
        let watch = Watch {
            store: self.store.clone(),
            peers: self.peers.clone(),
            peer,
            time: self.time.clone(),
            closing: self.closing.clone(),
            prefixes: request.prefixes,
            from: Revision(request.from_revision),
        };
        crate::watch::open(watch, &self.watches)
    }

    /// Without a data file, nodes are unknown after a restart until they come back.
    async fn remember(&self, peer: &Peer) -> Result<(), Status> {
        let Ok(node) = peer.node() else { return Ok(()) };
        if self.store.read(|core| records::node(core, node).is_some()) {
            return Ok(());
        }
        let info = identity::CertificateInfo::read(&peer.certificate)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let record = NodeRecord {
            public_key: info.public_key,
            certificate_not_after: info.not_after.0,
        };
        let put = |core: &mut Core, _| records::put_node(core, node, &record);
        self.store.update(put).await.map_err(update_status)
    }

    async fn do_grant(
        &self,
        request: Request<api::LeaseGrantRequest>,
    ) -> Result<api::LeaseGrantResponse, Status> {
        let peer = self.peer(&request)?;
        let ttl_seconds = request.get_ref().ttl_seconds;
        if !LEASE_TTL.contains(&ttl_seconds) {
            return Err(Status::invalid_argument("a lease lasts 2 to 3600 s"));
        }
        let id = getrandom::u64().map_err(|error| Status::internal(error.to_string()))?;
        let ttl = Duration::from_secs(ttl_seconds.into());
        self.store
            .update(|core, now| core.grant(LeaseId(id), &peer.owner(), ttl, now))
            .await
            .map_err(update_status)?;
        Ok(api::LeaseGrantResponse {
            lease: id,
            ttl_seconds,
        })
    }

    async fn do_keep_alive(
        &self,
        request: Request<api::LeaseKeepAliveRequest>,
    ) -> Result<api::LeaseKeepAliveResponse, Status> {
        let peer = self.peer(&request)?;
        let id = LeaseId(request.get_ref().lease);
        let keep = |core: &mut Core, now| core.keep_alive(id, &peer.owner(), now);
        let ttl_seconds = match self.store.update(keep).await {
            Ok(ttl) => u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX),
            Err(Update::Refused(StoreError::NoLease)) => 0,
            Err(error) => return Err(update_status(error)),
        };
        Ok(api::LeaseKeepAliveResponse { ttl_seconds })
    }

    async fn do_revoke(
        &self,
        request: Request<api::LeaseRevokeRequest>,
    ) -> Result<api::LeaseRevokeResponse, Status> {
        let peer = self.peer(&request)?;
        let id = LeaseId(request.get_ref().lease);
        let revoke = |core: &mut Core, _| core.revoke(id, &peer.owner());
        self.store.update(revoke).await.map_err(update_status)?;
        Ok(api::LeaseRevokeResponse {})
    }

    async fn do_post(
        &self,
        request: Request<api::PostRequest>,
    ) -> Result<api::PostResponse, Status> {
        let peer = self.peer(&request)?;
        let from = peer.node()?;
        let request = request.into_inner();
        let to: NodeId = request
            .to
            .parse()
            .map_err(|error: model::NodeIdError| Status::invalid_argument(error.to_string()))?;
        let document = request
            .document
            .ok_or_else(|| Status::invalid_argument("there is no document"))?;
        if document.encoded_len() > identity::MAX_DOCUMENT {
            return Err(Status::invalid_argument(
                "the document is longer than 16 KiB",
            ));
        }
        let post = |core: &mut Core, now| mailbox::post(core, from, &to, document, now);
        self.store.update(post).await.map_err(|error| match error {
            Update::Disk => disk(),
            Update::Refused(PostError::Store(error)) => status(error),
            Update::Refused(error @ PostError::NoNode(_)) => Status::not_found(error.to_string()),
            Update::Refused(error) => Status::resource_exhausted(error.to_string()),
        })?;
        self.metrics.mail.inc();
        Ok(api::PostResponse {})
    }

    fn do_turn_credentials(
        &self,
        request: &Request<api::TurnCredentialsRequest>,
    ) -> Result<api::TurnCredentialsResponse, Status> {
        let peer = self.peer(request)?;
        let node = peer.node()?;
        let relay = &request.get_ref().relay;
        let secret = relay
            .parse()
            .ok()
            .and_then(|name: RelayName| self.secrets.get(&name))
            .ok_or_else(|| Status::not_found("there is no such relay"))?;
        let expires: UnixTime = (self.time)().saturating_add(self.credential_lifetime);
        let (username, password) = turn_rest::mint(secret, node, expires);
        Ok(api::TurnCredentialsResponse {
            username,
            password,
            expires_unix_time: expires.0,
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn denied(error: Denied) -> Status {
    match error {
        Denied::Unknown(_) => Status::invalid_argument(error.to_string()),
        Denied::Forbidden(..) => Status::permission_denied(error.to_string()),
    }
}

fn disk() -> Status {
    Status::unavailable("discovery cannot write its data file")
}

fn update_status(error: Update<StoreError>) -> Status {
    match error {
        Update::Refused(error) => status(error),
        Update::Disk => disk(),
    }
}

fn enroll_status(error: &EnrollError) -> Status {
    let text = error.to_string();
    match error {
        EnrollError::Issue(_) | EnrollError::Name(_) => Status::invalid_argument(text),
        EnrollError::Store(_) | EnrollError::Disk => Status::unavailable(text),
        _ => Status::permission_denied(text),
    }
}

/// Counts the answer and wraps it.
macro_rules! answer {
    ($self:ident, $method:literal, $result:expr) => {
        $self.metrics.count($method, $result).map(Response::new)
    };
}

#[tonic::async_trait]
impl Directory for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<api::WatchResponse, Status>> + Send>>;

    async fn enroll(
        &self,
        request: Request<api::EnrollRequest>,
    ) -> Result<Response<api::EnrollResponse>, Status> {
        answer!(self, "enroll", self.do_enroll(request).await)
    }

    async fn renew(
        &self,
        request: Request<api::RenewRequest>,
    ) -> Result<Response<api::EnrollResponse>, Status> {
        answer!(self, "renew", self.do_renew(request).await)
    }

    async fn put(
        &self,
        request: Request<api::PutRequest>,
    ) -> Result<Response<api::PutResponse>, Status> {
        answer!(self, "put", self.do_put(request).await)
    }

    async fn delete(
        &self,
        request: Request<api::DeleteRequest>,
    ) -> Result<Response<api::DeleteResponse>, Status> {
        answer!(self, "delete", self.do_delete(request).await)
    }

    async fn range(
        &self,
        request: Request<api::RangeRequest>,
    ) -> Result<Response<api::RangeResponse>, Status> {
        answer!(self, "range", self.do_range(&request))
    }

    async fn watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let stream = self.metrics.count("watch", self.do_watch(request).await)?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn lease_grant(
        &self,
        request: Request<api::LeaseGrantRequest>,
    ) -> Result<Response<api::LeaseGrantResponse>, Status> {
        answer!(self, "lease_grant", self.do_grant(request).await)
    }

    async fn lease_keep_alive(
        &self,
        request: Request<api::LeaseKeepAliveRequest>,
    ) -> Result<Response<api::LeaseKeepAliveResponse>, Status> {
        answer!(self, "lease_keep_alive", self.do_keep_alive(request).await)
    }

    async fn lease_revoke(
        &self,
        request: Request<api::LeaseRevokeRequest>,
    ) -> Result<Response<api::LeaseRevokeResponse>, Status> {
        answer!(self, "lease_revoke", self.do_revoke(request).await)
    }

    async fn post(
        &self,
        request: Request<api::PostRequest>,
    ) -> Result<Response<api::PostResponse>, Status> {
        answer!(self, "post", self.do_post(request).await)
    }

    async fn turn_credentials(
        &self,
        request: Request<api::TurnCredentialsRequest>,
    ) -> Result<Response<api::TurnCredentialsResponse>, Status> {
        answer!(self, "turn_credentials", self.do_turn_credentials(&request))
    }
}
