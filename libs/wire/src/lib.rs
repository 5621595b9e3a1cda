//! Words on the wire: byte layouts, and nothing that decides.
//!
//! In the order a packet meets them: [`classify`] tells protocols on one port apart, [`stun`] and [`channel_data`] are
//! what a TURN server and its clients speak, [`stream`] finds them in a byte stream, [`frame`] is a message of a link's
//! `ip` channel, [`ip`] views and rewrites the packet inside.
//!
//! Invariants: reading borrows and never copies, never panics whatever the bytes are, and never logs.

#![forbid(unsafe_code)]

pub mod channel_data;
mod classify;
pub mod frame;
pub mod ip;
pub mod stream;
pub mod stun;

pub use classify::{Class, classify};
