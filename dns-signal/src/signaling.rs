//! Signs documents and leaves them in other nodes' mailboxes, without holding up the event loop.

use std::sync::Arc;
use std::time::Duration;

use discovery_client::Directory;
use model::NodeId;
use net::Clock;
use protocol::document::document::Body;
use tokio::sync::{Semaphore, mpsc};

/// How long a document is valid: an offer that arrives later is of no use.
const VALIDITY: Duration = Duration::from_secs(30);
/// Documents on their way at once.
const MAX_POSTS: usize = 64;

/// A document that could not be delivered.
#[derive(Debug)]
pub(crate) struct PostFailed {
    pub(crate) link: u64,
    pub(crate) reason: String,
}

/// The way to other nodes' mailboxes.
#[derive(Debug)]
pub(crate) struct Signaling {
    directory: Directory,
    failures: mpsc::Sender<PostFailed>,
    posts: Arc<Semaphore>,
}

impl Signaling {
    pub(crate) fn new(directory: Directory) -> (Self, mpsc::Receiver<PostFailed>) {
        let (failures, failed) = mpsc::channel(MAX_POSTS);
        (
            Self {
                directory,
                failures,
                posts: Arc::new(Semaphore::new(MAX_POSTS)),
            },
            failed,
        )
    }

    /// Signs `body` for `to` and posts it in a task of its own.
    pub(crate) fn post(&self, to: NodeId, link: u64, body: Body) {
        let failures = self.failures.clone();
        let document = identity::document(body, Some(&to), VALIDITY, Clock.unix_time());
        let (signed, permit) = match (
            self.directory.identity().sign(&document),
            self.posts.clone().try_acquire_owned(),
        ) {
            (Ok(signed), Ok(permit)) => (signed, permit),
            (Err(error), _) => return fail(&failures, link, error.to_string()),
            (_, Err(_)) => {
                return fail(
                    &failures,
                    link,
                    "too many documents are on their way".to_owned(),
                );
            }
        };
        let directory = self.directory.clone();
        tokio::spawn(async move {
            if let Err(error) = directory.post(&to, signed).await {
                fail(&failures, link, error.to_string());
            }
            drop(permit);
        });
    }
}

/// Loss is harmless: an offer that nobody reports as lost goes unanswered, which is noticed as well.
fn fail(failures: &mpsc::Sender<PostFailed>, link: u64, reason: String) {
    let _ = failures.try_send(PostFailed { link, reason });
}
