//! Ready when every named task is done.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What a service still waits for before it can do its job: `/readyz` lists it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    unfinished: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Something to wait for, until the guard is done. Dropping the guard without [`Task::done`] leaves the service
    /// unready: the task failed.
    #[must_use]
    pub fn task(&self, name: &str) -> Task {
        *self.lock().entry(name.to_owned()).or_default() += 1;
        Task {
            readiness: self.clone(),
            name: name.to_owned(),
        }
    }

    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    /// The names of what is not done, sorted.
    pub fn unfinished(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thing that a service waits for, see [`Readiness::task`].
#[derive(Debug)]
pub struct Task {
    readiness: Readiness,
    name: String,
}

impl Task {
    pub fn done(self) {
        let mut unfinished = self.readiness.lock();
        if let Some(count) = unfinished.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                unfinished.remove(&self.name);
            }
        }
    }
}
