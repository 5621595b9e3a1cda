//! A standing TURN allocation, without I/O ([RFC 8656](https://www.rfc-editor.org/rfc/rfc8656)): the client's side
//! of everything between one socket and one relay.
//!
//! It allocates, for one or both address families, and goes on trying until it succeeds; keeps the allocation and
//! the NAT's binding alive; notices within about four seconds that the relay is gone, and at once that the relay
//! forgot it (437); installs and refreshes permissions and channels for the peers it is told of; and frames data
//! to and from them. The shell moves datagrams, or the bytes of a stream, and passes the time in.
//!
//! Where a relay can be reached in several ways, a [`Ladder`] says which to try and which to use, and the allocation
//! moves there ([`Allocation::move_to`]).
//!
//! On which relays there shall be one, and with which credential, is the business of [`Reservations`].
//!
//! The journey: [`Allocation::handle_datagram`] tells ChannelData (`peers.rs` knows the channel; the payload is
//! lent, not copied) from STUN, whose answers go by transaction (`transaction.rs`) through authentication
//! (`credential.rs`) to what the request was for (`allocation/answers.rs`). After every `handle_*`, `permit` and
//! `set_credential`: [`Allocation::poll_transmit`] and [`Allocation::poll_event`] until `None`, then
//! [`Allocation::poll_timeout`].
//!
//! Invariants: nothing is allocated or copied for a packet from a peer, nor for one to a peer but into the
//! caller's buffer; a new allocation never inherits what an old one had; at most 4 096 peers and a bounded
//! number of transactions; nothing to a peer waits.
//!
//! Done: RFC 8489 (retransmission, long-term credentials with MD5 and SHA-256 password algorithms, both integrity
//! attributes), RFC 8656 over UDP and over streams (TCP, TLS) with ADDITIONAL-ADDRESS-FAMILY, RFC 8016. Not done: RFC 6062,
//! ALTERNATE-SERVER (reported as a refusal), EVEN-PORT, DONT-FRAGMENT, USERHASH.
//!
//! Written on `stun-types` and `turn-types` and not on `turn-client-proto`, because that has its transaction IDs
//! from the system's randomness, takes its credentials once for ever, never forgets a peer, and does not notice a
//! relay that is silent or was restarted.

#![forbid(unsafe_code)]

mod allocation;
mod credential;
mod input;
mod ladder;
mod output;
mod peers;
mod random;
mod reservations;
mod stats;
mod timer;
mod transaction;

pub use allocation::Allocation;
pub use allocation::Moving;
pub use input::{AllocationConfig, Credential, Families};
pub use ladder::{Ladder, Rung, Step};
pub use output::{DropReason, Event, LostReason, Received, State};
pub use peers::MAX_PEERS;
pub use reservations::{
    Foothold, MAX_RESERVATIONS, MAX_TROUBLES, ReservationStatus, Reservations, Reserve,
};
pub use stats::Stats;
