//! `turnpike`: the operator's command. Parses, does one thing, leaves with an exit code.

#![forbid(unsafe_code)]

mod init;
mod mesh_directory;
mod samples;
mod status;
mod status_text;
mod token;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Join private networks over standard TURN relays
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a mesh: its CA, discovery's certificate, secrets and sample configurations
    Init(init::InitArgs),
    /// Join tokens, with which nodes enroll
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Show the mesh as discovery knows it, and services through their admin ports
    Status(status::StatusArgs),
    /// Revoke a certificate: its node is thrown out
    Revoke(status::RevokeArgs),
    /// Networks on this machine, out of namespaces (needs root)
    #[command(subcommand)]
    Lab(lab::cli::LabCommand),
}

fn main() -> ExitCode {
    let result = match Args::parse().command {
        Command::Init(args) => init::run(&args),
        Command::Token(command) => token::run(&command),
        Command::Status(args) => status::run(&args),
        Command::Revoke(args) => status::revoke(&args),
        Command::Lab(command) => match lab::cli::run(command) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
    };
    service_kit::report(None, result)
}
