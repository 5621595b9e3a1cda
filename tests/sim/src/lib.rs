//! The simulated world: every mind of Turnpike together, in virtual time, over a network that can be as bad as a test
//! wants it. No socket, no clock; what goes wrong is drawn from a seed.
//!
//! ```text
//!  workload ── sidecar ── west, 10.0.0.0/24 ── relay ── public ── NAT ── activator ── services, 10.0.0.0/24 again
//!     │        (agent)                       (server)         (symmetric)  (gateway, allocation, links)       │
//!     └──────────────── signaling: views of the directory, and mailboxes, with a delay ──────────┘   reference model
//! ```
//!
//! The minds are the real ones; around each stands a small shell that does what the service's event loop does, in the
//! same order. [`World::step`] lets the next thing happen. [`Reference`] knows from what a workload sent, byte by byte,
//! what a service may see and what may come back; it panics when anything else does, or when anything comes twice.
//!
//! That picture has one of everything. A [`Course`] has two relays, two activators and a cable between the networks, UDP
//! that can be blocked, and draws from its seed what breaks and when; `model.rs` says what the workload must see of it.
//!
//! Signatures are left out: what a mailbox delivers is taken as verified. DTLS and ICE draw their keys by themselves, so
//! two runs of a seed differ in ciphertext and in nothing else that is meant to matter.

#![forbid(unsafe_code)]

mod random;
mod timeline;
mod packet;
mod reference;
mod nat;
mod relay;
mod gate;
mod allocation;
mod signaling;
mod world;
mod picture;
mod tables;
mod names;
mod model;
mod course;

pub use course::{Course, seeds};
pub use packet::{Packet, Transport};
pub use picture::{ORDERS, STOCK, Service};
pub use reference::Reference;
pub use relay::Counts;
pub use tables::Tables;
pub use timeline::Conditions;
pub use world::World;
