//! IP packets as the tunnel sees them: reading them where they lie, giving them other addresses, answering
//! for what cannot be delivered.
//!
//! [`Packet::parse`] looks once and remembers where things are. [`rewrite`] changes addresses and every
//! checksum that covers them, incrementally ([RFC 1624](https://www.rfc-editor.org/rfc/rfc1624)): the cost
//! does not depend on the length. [`answer`] builds what a host or router would say of a packet it cannot
//! pass on. [`segment`] cuts a packet for a device without offload. [`Cutter`] and [`Join`] cut a packet into pieces that
//! can be sent alone, and make it one again. Input may be hostile everywhere.

mod checksum;
mod layout;
mod packet;
mod rewrite;

mod cut;
mod ecn;
mod join;

pub mod answer;
pub mod mss;
pub mod segment;

pub use checksum::{Checksum, complete_partial};
pub use cut::{Cutter, MAX_HEADERS_LEN};
pub use ecn::{Ecn, mark_congestion};
pub use join::Join;
pub use layout::{Fragment, Layout, PacketError, Protocol, Version};
pub use mss::clamp_mss;
pub use packet::{Embedded, Packet};
pub use rewrite::{Rewrite, RewriteError, rewrite, rewrite_at};

/// The longest packet that the tunnel carries: what a 16-bit total length can say.
pub const MAX_PACKET_LEN: usize = 65_535;
