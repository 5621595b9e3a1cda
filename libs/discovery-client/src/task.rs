//! Stub.

use std::{future::Future, sync::Arc};

use tokio::sync::mpsc;

use crate::{Directory, Event, IdentityHandle, Settings};

/// Starts the task that keeps the view, the registration, the mailbox and the certificate; it ends when
/// `shutdown` does, or with [`Directory::shutdown`]. Must be called within a tokio runtime.
pub fn start(
    _settings: Settings,
    _identity: Arc<IdentityHandle>,
    _shutdown: impl Future<Output = ()> + Send + 'static,
) -> (Directory, mpsc::Receiver<Event>) {
    unimplemented!()
}
