//! One connection to discovery: list, watch, read mail, renew the certificate.

use std::{sync::Arc, time::Duration};

use identity::{LEEWAY, NodeIdentity};
use model::{Revision, UnixTime};
use net::Clock;
use protocol::directory::{
    DeleteRequest, RangeRequest, RangeResponse, RenewRequest, WatchRequest, WatchResponse,
    directory_client::DirectoryClient,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    connection::{DEADLINE, one_line},
    directory::Shared,
    publisher,
    state::{Listing, State},
};

/// A whole listing: registrations of thousands of activators.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
/// Discovery says something every 2 s; silence for this long means that it, or the way to it, is dead.
const SILENCE: Duration = Duration::from_secs(6);
const RENEW_RETRY: Duration = Duration::from_secs(10);
/// Deletions of mail under way.
const DELETIONS: usize = 64;
/// Mail that waits to be deleted; what is beyond is left to its TTL.
const READ_MAIL: usize = 4096;

/// How a session ended.
pub(crate) enum Ended {
    /// On purpose: connect again at once.
    Again,
    /// Discovery is away.
    Lost(String),
}

pub(crate) struct Session {
    channel: Channel,
    client: DirectoryClient<Channel>,
    shared: Arc<Shared>,
    identity: Arc<NodeIdentity>,
}

impl Session {
    pub(crate) fn new(channel: Channel, shared: Arc<Shared>, identity: Arc<NodeIdentity>) -> Self {
        let client = DirectoryClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        Self {
            channel,
            client,
            shared,
            identity,
        }
    }

    /// Works until something ends it. `worked` becomes true when the view was up to date.
    pub(crate) async fn run(mut self, state: &mut State, worked: &mut bool) -> Ended {
        match self.work(state, worked).await {
            Ok(ended) => ended,
            Err(status) if status.code() == Code::OutOfRange => {
                tracing::debug!("too far behind: listing again");
                Ended::Again
            }
            Err(status) => Ended::Lost(one_line(&status)),
        }
    }

    async fn work(&mut self, state: &mut State, worked: &mut bool) -> Result<Ended, Status> {
        let mailbox = format!("mailbox/{}/", self.identity.node_id());
        let prefixes = ["revocation/", "relay/", "registration/", &mailbox];
        let first = self.range(prefixes[0]).await?;
        self.check_clock(UnixTime(first.unix_time));
        let mut watch = self
            .watch(&prefixes, Revision(first.revision).next())
            .await?;
        let mut listing = Listing::default();
        listing.add(prefixes[0], first);
        for prefix in &prefixes[1..] {
            listing.add(prefix, self.range(prefix).await?);
        }
        let mail = state.on_listed(listing).await;
        *worked = true;
        drop(self.shared.link.send_replace(Ok(self.channel.clone())));
        state.connected().await;
        // Both end with this.
        let mut deleting = JoinSet::new();
        let (read, to_delete) = mpsc::channel(READ_MAIL);
        deleting.spawn(delete_read(self.client.clone(), to_delete));
        take_out(&read, mail);
        let mut tasks = JoinSet::new();
        tasks.spawn(publisher::run(self.client.clone(), self.shared.clone()));
        let mut renew_at = self.identity.renew_at();
        let mut heard = Instant::now();
        loop {
            let now = Clock.unix_time();
            if now >= renew_at {
                match self.renew().await {
                    Ok(()) => return Ok(Ended::Again),
                    Err(reason) => {
                        tracing::warn!(%reason, "cannot renew our certificate; trying again");
                        renew_at = now.saturating_add(RENEW_RETRY);
                    }
                }
            }
            tokio::select! {
                next = next(&mut watch, heard + SILENCE) => {
                    heard = Instant::now();
                    let news = state.on_watched(next?).await;
                    take_out(&read, news.mail);
                    if news.list_again {
                        return Ok(Ended::Again);
                    }
                }
                Some(ended) = tasks.join_next() => {
                    let reason = ended.unwrap_or_else(|error| error.to_string());
                    return Ok(Ended::Lost(reason));
                }
                // At least every second, because a clock may be set while we sleep.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn range(&mut self, prefix: &str) -> Result<RangeResponse, Status> {
        let request = RangeRequest {
            prefix: prefix.to_owned(),
        };
        bounded(self.client.range(request))
            .await
            .map(tonic::Response::into_inner)
    }

    async fn watch(
        &mut self,
        prefixes: &[&str],
        from: Revision,
    ) -> Result<Streaming<WatchResponse>, Status> {
        let prefixes = prefixes.iter().map(|&prefix| prefix.to_owned()).collect();
        let request = WatchRequest {
            prefixes,
            from_revision: from.0,
        };
        bounded(self.client.watch(request))
            .await
            .map(tonic::Response::into_inner)
    }

    fn check_clock(&self, there: UnixTime) {
        let here = Clock.unix_time();
        if here.abs_diff(there) > LEEWAY {
            tracing::error!(
                here = %here, discovery = %there,
                "our clock and discovery's are far apart; others will not believe us: set the clock"
            );
        }
    }

    /// A new certificate for the same key. The next connection uses it.
    async fn renew(&mut self) -> Result<(), String> {
        let request = self.identity.request().map_err(|error| error.to_string())?;
        let request = RenewRequest {
            certificate_request: request,
        };
        let response = bounded(self.client.renew(request))
            .await
            .map_err(|s| one_line(&s))?;
        let certificate = response.into_inner().certificate;
        let renewed = self
            .identity
            .renewed(certificate)
            .map_err(|error| error.to_string())?;
        tracing::info!(not_after = %renewed.not_after(), "certificate renewed");
        self.shared
            .identity
            .replace(renewed)
            .map_err(|error| error.to_string())
    }
}

/// Has read mail taken out of the mailbox, beside everything else.
fn take_out(read: &mpsc::Sender<String>, keys: Vec<String>) {
    for key in keys {
        if read.try_send(key).is_err() {
            return;
        }
    }
}

/// Deletes mail, some at a time: a full mailbox takes no more.
async fn delete_read(client: DirectoryClient<Channel>, mut read: mpsc::Receiver<String>) {
    let deletions = Arc::new(Semaphore::new(DELETIONS));
    while let Some(key) = read.recv().await {
        // Nobody closes it.
        let Ok(permit) = deletions.clone().acquire_owned().await else {
            return;
        };
        let mut client = client.clone();
        tokio::spawn(async move {
            let request = DeleteRequest {
                key,
                expected_revision: None,
            };
            // If this fails, its TTL takes it away.
            let _ = bounded(client.delete(request)).await;
            drop(permit);
        });
    }
}

async fn next(
    watch: &mut Streaming<WatchResponse>,
    deadline: Instant,
) -> Result<WatchResponse, Status> {
    match tokio::time::timeout_at(deadline, watch.message()).await {
        Ok(Ok(Some(response))) => Ok(response),
        Ok(Ok(None)) => Err(Status::unavailable("discovery ended the watch")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::unavailable("discovery has been silent for 6 s")),
    }
}

/// Gives a call its deadline.
pub(crate) async fn bounded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded("no answer within 3 s")),
    }
}
