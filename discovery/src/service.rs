//! The gRPC service: a switchboard. What each call does is in `calls`.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::stream::Stream;
use identity::{Authority, Verifier};
use model::RelayName;
use protocol::directory::{self as api, directory_server::Directory};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::{
    TimeSource, mail_traces::MailTraces, metrics::Metrics, peer::Peers, reports::Reports,
    store::Store, watch::Watches,
};

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
    pub(crate) mail_traces: Arc<MailTraces>,
    /// Absent: there is no console, and nobody wants to know.
    pub(crate) reports: Option<Mutex<Reports>>,
    pub(crate) secrets: BTreeMap<RelayName, Vec<u8>>,
    pub(crate) certificate_lifetime: Duration,
    pub(crate) credential_lifetime: Duration,
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

    async fn report(
        &self,
        request: Request<api::ReportRequest>,
    ) -> Result<Response<api::ReportResponse>, Status> {
        answer!(self, "report", self.do_report(request))
    }
}
