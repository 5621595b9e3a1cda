//! The release binaries.
use std::path::PathBuf;

use anyhow::Result;

use crate::shell;
use crate::workspace::{cargo, target_directory};

/// Every package that has a binary the lab runs.
const PACKAGES: [&str; 8] = [
    "discovery",
    "turn-relay",
    "activator",
    "dns-signal",
    "turnpike",
    "turnpike-lab",
    "turnpike-delay-box",
    "link-load",
];

/// Builds them, with cargo's own progress shown, and says where they are.
pub(crate) fn release_binaries() -> Result<PathBuf> {
    binaries("release")
}

/// The same with another of the workspace's profiles.
pub(crate) fn binaries(profile: &str) -> Result<PathBuf> {
    shell::heading(&format!("Building {profile} binaries"));
    let mut command = cargo();
    command.args(["build", "--profile", profile, "--locked", "--bins"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    shell::run(&mut command)?;
    directory_of(profile)
}

/// Where the binaries of a profile are.
pub(crate) fn directory_of(profile: &str) -> Result<PathBuf> {
    Ok(target_directory()?.join(profile))
}
