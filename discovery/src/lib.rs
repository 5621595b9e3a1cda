//! The directory server: what nodes know of each other, under one roof, and without being trusted with it.
//!
//! A call's journey: TLS with an optional client certificate → `peer` (who is it, is it valid and not revoked) →
//! `authorize` (may it touch this key) → [`store`] → the answer. Enrolment (`enroll`), signaling mail (`mailbox`),
//! watches (`watch`), TURN credentials (`turn_rest`) and reports for the `console` have a module each; `service`
//! is the switchboard, `calls` what is behind it.
//!
//! Invariants: only `Enroll` works without a client certificate; a node writes nothing but its own registration, its
//! leases and other nodes' mail; every map, queue, message and watch has a bound; what is answered is on disk.

#![forbid(unsafe_code)]

mod config;
mod peer;
mod authorize;
pub mod store;
mod enroll;
mod records;
mod mailbox;
mod mail_traces;
mod watch;
mod turn_rest;
mod reports;
mod calls;
mod refusal;
mod service;
mod metrics;
mod console;
mod parts;
mod incoming;
mod app;

pub use app::{App, TimeSource};
pub use config::{Config, RelayConfig};
