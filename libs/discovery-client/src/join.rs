//! Stub.

use std::sync::Arc;

use crate::{IdentityHandle, JoinError, Settings};

/// Loads the node's identity, or enrolls it with the join token.
///
/// # Errors
/// See [`JoinError`]: one line each.
pub async fn join(_settings: &Settings) -> Result<Arc<IdentityHandle>, JoinError> {
    Err(JoinError::NoToken)
}
