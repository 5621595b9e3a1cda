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
    /// Until it runs.
    runtime: Option<Runtime>,
}

impl LoopThread {
    /// Prepares it.
    ///
    /// # Errors
    /// When the system has no descriptor left for it.
    pub fn new() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        Ok(Self {
            runtime: Some(runtime),
        })
    }

    /// What is opened while this is held reports to the thread.
    pub fn enter(&self) -> Option<EnterGuard<'_>> {
        self.runtime.as_ref().map(Runtime::enter)
    }

    /// Runs the loop that `start` makes, on the thread, until it ends.
    ///
    /// # Errors
    /// When there is no thread, or it panicked.
    pub async fn run<F, T>(
        mut self,
        name: &str,
        start: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<T>
    where
        F: Future<Output = T>,
        T: Send + 'static,
    {
        let (ended, end) = oneshot::channel();
        let runtime = self.runtime.take();
        let runtime = runtime.ok_or_else(|| io::Error::other("there is no runtime"))?;
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

impl Drop for LoopThread {
    /// A service that fails before it runs drops this among its tasks, where a runtime may not be waited for.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_fails_before_its_loop_runs_ends_without_a_panic() {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { drop(LoopThread::new().unwrap()) });
    }
}
