//! What every Turnpike service does around its work, so that all of them do it alike.
//!
//! The life of a process, in the order of the modules: flags and environment ([`CommonArgs`]), the config file
//! ([`load_config`]), log output, fewer privileges ([`drop_capabilities`]), the work itself inside
//! [`main`], the admin port ([`Admin`]: `/healthz`, `/readyz`, `/metrics`; [`status`]: `/status`), what it leaves for others to
//! read ([`RecordWriter`]), and the end ([`shutdown_signal`], [`drain`]).
//!
//! A failure reaches the operator as one line on standard error, `error: …`, and as an exit code: 64 when the
//! configuration is at fault and a restart will not help (`EX_USAGE` of sysexits.h), 1 otherwise.

#![forbid(unsafe_code)]

mod args;
mod config_error;
mod config;
mod locate;
mod secret;
mod authorities;
mod logging;
mod capabilities;
mod run;
mod admin;
mod readiness;
mod loop_thread;
mod records;
mod shutdown;
pub mod nft;
pub mod status;
pub mod drain;

pub use admin::{Admin, SharedRegistry, shared_registry};
pub use args::{CommonArgs, LogFormat, parse_args};
pub use authorities::{authorities_in, own_authorities};
pub use capabilities::{Capability, CapabilityError, drop_capabilities};
pub use config::{load_config, parse_config, read_config};
pub use config_error::ConfigError;
pub use logging::init_logging;
pub use loop_thread::on_own_thread;
pub use readiness::{Readiness, Task};
pub use records::{RecordFile, RecordSender, RecordStats, RecordWriter, Reopen};
pub use run::{EXIT_CONFIG, EXIT_FAILURE, main, report};
pub use secret::{Secret, read_secret_file, read_secret_of_field};
pub use shutdown::shutdown_signal;
