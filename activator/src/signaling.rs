//! What the activator says to other nodes through discovery; what cannot be said is logged.

use discovery_client::{Directory, Mailer};
use model::NodeId;
use protocol::document::document::Body;

/// The way to other nodes' mailboxes.
#[derive(Debug)]
pub(crate) struct Signaling(Mailer);

impl Signaling {
    pub(crate) fn new(directory: Directory) -> Self {
        Self(Mailer::new(directory))
    }

    /// Signs `body` for `to` and posts it in the background. A link whose answer is lost times out at the other end.
    pub(crate) fn post(&self, to: &NodeId, body: Body) {
        self.post_traced(to, body, None);
    }

    /// The same, for a document that belongs to a trace.
    pub(crate) fn post_traced(&self, to: &NodeId, body: Body, traceparent: Option<String>) {
        let (what, addressee) = (name(&body), to.clone());
        self.0.post(to, body, traceparent, move |reason| {
            tracing::warn!(to = %addressee, what, reason, "not posted");
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
