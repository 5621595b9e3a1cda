//! A watch: events from a revision on, taken from the store's ring. A watcher has no queue of its own: who is so slow
//! that the ring moves past it gets OUT_OF_RANGE and lists again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::stream::{self, Stream};
use model::Revision;
use protocol::directory::{Event, KeyValue, WatchResponse, event::Kind};
use tokio::sync::watch;
use tonic::Status;

use crate::{
    TimeSource,
    mail_traces::MailTraces,
    peer::{Peer, Peers},
    refusal::status,
    store::{self, Entry, EventKind, Interest, Store, StoreError},
};

/// Watches of one node.
const MAX_WATCHES: usize = 8;
/// An answer is closed when its values have this many bytes; with one more value it is far below gRPC's 4 MiB.
const MAX_BYTES: usize = 1024 * 1024;
/// Events in one answer.
const MAX_EVENTS: usize = 1024;
/// A sign of life when nothing happens.
const IDLE: Duration = Duration::from_secs(2);

/// Counts watches by owner.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watches(Arc<Mutex<HashMap<String, usize>>>);

/// One counted watch.
#[derive(Debug)]
struct Slot {
    watches: Watches,
    owner: String,
}

impl Watches {
    pub(crate) fn count(&self) -> usize {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .sum()
    }

    fn enter(&self, owner: String) -> Option<Slot> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(owner.clone()).or_default();
        if *count >= MAX_WATCHES {
            return None;
        }
        *count += 1;
        Some(Slot {
            watches: self.clone(),
            owner,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self
            .watches
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.owner);
            }
        }
    }
}

/// What a watch needs for as long as it is open.
pub(crate) struct Watch {
    pub(crate) store: Store,
    pub(crate) peers: Arc<Peers>,
    pub(crate) peer: Peer,
    pub(crate) time: TimeSource,
    /// Becomes true when the server stops.
    pub(crate) closing: watch::Receiver<bool>,
    pub(crate) mail_traces: Arc<MailTraces>,
    pub(crate) prefixes: Vec<String>,
    pub(crate) from: Revision,
}

struct Open {
    watch: Watch,
    interest: Interest,
    /// The next revision to send.
    next: Revision,
    /// Something was sent: wait for news.
    started: bool,
    _slot: Slot,
}

/// Opens a watch; errors that are known at once are no stream.
pub(crate) fn open(
    watch: Watch,
    watches: &Watches,
) -> Result<impl Stream<Item = Result<WatchResponse, Status>> + Send + use<>, Status> {
    let slot = watches.enter(watch.peer.owner()).ok_or_else(|| {
        Status::resource_exhausted(format!(
            "too many watches: at most {MAX_WATCHES} for each node"
        ))
    })?;
    // 0: from now on.
    let next = match watch.from {
        Revision(0) => watch.store.revision().next(),
        from => from,
    };
    watch
        .store
        .read(|core| core.events_from(next).map(|_| ()))
        .map_err(status)?;
    let interest = watch.store.interest(&watch.prefixes);
    let open = Open {
        watch,
        interest,
        next,
        started: false,
        _slot: slot,
    };
    Ok(stream::unfold(Some(open), |open| async {
        let mut open = open?;
        match open.next().await {
            Ok(response) => Some((Ok(response), Some(open))),
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Open {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        loop {
            self.watch
                .peers
                .recheck(&self.watch.peer, (self.watch.time)())?;
            let response = self.collect().map_err(status)?;
            self.watch.mail_traces.on_watched(&response.events);
            let something = !response.events.is_empty() || !self.started;
            self.started = true;
            if something {
                return Ok(response);
            }
            tokio::select! {
                () = self.interest.changed() => {}
                () = tokio::time::sleep(IDLE) => return Ok(response),
                _ = self.watch.closing.wait_for(|closing| *closing) => {
                    return Err(Status::unavailable("discovery is stopping"));
                }
            }
        }
    }

    /// What there is now, bounded.
    fn collect(&mut self) -> Result<WatchResponse, StoreError> {
        let (prefixes, interest, next) = (&self.watch.prefixes, &self.interest, self.next);
        let (events, upto) = self.watch.store.read(|core| {
            let mut events = Vec::new();
            let (mut bytes, mut upto) = (0, core.revision());
            let Some(first) = interest.take() else {
                return Ok((events, upto));
            };
            for event in core.events_from(first.max(next))? {
                if prefixes
                    .iter()
                    .any(|prefix| event.key.starts_with(prefix.as_str()))
                {
                    if let EventKind::Put(entry) = &event.kind {
                        bytes += entry.value.len();
                    }
                    events.push(encode(event));
                }
                if bytes >= MAX_BYTES || events.len() >= MAX_EVENTS {
                    upto = event.revision;
                    interest.put_back(upto.next());
                    break;
                }
            }
            Ok((events, upto))
        })?;
        self.next = upto.next();
        Ok(WatchResponse {
            events,
            revision: upto.0,
        })
    }
}

fn encode(event: &store::Event) -> Event {
    let kind = match &event.kind {
        EventKind::Put(entry) => Kind::Put(key_value(&event.key, entry)),
        EventKind::Delete => Kind::Delete(KeyValue {
            key: event.key.to_string(),
            mod_revision: event.revision.0,
            ..KeyValue::default()
        }),
    };
    Event { kind: Some(kind) }
}

/// A key and its entry as they go over the wire.
pub(crate) fn key_value(key: &str, entry: &Entry) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: entry.value.to_vec(),
        create_revision: entry.create_revision.0,
        mod_revision: entry.mod_revision.0,
        lease: entry.lease.map_or(0, |lease| lease.0),
    }
}
