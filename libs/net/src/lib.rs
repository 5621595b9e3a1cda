//! Hands for the network: batched UDP sockets, connections over TCP and TLS, the addresses of this host, and the one clock.
//!
//! The journey: [`Poller::wait`] wakes a service's loop, [`UdpSocket::try_recv_batch`] hands it every
//! datagram of up to 32 kernel buffers (each of up to 64 KB when the kernel joined equal datagrams, GRO), the
//! loop asks its minds what to do, and a [`SendBatch`] joins what leaves into as few system calls as possible
//! (GSO). A loop that carries bulk takes and gives whole bursts instead ([`UdpSocket::try_recv_bursts`],
//! [`UdpSocket::try_send_parts`]). No state machine lives here, and no byte of a datagram is understood here.
//!
//! Invariants: nothing here allocates per datagram; every queue has a bound; an error that concerns one
//! destination never stops the others; without GSO or GRO in the kernel everything works, only slower.

mod burst;
mod clock;
mod host_sockets;
mod interface;
mod address_changes;
mod parts;
mod poller;
mod recv_batch;
mod send_batch;
mod slices;
mod stream;
mod udp;

pub use address_changes::AddressChanges;
pub use burst::{Burst, BurstBatch};
pub use clock::Clock;
pub use host_sockets::{HostFlush, HostSockets};
pub use interface::{InterfaceAddress, interface_addresses, own_addresses};
pub use poller::Poller;
pub use recv_batch::{Meta, RecvBatch};
pub use send_batch::{Flushed, SendBatch, SendBatchFull};
pub use slices::ask_for_short_slices;
pub use stream::{Stream, TlsTo};
pub use udp::{UdpOptions, UdpSocket};

/// The largest number of datagrams that one GSO send may carry (`UDP_MAX_SEGMENTS` of Linux).
pub const MAX_GSO_SEGMENTS: usize = 64;

/// The largest number of bytes that one GSO send may carry: below 65 535 less the IP and UDP headers.
pub const MAX_GSO_BYTES: usize = 64_000;
