//! Restart in place: a successor, started by this process, gets its sockets and its state, and goes on where it stopped.
//!
//! 1. SIGUSR2: the program is started again, by the name and with the flags it was started with, so that a new binary and
//!    a new configuration take effect. One end of a socket pair is its standard input.
//! 2. The successor reads its configuration and says that it is ready. Until then nothing has changed here.
//! 3. The event loops stop between two turns and write down what they know ([`format`]). It goes over in a sealed piece of
//!    memory, and the sockets with it: listeners, relayed addresses, connections of TCP, the admin port. What arrives
//!    meanwhile waits in the sockets, which are the same for both: nothing is lost.
//! 4. The successor takes it, runs, and says so. Then this process ends. If it does not, or not in time, it is killed, and
//!    the event loops here go on as if nothing had been.
//!
//! Nothing of it touches a disk, or can be reached by others than the two: there is no path, only inherited descriptors.
//! TLS sessions cannot move: their connections end, with their allocations, and their clients come again.

pub(crate) mod foreign;
mod format;
mod give;
mod passing;
mod take;

pub(crate) use format::{ConnectionState, ShardState};
pub(crate) use give::{Estate, Frozen, Then};
pub(crate) use take::{Inheritance, InheritedListeners, InheritedShard, Predecessor};

/// Set for a successor: its standard input leads to its predecessor.
const VARIABLE: &str = "TURN_RELAY_SUCCESSOR";
/// Of the format. Fields can be added without another number; a successor reads no higher one.
/// 2: allocations may be of realms, which an earlier one would take for the first.
const VERSION: u32 = 2;
/// What a successor says when it is ready for the state, before the version that it reads.
const READY: &[u8] = b"ready ";
/// What it says when it runs.
const TOOK: &[u8] = b"took";
