//! Flags and environment.

use std::net::SocketAddr;

use clap::Parser;
use service_kit::CommonArgs;

/// A network's gateway: holds allocations on relays, answers links, forwards to exported services.
#[derive(Debug, Parser)]
#[command(name = "activator", version)]
pub(crate) struct Cli {
    /// Flags that all services have.
    #[command(flatten)]
    pub(crate) common: CommonArgs,

    /// Address of the admin port, instead of the file's `admin`
    #[arg(long, value_name = "ADDR", env = "TURNPIKE_ADMIN")]
    pub(crate) admin: Option<SocketAddr>,
}
