//! activator: a network's gateway. It holds allocations on the relays of the mesh, registers with discovery, answers
//! links, and forwards what they carry to the services it exports.
//!
//! The journeys are in `docs/journeys/activator.md`; the thinking is in `activator-proto`. Here: parse, run, exit code.
#![forbid(unsafe_code)]

mod cli;
mod config;
mod app;
mod eventloop;
mod links;
mod signaling;
mod registration;
mod names;
mod forwarding;
mod status;
mod report;
mod flow_log;
mod metrics;

use std::process::ExitCode;

use service_kit::Capability;

use crate::cli::Cli;

fn main() -> ExitCode {
    let cli: Cli = match service_kit::parse_args() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    // Before any thread is started: they inherit it. The TUN, nftables and the forwarding switches need no more.
    if let Err(error) = service_kit::drop_capabilities(&[Capability::CAP_NET_ADMIN]) {
        return service_kit::report(None, Err(error.into()));
    }
    service_kit::main("activator", &cli.common, || app::run(&cli))
}
