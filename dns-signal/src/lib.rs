//! dns-signal: the sidecar of a workload. It answers DNS for names of the mesh with virtual IPs, forwards all other
//! queries unchanged, and carries the traffic to virtual IPs over links to activators.
//!
//! A query's journey: [`interception`] brings it here, [`dns_listener`] receives it, `dns_handler` reads it, [`dns_resolver`] decides, assigns and triggers
//! the link; what is not ours goes through [`upstream`]. The thinking is in `dns-signal-proto`.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config_file;
pub mod config;
pub mod interception;
pub mod dns_listener;
mod dns_handler;
pub mod dns_resolver;
pub mod upstream;
pub mod dns_state;
pub mod dns_metrics;
mod signaling;
mod openings;
mod explain;
mod routes;
mod status;
mod metrics;
mod eventloop;
pub mod app;
