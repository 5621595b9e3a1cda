//! What the sidecar says to activators through discovery; what cannot be said comes back to the event loop.

use discovery_client::{Directory, Mailer};
use model::NodeId;
use protocol::document::document::Body;
use tokio::sync::mpsc;

/// Failures the event loop has not looked at yet. Beyond, they are lost, which is harmless: an offer that nobody
/// reports as lost goes unanswered, and that is noticed as well.
const MAX_FAILURES: usize = 64;

/// A document that could not be delivered.
#[derive(Debug)]
pub(crate) struct PostFailed {
    pub(crate) link: u64,
    pub(crate) reason: String,
}

/// The way to activators' mailboxes.
#[derive(Debug)]
pub(crate) struct Signaling {
    mailer: Mailer,
    failures: mpsc::Sender<PostFailed>,
}

impl Signaling {
    pub(crate) fn new(directory: Directory) -> (Self, mpsc::Receiver<PostFailed>) {
        let (failures, failed) = mpsc::channel(MAX_FAILURES);
        (
            Self {
                mailer: Mailer::new(directory),
                failures,
            },
            failed,
        )
    }

    /// Signs `body` for `to` and posts it in the background, as a part of a trace if there is one.
    pub(crate) fn post(&self, to: &NodeId, link: u64, body: Body, traceparent: Option<String>) {
        let failures = self.failures.clone();
        self.mailer.post(to, body, traceparent, move |reason| {
            let _ = failures.try_send(PostFailed { link, reason });
        });
    }
}
