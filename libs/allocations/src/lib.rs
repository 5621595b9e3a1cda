//! Allocations on relays, as parts of an event loop: the sockets and streams, and the minds that say what goes over
//! them. What every service that is a TURN client shares.
//!
//! The journey: [`AccessFetcher`] gets a relay's addresses and a credential; [`Allocations::start`] opens the preferred
//! way (`carrier.rs`) and begins to allocate (`turn_client::Allocation`). [`Allocations::receive`] takes what the poller found
//! ready through the mind to the caller, [`Allocations::send`] the other way. A `turn_client::Ladder` per relay says when to try
//! TCP and TLS, and when to go back to UDP (`relay.rs`).
//!
//! Invariants: nothing waits for the kernel or for a relay; per packet nothing is allocated, and no lock is taken;
//! what waits for a relay is bounded, and beyond it whole messages are dropped and counted.

#![forbid(unsafe_code)]

mod access;
mod allocations;
mod carrier;
mod relay;
mod trust;

pub use access::{AccessFetcher, AccessResult};
pub use allocations::{AllocationEvent, Allocations};
pub use relay::RelayStats;
pub use trust::{TRUST_REMEDY, TrustError, relay_trust};
