//! Flags and environment.

use clap::Parser;
use service_kit::CommonArgs;

/// The sidecar of a workload: answers DNS for names of the mesh, and carries the traffic to them.
#[derive(Debug, Parser)]
#[command(name = "dns-signal", version)]
pub struct Cli {
    /// Flags that all services have.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Wait until standard input is closed, then put the resolv.conf back that RUN replaced. For dns-signal itself.
    #[arg(long, hide = true, num_args = 2, value_names = ["DIRECTORY", "RUN"])]
    pub guard_resolv_conf: Option<Vec<String>>,
}
