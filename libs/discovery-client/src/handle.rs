//! The node's identity, which is replaced when it is renewed.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use identity::{NodeIdentity, StateError};

/// The current identity of this node and where it is kept.
#[derive(Debug)]
pub struct IdentityHandle {
    current: ArcSwap<NodeIdentity>,
    state_directory: PathBuf,
}

impl IdentityHandle {
    /// An identity that is kept in this directory already.
    #[must_use]
    pub fn new(identity: NodeIdentity, state_directory: &Path) -> Self {
        Self {
            current: ArcSwap::from_pointee(identity),
            state_directory: state_directory.into(),
        }
    }

    /// The identity as of now; ask again rather than keep it, for it is renewed.
    #[must_use]
    pub fn current(&self) -> Arc<NodeIdentity> {
        self.current.load_full()
    }

    /// Keeps a renewed identity, on disk first.
    pub(crate) fn replace(&self, identity: NodeIdentity) -> Result<(), StateError> {
        identity.save(&self.state_directory)?;
        self.current.store(Arc::new(identity));
        Ok(())
    }
}
