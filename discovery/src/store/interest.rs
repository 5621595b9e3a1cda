//! Who is to be woken by a change of which keys, and from which change on there is something to see: a thousand watchers
//! must not all look when one of them gets mail, nor look through what the others got.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use model::Revision;
use tokio::sync::Notify;

use super::core::Core;

/// All that wait, by the folder they look at: the part of a prefix up to its last `/`.
#[derive(Debug, Default)]
pub(super) struct Interests(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Changes up to here were told.
    told: Revision,
    by_folder: HashMap<String, Vec<Arc<Bell>>>,
}

#[derive(Debug)]
struct Bell {
    woken: Notify,
    /// The first revision that concerns it and that it has not looked at; [`NOTHING`].
    first: AtomicU64,
}

/// No revision comes so far.
const NOTHING: u64 = u64::MAX;

impl Bell {
    /// Written and read under the lock of the store's core.
    fn ring(&self, revision: Revision) {
        self.first.fetch_min(revision.0, Ordering::Relaxed);
        self.woken.notify_one();
    }
}

/// One that waits for changes below some prefixes. Dropped, it waits no more.
#[derive(Debug)]
pub struct Interest {
    all: Arc<Interests>,
    folders: Vec<String>,
    bell: Arc<Bell>,
}

impl Interests {
    /// Changes from `told` on will be told.
    pub(super) fn new(told: Revision) -> Self {
        let by_folder = HashMap::new();
        Self(Mutex::new(Waiting { told, by_folder }))
    }

    pub(super) fn enter(self: &Arc<Self>, prefixes: &[String]) -> Interest {
        let mut folders: Vec<String> = prefixes
            .iter()
            .map(|prefix| folder(prefix).to_owned())
            .collect();
        folders.sort_unstable();
        folders.dedup();
        let bell = Arc::new(Bell {
            woken: Notify::new(),
            // It is not known what was there before.
            first: AtomicU64::new(0),
        });
        self.with(|waiting| {
            for folder in &folders {
                let bells = waiting.by_folder.entry(folder.clone()).or_default();
                bells.push(bell.clone());
            }
        });
        Interest {
            all: self.clone(),
            folders,
            bell,
        }
    }

    /// Wakes those whom the changes since the last call concern; all, when it is not known which those are.
    pub(super) fn tell(&self, core: &Core) {
        self.with(|Waiting { told, by_folder }| {
            let from = told.next();
            if core.revision() == std::mem::replace(told, core.revision()) {
                return;
            }
            let Ok(events) = core.events_from(from) else {
                by_folder
                    .values()
                    .flatten()
                    .for_each(|bell| bell.ring(from));
                return;
            };
            for event in events {
                let ends = event.key.match_indices('/').map(|(at, _)| at + 1);
                for end in std::iter::once(0).chain(ends) {
                    let bells = event.key.get(..end).and_then(|key| by_folder.get(key));
                    bells
                        .into_iter()
                        .flatten()
                        .for_each(|bell| bell.ring(event.revision));
                }
            }
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut Waiting) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Interest {
    /// Returns when something may have changed since the last call.
    pub async fn changed(&self) {
        self.bell.woken.notified().await;
    }

    /// The first revision since the last call that concerns it, if there is one. Within [`super::Store::read`].
    pub fn take(&self) -> Option<Revision> {
        let first = self.bell.first.swap(NOTHING, Ordering::Relaxed);
        (first != NOTHING).then_some(Revision(first))
    }

    /// There is more to see from `revision` on.
    pub fn put_back(&self, revision: Revision) {
        self.bell.ring(revision);
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.all.with(|waiting| {
            for folder in &self.folders {
                if let Some(bells) = waiting.by_folder.get_mut(folder) {
                    bells.retain(|bell| !Arc::ptr_eq(bell, &self.bell));
                    if bells.is_empty() {
                        waiting.by_folder.remove(folder);
                    }
                }
            }
        });
    }
}

fn folder(prefix: &str) -> &str {
    let end = prefix.rfind('/').map_or(0, |at| at + 1);
    prefix.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Change, Limits};

    #[test]
    fn a_watcher_is_told_the_first_change_that_concerns_it_and_no_other() {
        let mut core = Core::new(Limits::default(), Revision(0));
        for change in core.take_changes() {
            if let Change::Reserve(bound) = change {
                core.on_reserved(bound);
            }
        }
        let interests = Arc::new(Interests::new(core.revision()));
        let interest = interests.enter(&["mailbox/a/".to_owned(), "relay/".to_owned()]);
        assert_eq!(interest.take(), Some(Revision(0)), "what was there before");
        assert_eq!(interest.take(), None);
        for (keys, first) in [
            (&["mailbox/b/1", "mailbox/ab/1"][..], None),
            (&["mailbox/b/2", "mailbox/a/1", "mailbox/a/2"], Some(1)),
            (&["relay/one", "mailbox/a/3"], Some(0)),
        ] {
            let from = core.revision().next().0;
            for key in keys {
                core.put(key, b"", None, None).unwrap();
            }
            interests.tell(&core);
            assert_eq!(interest.take(), first.map(|at| Revision(from + at)));
            assert_eq!(interest.take(), None);
        }
        interest.put_back(Revision(7));
        assert_eq!(interest.take(), Some(Revision(7)));
    }
}
