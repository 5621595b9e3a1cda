//! The binaries that the lab and the benchmarks run.
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use lab::LabOptions;

use crate::workspace::{cargo, target_directory};
use crate::{packages, shell};

/// Every package that has a binary the lab runs.
pub(crate) const FOR_LAB: [&str; 8] = [
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
    binaries("release", &FOR_LAB)
}

/// Those of some packages, with one of the workspace's profiles.
pub(crate) fn binaries(profile: &str, packages: &[&str]) -> Result<PathBuf> {
    shell::heading(&format!("Building {profile} binaries"));
    let mut command = cargo();
    command.args(["build", "--profile", profile, "--locked", "--bins"]);
    for package in packages {
        command.args(["--package", package]);
    }
    shell::run(&mut command)?;
    directory_of(profile)
}

/// Where the binaries of a profile are.
pub(crate) fn directory_of(profile: &str) -> Result<PathBuf> {
    Ok(target_directory()?.join(profile))
}

/// Which binaries a lab runs.
#[derive(Debug, Args)]
pub(crate) struct LabBinaries {
    /// Binaries that are there already, instead of building them
    #[arg(long, value_name = "DIR", env = "TURNPIKE_BIN_DIR")]
    bin_dir: Option<PathBuf>,
}

impl LabBinaries {
    /// Whether they are built anew.
    pub(crate) const fn are_ours(&self) -> bool {
        self.bin_dir.is_none()
    }

    /// A lab of that name with them, after everything that it needs was installed and built.
    pub(crate) fn lab(&self, name: &str) -> Result<LabOptions> {
        packages::ensure_installed(&[packages::FOR_LAB])?;
        let binaries = match &self.bin_dir {
            Some(directory) => directory.clone(),
            None => release_binaries()?,
        };
        Ok(LabOptions {
            binaries,
            ..LabOptions::new(name)
        })
    }
}
