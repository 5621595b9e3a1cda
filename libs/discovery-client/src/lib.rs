//! A node's hands towards discovery: joining the mesh, the view of the directory, the registration, the mailbox.
//!
//! The journey: [`join`] loads the node's identity or enrolls it with a join token; [`start`] runs a task that
//! connects, lists and watches, and hands over a [`Directory`] to ask and a stream of [`Event`]s. When discovery
//! is away the task keeps trying and the last [`View`] stays.
//!
//! Invariants: discovery is not believed: registrations and mail are in the view and the events only when their
//! signatures are good, each verified once per revision. Every call has a deadline of 3 s. Every queue is bounded.

#![forbid(unsafe_code)]

mod settings;
mod error;
mod view;
mod handle;
mod connection;
mod join;
mod directory;
mod state;
mod publisher;
mod session;
mod inspect;
mod mailer;
mod stun_servers;
mod task;

pub use directory::{Directory, TurnCredential};
pub use error::{DirectoryError, JoinError};
pub use handle::IdentityHandle;
pub use inspect::{Operator, Snapshot};
pub use join::{is_enrolled, join, join_patiently, token_file};
pub use mailer::Mailer;
pub use settings::Settings;
pub use stun_servers::StunServers;
pub use task::start;
pub use view::{Event, VerifiedRegistration, View};
