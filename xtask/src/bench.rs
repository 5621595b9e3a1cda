//! `cargo xtask bench …`: us and the rival in turns in one run, and the ratio.
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

mod cpu;
mod dns;
mod failover;
mod links;
mod parts;
mod relay;
mod report;
mod results;
mod rounds;
mod svg;
mod tunnel;
mod verdict;

use crate::shell;
use crate::workspace::cargo;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Subject {
    /// One session in memory, beside the `rtc` crate's own peer connection
    Link,
    /// Names of the mesh and names outside of it, beside unbound and dnsmasq
    Dns(dns::Options),
    /// Two networks joined, beside no tunnel, nebula, wireguard-go and boringtun
    Tunnel(tunnel::Options),
    /// What a running transfer notices when a relay, a path, an activator or discovery dies
    Failover(failover::Options),
    /// A thousand links that open at once on one activator: how long, and what each costs
    Links(links::Options),
    /// The relay under load, beside coturn and beside the machine's limit
    Relay(relay::Options),
}

pub(crate) fn run(subject: Subject) -> Result<ExitCode> {
    match subject {
        Subject::Link => link()?,
        Subject::Dns(options) => dns::run(&options)?,
        Subject::Tunnel(options) => return tunnel::run(&options),
        Subject::Failover(options) => return failover::run(&options),
        Subject::Links(options) => links::run(&options)?,
        Subject::Relay(options) => relay::run(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn link() -> Result<()> {
    shell::heading("One link in memory");
    shell::run(cargo().args([
        "bench",
        "--locked",
        "-p",
        "turnpike-link",
        "--bench",
        "session",
    ]))
}
