//! What the system promises, as tests that read like a specification, against the real binaries in a lab.
//!
//! Every file under `tests/` is one chapter. They need root, the tools of the lab, and release binaries, whose
//! directory `TURNPIKE_BIN_DIR` names; `cargo xtask test` sees to all of it. A test without them fails; none skips.
//! Each test has a lab of its own, so none depends on what another left behind.
#![forbid(unsafe_code)]

use std::env;
use std::path::PathBuf;

use lab::{LabOptions, ScopedLab};

/// Options for a lab with the release binaries.
#[must_use]
pub fn options(name: &str) -> LabOptions {
    let binaries = env::var_os("TURNPIKE_BIN_DIR").map(PathBuf::from);
    let binaries = binaries.expect(
        "TURNPIKE_BIN_DIR must name the directory of the release binaries: `cargo xtask test` sets it",
    );
    LabOptions {
        binaries,
        ..LabOptions::new(name)
    }
}

/// The whole picture, working.
#[must_use]
pub fn lab(name: &str) -> ScopedLab {
    ScopedLab::up(&options(name)).expect("the lab comes up")
}

/// Only the networks and the example services.
#[must_use]
pub fn bare_lab(name: &str) -> ScopedLab {
    let options = LabOptions {
        mesh: false,
        ..options(name)
    };
    ScopedLab::up(&options).expect("the lab comes up")
}
