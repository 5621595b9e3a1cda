//! What each call does: who calls, may they, then the store.

use std::{sync::PoisonError, time::Duration};

use futures_util::stream::Stream;
use model::{LeaseId, NodeId, RelayName, Revision, Role, UnixTime};
use net::Clock;
use prost::Message as _;
use protocol::{directory as api, document::SignedDocument};
use tonic::{Request, Status};

use crate::{
    authorize::{self, Key},
    enroll::{self, EnrollError, Enrolled},
    mailbox,
    peer::Peer,
    records::{self, Issued, NodeRecord},
    refusal::{denied, enroll_status, post_status, update_status},
    reports,
    service::Service,
    store::{Core, StoreError, Update},
    turn_rest,
    watch::{Watch, key_value},
};

/// A value put by a node: a signed document of 16 KiB with certificate and signature.
const MAX_VALUE: usize = 24 * 1024;
const LEASE_TTL: std::ops::RangeInclusive<u32> = 2..=3600;
const MAX_PREFIXES: usize = 8;

/// For the log, so that an operator finds what to revoke.
fn serial(enrolled: &Enrolled) -> String {
    Issued::read(&enrolled.certificate).map_or_else(|_| String::new(), |issued| issued.serial)
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

    pub(crate) async fn do_enroll(
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
                let serial = serial(&enrolled);
                tracing::info!(node = %enrolled.node, certificate = serial, "enrolled");
                self.metrics.enrolled.inc();
                Ok(self.enrolled(enrolled))
            }
            Err(error) => {
                // Who has no token of this mesh is a stranger, and need not fill our log.
                if matches!(error, EnrollError::Token(_)) {
                    tracing::debug!(%error, "refused to enroll a node");
                } else {
                    tracing::warn!(%error, "refused to enroll a node");
                }
                Err(enroll_status(&error))
            }
        }
    }

    pub(crate) async fn do_renew(
        &self,
        request: Request<api::RenewRequest>,
    ) -> Result<api::EnrollResponse, Status> {
        let peer = self.peer(&request)?;
        let node = peer.node()?;
        let holder = Issued::read(&peer.certificate)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let asked = (
            (node, holder.public_key.as_slice()),
            request.get_ref().certificate_request.as_slice(),
        );
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
        let serial = serial(&enrolled);
        tracing::info!(%node, old = %peer.info.serial, certificate = serial, "renewed");
        self.metrics.renewed.inc();
        Ok(self.enrolled(enrolled))
    }

    pub(crate) async fn do_put(
        &self,
        request: Request<api::PutRequest>,
    ) -> Result<api::PutResponse, Status> {
        let peer = self.peer(&request)?;
        let request = request.into_inner();
        let key = authorize::may_put(peer.subject(), &request.key).map_err(denied)?;
        if request.value.len() > MAX_VALUE {
            return Err(Status::invalid_argument("the value is longer than 24 KiB"));
        }
        if let Key::Registration(..) = key {
            self.check_registration(&peer, &request)?;
        }
        let owner = peer.owner();
        let lease = (request.lease != 0).then_some((LeaseId(request.lease), owner.as_str()));
        let expected = request.expected_revision.map(Revision);
        let put = |core: &mut Core, _| {
            let revision = core.put(&request.key, &request.value, lease, expected)?;
            if let Key::Revocation(serial) = &key {
                records::revoke_with(core, serial, &request.value)?;
            }
            Ok(revision)
        };
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

    pub(crate) async fn do_delete(
        &self,
        request: Request<api::DeleteRequest>,
    ) -> Result<api::DeleteResponse, Status> {
        let peer = self.peer(&request)?;
        let request = request.into_inner();
        let key = authorize::may_delete(peer.subject(), &request.key).map_err(denied)?;
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

    pub(crate) fn do_range(
        &self,
        request: &Request<api::RangeRequest>,
    ) -> Result<api::RangeResponse, Status> {
        let peer = self.peer(request)?;
        let prefix = request.get_ref().prefix.as_str();
        authorize::may_list(peer.subject(), prefix).map_err(denied)?;
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

    pub(crate) async fn do_watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<impl Stream<Item = Result<api::WatchResponse, Status>> + Send + use<>, Status> {
        let peer = self.peer(&request)?;
        let request = request.into_inner();
        if !(1..=MAX_PREFIXES).contains(&request.prefixes.len()) {
            return Err(Status::invalid_argument("a watch has 1 to 8 prefixes"));
        }
        for prefix in &request.prefixes {
            authorize::may_list(peer.subject(), prefix).map_err(denied)?;
        }
        self.remember(&peer).await?;
        let watch = Watch {
            store: self.store.clone(),
            peers: self.peers.clone(),
            peer,
            time: self.time.clone(),
            closing: self.closing.clone(),
            mail_traces: self.mail_traces.clone(),
            prefixes: request.prefixes,
            from: Revision(request.from_revision),
        };
        crate::watch::open(watch, &self.watches)
    }

    /// Without a data file, nodes are unknown after a restart until they come back.
    async fn remember(&self, peer: &Peer) -> Result<(), Status> {
        let Ok(node) = peer.node() else { return Ok(()) };
        let serial = peer.info.serial.to_string();
        let has_it = |record: NodeRecord| record.issued.iter().any(|one| one.serial == serial);
        let record = self.store.read(|core| records::node(core, node));
        if record.is_some_and(has_it) {
            return Ok(());
        }
        let issued = Issued::read(&peer.certificate)
            .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let put = |core: &mut Core, _| {
            let mut record = records::node(core, node).unwrap_or_default();
            record.add(issued, (self.time)());
            records::put_node(core, node, &record)
        };
        self.store.update(put).await.map_err(update_status)
    }

    pub(crate) async fn do_grant(
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

    pub(crate) async fn do_keep_alive(
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

    pub(crate) async fn do_revoke(
        &self,
        request: Request<api::LeaseRevokeRequest>,
    ) -> Result<api::LeaseRevokeResponse, Status> {
        let peer = self.peer(&request)?;
        let id = LeaseId(request.get_ref().lease);
        let revoke = |core: &mut Core, _| core.revoke(id, &peer.owner());
        self.store.update(revoke).await.map_err(update_status)?;
        Ok(api::LeaseRevokeResponse {})
    }

    pub(crate) async fn do_post(
        &self,
        request: Request<api::PostRequest>,
    ) -> Result<api::PostResponse, Status> {
        let peer = self.peer(&request)?;
        let from = peer.node()?;
        let posting = self.mail_traces.begin(request.metadata());
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
        let post = |core: &mut Core, now| {
            let key = mailbox::post(core, from, &to, document, now)?;
            self.mail_traces.on_stored(posting.as_ref(), key, &to, now);
            Ok(())
        };
        let posted = self.store.update(post).await.map_err(post_status);
        self.mail_traces
            .on_answered(posting.as_ref(), &to, posted.as_ref().err());
        posted?;
        self.metrics.mail.inc();
        Ok(api::PostResponse {})
    }

    pub(crate) fn do_turn_credentials(
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

    pub(crate) fn do_report(
        &self,
        request: Request<api::ReportRequest>,
    ) -> Result<api::ReportResponse, Status> {
        let peer = self.peer(&request)?;
        let node = peer.node()?;
        if node.role != Role::Activator {
            return Err(Status::permission_denied("only activators do this"));
        }
        let Some(reports) = &self.reports else {
            return Ok(api::ReportResponse { again_seconds: 0 });
        };
        let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports
            .put(node, request.into_inner(), Clock.now())
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let again = reports::INTERVAL.as_secs();
        Ok(api::ReportResponse {
            again_seconds: u32::try_from(again).unwrap_or(u32::MAX),
        })
    }
}
