//! Many sidecars in one process: as many nodes, each with a link of its own to one activator.
//!
//! A node (`node.rs`) has an identity, a connection to discovery, a socket and a link, as dns-signal has, but neither DNS
//! nor a TUN device: its packets (`echo.rs`) are made here. All of them are tasks of one thread. The load goes through
//! stages (`stage.rs`): the nodes come to discovery; all links open at once; one packet on each comes back from the service;
//! the links stand idle; one more packet on each comes back.
#![forbid(unsafe_code)]

mod cli;
mod echo;
mod node;
mod report;
mod stage;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match stage::run(&cli::Arguments::parse()) {
        Ok(report) => {
            println!("{}", report.json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
