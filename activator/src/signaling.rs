//! Signs documents and leaves them in other nodes' mailboxes, without holding up the event loop.

use std::{sync::Arc, time::Duration};

use discovery_client::Directory;
use model::NodeId;
use net::Clock;
use protocol::document::document::Body;
use tokio::sync::Semaphore;

/// How long a document is valid: an answer that arrives later is of no use.
const VALIDITY: Duration = Duration::from_secs(30);

/// Documents on their way at once; further ones are dropped, and their links time out on the other side.
const MAX_POSTS: usize = 256;

/// The way to other nodes' mailboxes.
#[derive(Debug)]
pub(crate) struct Signaling {
    directory: Directory,
    posts: Arc<Semaphore>,
}

impl Signaling {
    pub(crate) fn new(directory: Directory) -> Self {
        Self {
            directory,
            posts: Arc::new(Semaphore::new(MAX_POSTS)),
        }
    }

    /// Signs `body` for `to` and posts it in a task of its own; failures are logged.
    pub(crate) fn post(&self, to: &NodeId, body: Body) {
        let what = name(&body);
        let Ok(permit) = self.posts.clone().try_acquire_owned() else {
            tracing::warn!(%to, what, "not posted: too many documents are on their way");
            return;
        };
        let document = identity::document(body, Some(to), VALIDITY, Clock.unix_time());
        let signed = match self.directory.identity().sign(&document) {
            Ok(signed) => signed,
            Err(error) => {
                tracing::error!(%to, what, %error, "cannot sign");
                return;
            }
        };
        let (directory, to) = (self.directory.clone(), to.clone());
        tokio::spawn(async move {
            if let Err(error) = directory.post(&to, signed).await {
                tracing::warn!(%to, what, %error, "not posted");
            }
            drop(permit);
        });
    }
}

const fn name(body: &Body) -> &'static str {
    match body {
        Body::Registration(_) => "registration",
        Body::Offer(_) => "offer",
        Body::Answer(_) => "answer",
        Body::Refusal(_) => "refusal",
        Body::Candidates(_) => "candidates",
        Body::Bye(_) => "bye",
    }
}
