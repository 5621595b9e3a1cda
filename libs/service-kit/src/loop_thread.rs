//! The event loop of a service that carries packets.

use std::io;

use tokio::sync::oneshot;

/// Runs a loop that blocks on a thread of its own, named `name`, until it ends: what its sockets report wakes it without
/// a runtime in between, and the tasks of the rest of the service run beside it.
///
/// # Errors
/// When there is no thread, or it panicked.
pub async fn on_own_thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let result = run();
            // Nobody waits any more: the service is ending.
            let _ = ended.send(result);
        })?;
    end.await
        .map_err(|_| io::Error::other(format!("the thread `{name}` panicked")))
}
