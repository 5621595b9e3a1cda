//! Least privilege: a service keeps the capabilities it needs and can never get others.

use caps::{CapSet, CapsHashSet};
use std::collections::HashSet;
use thiserror::Error;

pub use caps::Capability;

/// The kernel refused to give up privileges.
#[derive(Debug, Error)]
pub enum CapabilityError {
    #[error("cannot restrict capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    #[error("cannot set no_new_privs: {0}")]
    NoNewPrivileges(#[from] nix::Error),
}

/// Keeps at most `keep` of the capabilities the process has (it need not have them) and sets `no_new_privs`, so that a
/// program it starts cannot get more ([capabilities(7)](https://man7.org/linux/man-pages/man7/capabilities.7.html)).
///
/// Both belong to the calling thread and are inherited by those it starts: call it in `fn main`, before any runtime.
/// Without `CAP_DAC_OVERRIDE` root, too, can no longer read other users' 0600 files.
///
/// # Errors
/// When the kernel refuses; the process then still has what it had.
pub fn drop_capabilities(keep: &[Capability]) -> Result<(), CapabilityError> {
    let keep: CapsHashSet = keep.iter().copied().collect::<HashSet<_>>();
    let permitted = caps::read(None, CapSet::Permitted)?;
    // The bounding set can be lowered only with CAP_SETPCAP, and without it is of no use: no_new_privs holds.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding)?.difference(&keep) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        let had = caps::read(None, set)?;
        caps::set(None, set, &had.intersection(&keep).copied().collect())?;
    }
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}
