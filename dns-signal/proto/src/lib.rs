//! The thinking of dns-signal: which names are the mesh's, which address a service has here, which link a packet takes.
//! No sockets, no clock, no randomness: all of it is passed in.
//!
//! A query's journey: [`query`] reads it, [`alias`] and [`intercept`] decide, [`virtual_ip`] assigns, [`answer`] writes. What is not
//! ours never gets further than the decision: it is forwarded as it came, unless [`cache`] has its answer.
//!
//! Names below a wildcard exist until their activator says that they do not: [`absent`].
//!
//! Invariants: a virtual IP stands for one service, for good, or is lent to a name below a wildcard; an answer never waits
//! for a link; a query's bytes are never changed on the way to an upstream, but for its id, and for padding where the
//! connection is encrypted.
//!
//! Done: RFC 1035 queries, RFC 2308 negative answers, RFC 6891 EDNS, RFC 7830 and RFC 8467 padding, RFC 8020 (nothing below
//! NXDOMAIN); in the service RFC 7766 over TCP, RFC 7858 and RFC 8484 towards upstreams. Not done: RFC 7873 cookies, RFC 8914 extended errors; DNSSEC for our own zone makes no sense
//! between a workload and its own sidecar.

#![forbid(unsafe_code)]

pub mod query;
pub mod service;
pub mod services;
pub mod alias;
pub mod intercept;
pub mod virtual_ip;
pub mod absent;
pub mod answer;
pub mod repeated;
pub mod cache;
pub mod padding;
pub mod stats;

pub mod agent;
