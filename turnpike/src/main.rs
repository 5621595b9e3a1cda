//! `turnpike`: the operator's command. Parses, does one thing, leaves with an exit code.

#![forbid(unsafe_code)]

mod admin;
mod capture;
mod doctor;
mod explain;
mod init;
mod mesh_directory;
mod ping;
mod reach;
mod samples;
mod sidecar;
mod status;
mod status_text;
mod token;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

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
    /// Say why a name works or does not, and what to do
    Explain(explain::ExplainArgs),
    /// Measure each step to a service: name, offer, ICE, DTLS, channel, and the service itself
    Ping(ping::PingArgs),
    /// Links, allocations and their rates, live in the terminal
    Top(top::TopArgs),
    /// Packets inside the tunnel, as pcap (needs root)
    Capture(capture::CaptureArgs),
    /// Look for what is wrong with this machine's sidecar and the mesh it sees
    Doctor(doctor::DoctorArgs),
    /// Print what makes a shell complete this command's words
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Throw a node out: revoke its certificates
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
        Command::Explain(args) => return exit(explain::run(&args)),
        Command::Ping(args) => return exit(ping::run(&args)),
        Command::Top(args) => top::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Doctor(args) => return exit(doctor::run(&args)),
        Command::Completions { shell } => {
            let mut command = Args::command();
            clap_complete::generate(shell, &mut command, "turnpike", &mut std::io::stdout());
            Ok(())
        }
        Command::Revoke(args) => status::revoke(&args),
        Command::Lab(command) => return exit(lab::cli::run(command)),
    };
    service_kit::report(None, result)
}

/// For commands whose exit code says something by itself.
fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => service_kit::report(None, Err(error)),
    }
}
