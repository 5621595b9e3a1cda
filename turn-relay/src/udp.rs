//! UDP sockets in batches: many datagrams per system call, equal ones joined by the kernel on their way in (GRO) and
//! cut apart by it on their way out (GSO), as far as the [`ladder`] goes. The only part of the service that calls the C
//! library itself.

mod control;
mod errors;
mod ladder;
mod recv;
mod send;
mod sendmmsg;
mod socket;
mod uring;

pub(crate) use errors::{QueuedError, Taken as TakenError, take_error};
pub(crate) use ladder::Io;
pub(crate) use recv::{Received, RecvBatch, Taken};
pub(crate) use send::{Outgoing, SendPlan, Unsent};
pub(crate) use socket::{SocketOptions, bind};
