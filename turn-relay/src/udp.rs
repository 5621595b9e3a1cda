//! UDP sockets in batches: many datagrams per system call, equal ones joined by the kernel on their way in (GRO) and
//! cut apart by it on their way out (GSO). The only part of the service that calls the C library itself.

mod recv;
mod send;
mod sendmmsg;
mod socket;

pub(crate) use recv::{Received, RecvBatch};
pub(crate) use send::{Outgoing, SendPlan, Unsent};
pub(crate) use socket::{SocketOptions, bind};
