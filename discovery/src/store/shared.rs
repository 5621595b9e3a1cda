//! The core behind a lock, with its journal, its timer and its watchers.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use model::{Revision, UnixTime};
use net::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    core::Core,
    interest::{Interest, Interests},
    journal::{Commit, Journal, JournalError, confirm},
    types::Limits,
};

/// Commits that may wait for the disk.
const COMMIT_QUEUE: usize = 4096;
/// How late a lease or mail may end.
const EXPIRY_PERIOD: Duration = Duration::from_millis(200);

/// The commit queue is full or its thread is gone.
struct Behind;

/// Where what must be durable goes.
enum Commits {
    MemoryOnly,
    File(mpsc::Sender<Commit>),
    Closed,
}

/// Why an update did not happen, or is not known to have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Update<E> {
    /// It was refused; nothing changed.
    #[error(transparent)]
    Refused(E),
    /// The disk failed; the process must end.
    #[error("the data file cannot be written")]
    Disk,
}

struct Inner {
    core: Mutex<Core>,
    clock: Clock,
    journal: Mutex<Commits>,
    /// Becomes true when the data file is closed.
    closed: watch::Sender<bool>,
    interests: Arc<Interests>,
    failed: watch::Sender<Option<String>>,
}

/// The store as the service uses it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the data file, or begins empty without one. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the file cannot be used.
    pub fn open(file: Option<&Path>, limits: Limits, clock: Clock) -> Result<Self, JournalError> {
        let Some(path) = file else {
            return Ok(Self::build(
                in_memory(limits, clock.unix_time()),
                clock,
                Commits::MemoryOnly,
            ));
        };
        let journal = Journal::open(path)?;
        let core = journal.load(limits, clock.now())?;
        let (commits, receiver) = mpsc::channel(COMMIT_QUEUE);
        let store = Self::build(core, clock, Commits::File(commits));
        let inner = Arc::downgrade(&store.inner);
        let (failed, closed) = (store.inner.failed.clone(), store.inner.closed.clone());
        std::thread::spawn(move || {
            let result = journal.run(receiver, |changes| {
                if let Some(inner) = inner.upgrade() {
                    confirm(&mut lock(&inner.core), changes);
                }
            });
            if let Err(error) = result {
                failed.send_replace(Some(error.to_string()));
            }
            drop(journal);
            closed.send_replace(true);
        });
        Ok(store)
    }

    fn build(core: Core, clock: Clock, commits: Commits) -> Self {
        let interests = Arc::new(Interests::new(core.revision()));
        let (failed, _) = watch::channel(None);
        let (closed, _) = watch::channel(matches!(commits, Commits::MemoryOnly));
        let inner = Arc::new(Inner {
            core: Mutex::new(core),
            clock,
            journal: Mutex::new(commits),
            closed,
            interests,
            failed,
        });
        tokio::spawn(expire(Arc::downgrade(&inner)));
        Self { inner }
    }

    /// Reads.
    pub fn read<T>(&self, look: impl FnOnce(&Core) -> T) -> T {
        look(&lock(&self.inner.core))
    }

    /// Changes, and waits until the changes are durable. `change` sees the state alone, and either does all it wants
    /// or refuses before it did anything.
    ///
    /// # Errors
    /// [`Update::Refused`] with the error of `change`; [`Update::Disk`].
    pub async fn update<T, E>(
        &self,
        change: impl FnOnce(&mut Core, Instant) -> Result<T, E>,
    ) -> Result<T, Update<E>> {
        let (result, wait) = {
            let mut core = lock(&self.inner.core);
            let result = change(&mut core, self.inner.clock.now());
            (result, self.inner.commit(&mut core))
        };
        let value = result.map_err(Update::Refused)?;
        match wait {
            Ok(None) => Ok(value),
            Ok(Some(durable)) => durable.await.map(|()| value).map_err(|_| Update::Disk),
            Err(Behind) => Err(Update::Disk),
        }
    }

    /// The latest revision.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.read(Core::revision)
    }

    /// Wakes at changes of keys with one of these prefixes, and perhaps at others.
    #[must_use]
    pub fn interest(&self, prefixes: &[String]) -> Interest {
        self.inner.interests.enter(prefixes)
    }

    /// Closes the data file when all is written; later changes fail.
    pub async fn close(&self) {
        {
            let mut journal = self
                .inner
                .journal
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Commits::File(_) = *journal {
                *journal = Commits::Closed;
            }
        }
        let mut closed = self.inner.closed.subscribe();
        // The sender lives as long as we do.
        let _ = closed.wait_for(|closed| *closed).await;
    }

    /// Returns when the data file can no longer be written: why. The process must end, for memory is ahead of disk.
    pub async fn failed(&self) -> String {
        let mut failed = self.inner.failed.subscribe();
        let reason = match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        };
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

impl Inner {
    /// Hands over what must become durable, under the lock, so that the order is kept.
    fn commit(&self, core: &mut Core) -> Result<Option<oneshot::Receiver<()>>, Behind> {
        self.interests.tell(core);
        let changes = core.take_changes();
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let commits = match &*journal {
            Commits::MemoryOnly => {
                confirm(core, &changes);
                return Ok(None);
            }
            _ if changes.is_empty() => return Ok(None),
            Commits::File(commits) => commits,
            Commits::Closed => return Err(Behind),
        };
        let (done, wait) = oneshot::channel();
        match commits.try_send(Commit {
            changes,
            done: Some(done),
        }) {
            Ok(()) => Ok(Some(wait)),
            Err(_) => {
                // Memory is ahead of the disk and cannot be taken back.
                let reason = "the disk is more than 4096 commits behind, or has failed";
                self.failed.send_if_modified(|failed| {
                    failed.is_none() && failed.replace(reason.to_owned()).is_none()
                });
                Err(Behind)
            }
        }
    }
}

/// Without a file, revisions begin at a number that a later start exceeds unless there are a million changes a second.
fn in_memory(limits: Limits, now: UnixTime) -> Core {
    let mut core = Core::new(limits, Revision(now.0 << 20));
    let changes = core.take_changes();
    confirm(&mut core, &changes);
    core
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends leases and mail within 200 ms of their time, as long as the store is used.
async fn expire(inner: Weak<Inner>) {
    let mut ticks = tokio::time::interval(EXPIRY_PERIOD);
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let mut core = lock(&inner.core);
        core.handle_timeout(inner.clock.now());
        // Nobody waits for these to be durable, and a failure is told through `failed`.
        let _ = inner.commit(&mut core);
    }
}
