//! What is searched for input that breaks turn-relay. Each target is a function of some bytes that panics when a promise is
//! broken; `cargo xtask fuzz` searches for such bytes with libFuzzer, and `cargo test` goes through those that are kept in
//! `corpus/`.

#![forbid(unsafe_code)]

mod config;
mod core;
mod credentials;
mod opening;
mod state;
mod stream;
mod stun;

/// A target, by the name of its directory in `corpus/`.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("stun", stun::run),
    ("stream", stream::run),
    ("opening", opening::run),
    ("credentials", credentials::run),
    ("core", core::run),
    ("state", state::run),
    ("config", config::run),
];

/// The target of this name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, run)| *run)
}
