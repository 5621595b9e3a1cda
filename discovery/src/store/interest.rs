//! Who is to be woken by a change of which keys: a thousand watchers must not all look when one of them gets mail.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
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
    by_folder: HashMap<String, Vec<Arc<Notify>>>,
}

/// One that waits for changes below some prefixes. Dropped, it waits no more.
#[derive(Debug)]
pub struct Interest {
    all: Arc<Interests>,
    folders: Vec<String>,
    bell: Arc<Notify>,
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
        let bell = Arc::new(Notify::new());
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
                    .for_each(|bell| bell.notify_one());
                return;
            };
            for event in events {
                let ends = event.key.match_indices('/').map(|(at, _)| at + 1);
                for end in std::iter::once(0).chain(ends) {
                    let bells = event.key.get(..end).and_then(|key| by_folder.get(key));
                    bells
                        .into_iter()
                        .flatten()
                        .for_each(|bell| bell.notify_one());
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
        self.bell.notified().await;
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
