//! One link: a WebRTC session between a dns-signal (the offerer) and an activator (the answerer).
//!
//! The journey of a datagram, inward: [`Link::handle_datagrams`] reads its first byte (RFC 7983). STUN goes to
//! [`ice`], DTLS to [`dtls`], what DTLS opens goes to [`channels`] (SCTP and the two data channels), the rest to
//! [`lane`]; it comes out as [`LinkEvent::Frame`] or [`LinkEvent::Control`]. Outward: [`Link::send_frame`] → lane, or
//! channels → DTLS → the nominated pair → [`Link::poll_transmit`].
//!
//! **The drain law.** After every `handle_*`, `send_*`, `set_*` or `close` call [`Link::poll_event`] and
//! [`Link::poll_transmit`] until they give `None`, then ask [`Link::poll_timeout`] when to wake.
//!
//! Invariants: DTLS completes only with the certificate whose fingerprint the signed description named; no frame
//! leaves before that; what waits to be sent is bounded by [`LinkConfig::send_limit`]; time is always passed in.
//!
//! Done: RFC 8445 (full agent, one component, nominated once), reflexive candidates ([`Reflexive`]), RFC 7675 consent, RFC 6347 DTLS 1.2, RFC 8261
//! SCTP over DTLS, RFC 8831/8832 data channels. Not done: ICE restart, change of the nominated pair, DTLS 1.3.
//! Composed of the sans-IO crates of the `rtc` family; these draw keys and transaction ids from the operating
//! system by themselves, the one exception to "no randomness" here.
#![forbid(unsafe_code)]

mod config;
mod output;
mod certificate;
mod candidate;
mod stun;
mod reflexive;
mod ice;
mod dtls;
mod channels;
mod mtu;
mod lane;
mod stats;
mod link;
mod table;

pub use candidate::{CandidateKind, LocalCandidate};
pub use certificate::DtlsCertificate;
pub use config::{LinkConfig, LinkRole, MAX_DATAGRAM, PathChoice};
pub use link::Link;
pub use output::{
    Carrier, CloseReason, LinkError, LinkEvent, PairOutcome, PairStatus, Path, SendRefused, Step,
    Transmit,
};
pub use reflexive::Reflexive;
pub use stats::{LaneStats, LinkStats};
pub use table::LinkTable;
