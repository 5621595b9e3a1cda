//! Stopping without loss: those at work are told, finish, and are waited for, but not forever.

use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// A trigger to start draining, and a watcher to give (cloned) to everyone who has work to finish.
pub fn channel() -> (Trigger, Watcher) {
    let (start, started) = watch::channel(false);
    let (working, idle) = mpsc::channel(1);
    (
        Trigger { start, idle },
        Watcher {
            started,
            _working: working,
        },
    )
}

/// Starts the drain.
#[derive(Debug)]
pub struct Trigger {
    start: watch::Sender<bool>,
    idle: mpsc::Receiver<()>,
}

impl Trigger {
    /// Tells all watchers, then waits until each is dropped, at most `limit`. Whether all were.
    pub async fn drain(mut self, limit: Duration) -> bool {
        self.start.send_replace(true);
        tokio::time::timeout(limit, self.idle.recv()).await.is_ok()
    }
}

/// Held while there is work to finish; dropped when there is none.
#[derive(Clone, Debug)]
pub struct Watcher {
    started: watch::Receiver<bool>,
    _working: mpsc::Sender<()>,
}

impl Watcher {
    /// Returns when the drain starts (or its trigger is gone). Can be called again.
    pub async fn started(&mut self) {
        let _ = self.started.wait_for(|started| *started).await;
    }

    pub fn is_started(&self) -> bool {
        *self.started.borrow()
    }
}
