//! Programs that are not ours, against the real binaries.
//!
//! They need the release binaries, whose directory `TURNPIKE_BIN_DIR` names, and Debian's `coturn` for its clients;
//! `cargo xtask test` sees to both. A test without them fails; none skips.
#![forbid(unsafe_code)]

pub mod relay;

use std::env;
use std::path::PathBuf;

/// Where one of our programs is.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let binaries = env::var_os("TURNPIKE_BIN_DIR").map(PathBuf::from);
    let binaries = binaries.expect(
        "TURNPIKE_BIN_DIR must name the directory of the release binaries: `cargo xtask test` sets it",
    );
    binaries.join(name)
}
