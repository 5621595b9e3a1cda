//! Signs documents and leaves them in other nodes' mailboxes, without holding up whoever has something to say.

use std::{sync::Arc, time::Duration};

use model::NodeId;
use net::Clock;
use protocol::document::document::Body;
use tokio::{runtime::Handle, sync::Semaphore};

use crate::Directory;

/// How long a document is valid: an offer or answer that arrives later is of no use.
const VALIDITY: Duration = Duration::from_secs(30);

/// Documents on their way at once: every sidecar of a network may want its link at the same time, after an activator came
/// back. Each is a few kilobytes and ends after 3 s.
const MAX_POSTS: usize = 4_096;

/// The way to other nodes' mailboxes.
#[derive(Debug)]
pub struct Mailer {
    directory: Directory,
    posts: Arc<Semaphore>,
    runtime: Handle,
}

impl Mailer {
    /// For the documents of the directory's own node. What is posted is carried by the runtime this is called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn new(directory: Directory) -> Self {
        let posts = Arc::new(Semaphore::new(MAX_POSTS));
        Self {
            directory,
            posts,
            runtime: Handle::current(),
        }
    }

    /// Signs `body` for `to`, valid for 30 s, and posts it in a task of its own, which takes 3 s at most. `on_failure`
    /// is called, here or in that task, when it could not be left there, with the reason in one line. `traceparent`: the trace
    /// that it belongs to, if any ([`Directory::post_traced`]).
    pub fn post(
        &self,
        to: &NodeId,
        body: Body,
        traceparent: Option<String>,
        on_failure: impl FnOnce(String) + Send + 'static,
    ) {
        let document = identity::document(body, Some(to), VALIDITY, Clock.unix_time());
        let signed = match self.directory.identity().sign(&document) {
            Ok(signed) => signed,
            Err(error) => return on_failure(format!("cannot sign: {error}")),
        };
        let Ok(permit) = self.posts.clone().try_acquire_owned() else {
            return on_failure("too many documents are on their way".to_owned());
        };
        let (directory, to) = (self.directory.clone(), to.clone());
        self.runtime.spawn(async move {
            if let Err(error) = directory.post_traced(&to, signed, traceparent).await {
                on_failure(error.to_string());
            }
            drop(permit);
        });
    }
}
