//! What the benchmarks against rivals have in common: rounds in turns, and the build that is measured.
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::build;

/// How often, and with which binaries.
#[derive(Debug, Args)]
pub(super) struct Rounds {
    /// Rounds; each measures everyone once, in turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// One round with short runs: to see that it works, not to be believed
    #[arg(long)]
    pub(super) quick: bool,
    /// Cargo profile of what is measured; `release` builds faster and runs slower
    #[arg(long, default_value = "dist")]
    pub(super) profile: String,
    /// Use the binaries of the last build
    #[arg(long)]
    no_build: bool,
}

impl Rounds {
    pub(super) const fn count(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    /// What may be published.
    pub(super) fn are_whole(&self) -> bool {
        self.count() >= 5 && self.profile == "dist"
    }

    /// Builds the binaries of these packages, where that is wanted; their directory.
    pub(super) fn binaries(&self, packages: &[&str]) -> Result<PathBuf> {
        if self.no_build {
            build::directory_of(&self.profile)
        } else {
            build::binaries(&self.profile, packages)
        }
    }
}
