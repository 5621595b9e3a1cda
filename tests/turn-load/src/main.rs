//! Load for TURN servers, and what they spend on it.
//!
//! One process and one thread is clients and peers at once: it sends on one side of the relay (`burst.rs`), takes what
//! arrives on the other (`receiver.rs`), looks at every packet (`payload.rs`), and reads the relay's CPU time from
//! `/proc` (`process.rs`). Sending and receiving alternate in one loop, so that neither waits for the other's time
//! slice, and all of it fits on one core while the relay has another to itself.
//!
//! Done: UDP, long-term credentials (by `libs/turn-client`), ChannelData. Not done: TCP, TLS, indications.
#![forbid(unsafe_code)]

mod burst;
mod churn;
mod cli;
mod clock;
mod flood;
mod flow;
mod forward;
mod handshake;
mod histogram;
mod idle;
mod load;
mod payload;
mod process;
mod receiver;
mod socket;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let done = match cli::Arguments::parse().command {
        cli::Command::Load(options) => load::run(&options),
        cli::Command::Churn(options) => churn::run(&options),
        cli::Command::Idle(options) => idle::run(&options),
        cli::Command::Forward(options) => forward::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
