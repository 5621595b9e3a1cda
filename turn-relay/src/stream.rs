//! Clients over TCP, TLS and DTLS.
//!
//! The way of a byte: `accept` takes a connection from its [`StreamListener`] if `admission` has room for a stranger;
//! `connection` reads it into a [`StreamBuffer`], through its `tls` session if it has one, where
//! [`wire::stream::Frames`] finds the frames, which are handled as datagrams are. What goes to clients is gathered in
//! a [`StreamOut`], and leaves with one `writev`, or in TLS records of one frame or of many; what the kernel
//! does not take waits in the connection's `queue`. [`Streams`] holds them all together. A connection that carries a
//! peer's TCP connection (RFC 6062) leaves the others, for a `splice`.
//!
//! Clients over `dtls` have no socket of their own: their sessions, and what is theirs alone, are beside the connections.
//!
//! Behind a load balancer that is named in the configuration, each connection begins with a `proxy_header`.
//!
//! Bounds: connections, strangers (connections without an allocation), strangers of one source prefix, the time that a
//! handshake and a stranger may take, the length of a stranger's frame, the bytes that wait for a slow reader. What does
//! not fit is a whole frame that is dropped and counted, or a connection that is closed and counted; nobody waits.
//!
//! Done: RFC 8656 over TCP, over TLS 1.2 and 1.3 and over DTLS 1.2 to the client, ALPN of RFC 7443, certificates that are read again.
//! Not done: client certificates, early data, TLS in the kernel.

mod accept;
mod admission;
mod connection;
mod dtls;
pub(crate) mod foreign;
mod handover;
mod outgoing;
mod proxies;
mod proxy_header;
mod queue;
mod room;
mod splice;
mod splices;
mod stats;
mod streams;
mod tls;

pub(crate) use accept::{StreamKind, StreamListener, bind};
pub(crate) use admission::StreamLimits;
pub(crate) use connection::StreamBuffer;
pub(crate) use dtls::DtlsSetup;
pub(crate) use outgoing::StreamOut;
pub use proxy_header::{Announced, NoHeader, ProxyHeader};
pub(crate) use stats::{CloseReason, DtlsDropReason, OfTransport, RefuseReason, StreamStats};
pub(crate) use streams::{StreamEvent, StreamSetup, Streams};
