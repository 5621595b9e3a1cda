//! The event loop of a service that carries packets.

use std::{future::Future, io};

use tokio::{
    runtime::{Builder, EnterGuard, Runtime},
    sync::oneshot,
};

/// A thread of its own with a runtime of its own: what its sockets report wakes it without a detour, and the tasks of
/// the rest of the service run beside it.
#[derive(Debug)]
pub struct LoopThread {
    runtime: Runtime,
}

impl LoopThread {
    /// Prepares it.
    ///
    /// # Errors
    /// When the system has no descriptor left for it.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime })
    }

    /// What is opened while this is held reports to the thread.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Runs the loop that `start` makes, on the thread, until it ends.
    ///
    /// # Errors
    /// When there is no thread, or it panicked.
    pub async fn run<F, T>(
        self,
        name: &str,
        start: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<T>
    where
        F: Future<Output = T>,
        T: Send + 'static,
    {
        let (ended, end) = oneshot::channel();
        let runtime = self.runtime;
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let result = runtime.block_on(start());
                // Nobody waits any more: the service is ending.
                let _ = ended.send(result);
            })?;
        end.await
            .map_err(|_| io::Error::other(format!("the thread `{name}` panicked")))
    }
}
