//! The release binaries.
use std::path::PathBuf;

use anyhow::Result;

use crate::shell;
use crate::workspace::{cargo, release_directory};

/// Every package that has a binary the lab runs.
const PACKAGES: [&str; 6] = [
    "discovery",
    "turn-relay",
    "activator",
    "dns-signal",
    "turnpike",
    "turnpike-lab",
];

/// Builds them, with cargo's own progress shown, and says where they are.
pub(crate) fn release_binaries() -> Result<PathBuf> {
    shell::heading("Building release binaries");
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "--bins"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    shell::run(&mut command)?;
    release_directory()
}
