//! What discovery tells of mail that belongs to the opening of a link: how long a call that posts it took, and how long it lay
//! until its addressee's watch was given it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use model::NodeId;
use net::Clock;
use protocol::directory::{Event, event::Kind};
use tonic::{Status, metadata::MetadataMap};
use traces::{Context, SpanKind, Story, Traces};

use crate::mailbox::TTL;

/// Documents on their way to a watch; further ones are posted, and not told of when they get there.
const MAX_WAITING: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct MailTraces {
    traces: Traces,
    /// By the key in the mailbox.
    waiting: Mutex<HashMap<String, Waiting>>,
}

/// A document that lies in a mailbox.
#[derive(Debug)]
struct Waiting {
    context: Context,
    to: String,
    since: Instant,
}

/// A call that belongs to a trace.
#[derive(Debug)]
pub(crate) struct Posting {
    post: Context,
    deliver: Context,
    began: Instant,
}

impl MailTraces {
    pub(crate) fn new(traces: Traces) -> Self {
        Self {
            traces,
            waiting: Mutex::default(),
        }
    }

    /// None: the call belongs to no trace that is told.
    pub(crate) fn begin(&self, metadata: &MetadataMap) -> Option<Posting> {
        let traceparent = metadata.get("traceparent")?.to_str().ok()?;
        let join = || self.traces.join(traceparent).filter(Context::is_sampled);
        Some(Posting {
            post: join()?,
            deliver: join()?,
            began: Clock.now(),
        })
    }

    /// The document lies under this key. No watch can have been given it yet: the store is held.
    pub(crate) fn on_stored(
        &self,
        posting: Option<&Posting>,
        key: String,
        to: &NodeId,
        now: Instant,
    ) {
        let Some(posting) = posting else {
            return;
        };
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            waiting.retain(|_, one| now.saturating_duration_since(one.since) < TTL);
        }
        if waiting.len() < MAX_WAITING {
            let one = Waiting {
                context: posting.deliver,
                to: to.to_string(),
                since: now,
            };
            waiting.insert(key, one);
        }
    }

    /// The call is answered.
    pub(crate) fn on_answered(
        &self,
        posting: Option<&Posting>,
        to: &NodeId,
        refused: Option<&Status>,
    ) {
        if let Some(&Posting { post, began, .. }) = posting {
            let error = refused.map(|status| status.message().to_owned());
            self.tell(post, "post", SpanKind::Server, began, to.to_string(), error);
        }
    }

    /// A watch is given these.
    pub(crate) fn on_watched(&self, events: &[Event]) {
        for event in events {
            if let Some(Kind::Put(entry)) = &event.kind
                && entry.key.starts_with("mailbox/")
                && let Some(one) = self.waiting().remove(&entry.key)
            {
                self.tell(
                    one.context,
                    "deliver",
                    SpanKind::Internal,
                    one.since,
                    one.to,
                    None,
                );
            }
        }
    }

    fn tell(
        &self,
        context: Context,
        name: &'static str,
        kind: SpanKind,
        began: Instant,
        to: String,
        error: Option<String>,
    ) {
        self.traces.tell(Story {
            context,
            name,
            kind,
            began,
            ended: Clock.now(),
            phases: Vec::new(),
            error,
            facts: vec![("turnpike.to", to)],
        });
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
