//! Programs that are not ours, against the real binaries.
//!
//! Against [`relay`]: TURN clients, [`coturn`]'s beside its own server. Against an activator in the lab, in the place of a [`workload`]: WebRTC peers, of
//! which each opens a link and moves 100 MB through it ([`echo`]).
//!
//! They need the release binaries, whose directory `TURNPIKE_BIN_DIR` names, Debian's `coturn`, `chromium`, `python3-aioice`
//! and `gir1.2-nice-0.1`, and root for the lab; `cargo xtask test` sees to all of it. A test without them fails; none skips.
#![forbid(unsafe_code)]

pub mod relay;
pub mod coturn;
pub mod python;
pub mod pods;
pub mod workload;
pub mod sdp;
pub mod control;
pub mod echo;

use std::env;
use std::path::PathBuf;

/// Where our programs are.
#[must_use]
pub fn binaries() -> PathBuf {
    let binaries = env::var_os("TURNPIKE_BIN_DIR").map(PathBuf::from);
    binaries.expect(
        "TURNPIKE_BIN_DIR must name the directory of the release binaries: `cargo xtask test` sets it",
    )
}
