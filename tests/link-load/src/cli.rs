//! The command line.
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;
use model::{NetworkName, ServiceName};

/// Opens many links to one activator, sends a packet on each, waits, and sends another.
///
/// Must run where a sidecar could: in a host of the calling network. Prints what it saw as JSON.
#[derive(Debug, Parser)]
#[command(name = "link-load")]
pub(crate) struct Arguments {
    /// How many
    #[arg(long, default_value_t = 100)]
    pub(crate) links: u32,
    /// `https://HOST:PORT` of discovery
    #[arg(long)]
    pub(crate) discovery: String,
    /// The directory that `turnpike init` made: every node gets a certificate of this CA
    #[arg(long, value_name = "DIR")]
    pub(crate) mesh_directory: PathBuf,
    /// The nodes' own network
    #[arg(long)]
    pub(crate) network: NetworkName,
    /// The address they are reached at
    #[arg(long, value_name = "IP")]
    pub(crate) address: IpAddr,
    /// The network whose activator is called
    #[arg(long)]
    pub(crate) to: NetworkName,
    /// The service that is called, over UDP; it sends back what it gets
    #[arg(long)]
    pub(crate) service: ServiceName,
    /// Its port
    #[arg(long)]
    pub(crate) port: u16,
    /// Seconds for the nodes to come to discovery
    #[arg(long, default_value_t = 60)]
    pub(crate) join_within: u64,
    /// Seconds for all links to open
    #[arg(long, default_value_t = 30)]
    pub(crate) open_within: u64,
    /// Seconds that the links stand idle
    #[arg(long, default_value_t = 20)]
    pub(crate) hold: u64,
    /// Before the links open, and again when all have stood idle, this process is asked how much memory it has
    #[arg(long, value_name = "PID")]
    pub(crate) activator: Option<i32>,
    /// Shown beside it
    #[arg(long, value_name = "PID")]
    pub(crate) discovery_process: Option<i32>,
}

impl Arguments {
    /// Where the sockets are bound; each gets a port of its own.
    pub(crate) const fn bind(&self) -> SocketAddr {
        SocketAddr::new(self.address, 0)
    }
}
