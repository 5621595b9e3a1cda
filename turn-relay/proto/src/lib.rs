//! The mind of a TURN server: it decides about every datagram, and sees no socket, clock or random source.
//!
//! The journey of a datagram: [`Server::handle_client_burst`] tells ChannelData from STUN; ChannelData and Send
//! indications take the packet path (`relay`), requests are authenticated (`auth`) and go to their method's module
//! (`request/…`), which changes an `allocation` and answers. What comes from a peer enters by
//! [`Server::handle_peer_burst`]. The answer to all of them is a [`Verdict`] that borrows the payload, or an
//! [`Output`]; it holds for as many equal datagrams as it says, so that a run of them is decided about once. Who may be reached is
//! decided in [`PeerPolicy`], who may ask in [`Credentials`]; each [`Realm`] has its own of both.
//!
//! Invariants: the packet path allocates nothing; for whoever has not proved to hold a credential nothing is stored, and
//! the answer is at most [`max_unauthenticated_answer`] bytes, and over UDP small and rare ([`AnswerLimits`]); every map and list has a bound; every datagram that is
//! not relayed or answered is counted with a [`DropReason`].
//!
//! Done: [RFC 8489](https://www.rfc-editor.org/rfc/rfc8489) Binding and long-term credentials with MD5 and SHA-256,
//! MESSAGE-INTEGRITY-SHA256, USERHASH of static users, ALTERNATE-SERVER; [RFC 5780](https://www.rfc-editor.org/rfc/rfc5780) where it is configured; [RFC 8656](https://www.rfc-editor.org/rfc/rfc8656) with UDP, TCP,
//! TLS or DTLS to the client ([`Transport`]), UDP to peers, both families, EVEN-PORT and RESERVATION-TOKEN, DONT-FRAGMENT, ICMP in
//! Data indications; mobility ([RFC 8016](https://www.rfc-editor.org/rfc/rfc8016)) where it is allowed; expiring credentials
//! ([draft-uberti-behave-turn-rest-00](https://datatracker.ietf.org/doc/html/draft-uberti-behave-turn-rest-00)).
//! TCP to peers ([RFC 6062](https://www.rfc-editor.org/rfc/rfc6062)).
//! DTLS itself is the shell's, as TLS is.

#![forbid(unsafe_code)]

mod input;
mod transport;
mod server;
mod relay;
mod short_cut;
mod icmp;
mod peer_connection;
mod mobility;
mod request;
mod auth;
mod lookup;
mod peer_policy;
mod reload;
mod allocation;
mod shared;
mod account;
mod authorize;
mod realm;
mod gate;
mod metering;
mod random;
mod timer;
mod config;
mod handover;
mod usage;
mod stats;
mod output;

pub use account::{MOST_NEW_PEERS, RelayLimits, UsageLimits};
pub use auth::{
    CredentialChanges, Credentials, HashedPassword, MAX_USER, Revocations, TokenKey, rest_password,
    rest_password_sha256,
};
pub use config::{
    Alternate, AlternateTransport, Extensions, Limits, NatDiscovery, RelayAddress, ServerConfig,
};
pub use gate::{AnswerLimits, source_prefix};
pub use handover::{Adopted, Exported, ImportError, Imported};
pub use icmp::Icmp;
pub use input::{AllocationId, Burst, Family, FiveTuple, Now, OpenError, Payloads, RelayId};
pub use lookup::{LookedUp, LookupLimits};
pub use mobility::ShardMessage;
pub use output::{DropReason, Output, Prefix, Verdict};
pub use peer_connection::{JoinedMeter, PeerConnectionId};
pub use peer_policy::{Denied, PeerPolicy, PeerRule, PeerRules, RuleError};
pub use realm::{Entrance, Realm, RealmUser, Realms};
pub use reload::Replaced;
pub use server::Server;
pub use shared::{RealmHolds, Shared};
pub use stats::{Direction, ERROR_CODES, Stats, Traffic};
pub use transport::{ConnectionId, Transport};
pub use usage::{EndReason, Ended, Usage, UserUsage};

/// The size of the largest answer to a request without valid credentials, for a realm of so many bytes: a 401 or 438
/// (header 20, ERROR-CODE 20, REALM, NONCE 44, PASSWORD-ALGORITHMS 12, FINGERPRINT 8), or a 420 to a Binding request
/// that is at least as large itself.
pub fn max_unauthenticated_answer(realm_len: usize) -> usize {
    20 + 20 + 4 + realm_len.next_multiple_of(4) + 44 + 12 + 8
}
