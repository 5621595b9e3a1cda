//! The activator's mind: what to reserve on relays, what to register, which offers to answer, and how packets are
//! rewritten between links and services. No socket, no clock, no random source.
//!
//! The journey of a link: [`Input::View`] makes [`Reservations`](turn_client::Reservations) hold an allocation on every relay → the relayed
//! addresses are announced by [`registration`] → an offer is judged by [`answer`] against [`policy`] and enters
//! [`links`] → its bindings, those of names below a [`wildcard`] once [`names`] knows what they are, enter [`forward::nat`] → [`Output::Answer`]. The journey of a packet:
//! [`forward::Forwarder::to_service`] and back [`forward::Forwarder::to_link`], in place.
//!
//! Invariants: every table that other nodes fill is bounded ([`turn_client::MAX_RESERVATIONS`],
//! [`answer::MAX_BINDINGS`], [`names::MAX_NAMES`], [`links::LinkLimits`], [`forward::pool::MAX_CLIENTS`]); a packet leaves only with the
//! addresses of the binding it came by; a packet is forwarded or its drop is counted with a reason.
//!
//! Allocations and links themselves are `turn_client`'s and `link`'s; the shell drives them beside this crate.
//!
//! Not done: relays over TCP or TLS; health of a service's addresses; per-service limits.
#![forbid(unsafe_code)]

pub mod input;
pub mod output;
pub mod gateway;
pub mod registration;
pub mod policy;
pub mod who;
pub mod wildcard;
pub mod answer;
pub mod names;
pub mod links;
pub mod forward;
pub mod stats;

pub use forward::Forwarder;
pub use gateway::{Gateway, GatewayConfig};
pub use input::Input;
pub use links::{LinkKey, LinkLimits};
pub use output::Output;
