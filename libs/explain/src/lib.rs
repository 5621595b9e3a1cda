//! From facts about a name to what is wrong and what to do.
//!
//! [`Facts`] are gathered by others: a sidecar says what it knows ([`Sidecar`]), `turnpike explain` adds what it found
//! on this machine. [`judge`] decides; it sees nothing but the facts. [`text`] writes it down for people.

#![forbid(unsafe_code)]

pub mod facts;
mod path;
mod text;
mod verdict;

pub use facts::{Facts, Sidecar};
pub use text::text;
pub use verdict::{Code, Finding, Verdict, judge};
