//! `turnpike lab`: the command line of this library.
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::lab::{Lab, LabOptions};
use crate::nat::NatKind;

/// Networks on this machine, out of namespaces. Needs root.
#[derive(Debug, Clone, Subcommand)]
pub enum LabCommand {
    /// Build the networks and start everything in them
    Up {
        /// What the routers do: full-cone, address-restricted, port-restricted or symmetric
        #[arg(long, value_name = "KIND", default_value_t)]
        nat: NatKind,
        #[command(flatten)]
        which: Which,
        /// Where the binaries are [default: beside this one]
        #[arg(long, value_name = "DIR", env = "TURNPIKE_BIN_DIR")]
        bin_dir: Option<PathBuf>,
        /// Only the networks and the example services, without discovery, relays, activators and dns-signal
        #[arg(long)]
        no_mesh: bool,
    },
    /// Run a command in a host, for example: lab exec west/app -- curl orders.east.mesh.internal:8080
    Exec {
        #[command(flatten)]
        which: Which,
        /// west/app, west/relay, east/orders, discovery, ...
        #[arg(value_name = "HOST")]
        host: String,
        /// What to run there
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Start a process of the lab that was stopped
    Start(OneProcess),
    /// Stop a process of the lab
    Stop {
        #[command(flatten)]
        process: OneProcess,
        /// With SIGKILL
        #[arg(long)]
        kill: bool,
    },
    /// Show hosts, addresses, and what runs
    Status {
        #[command(flatten)]
        which: Which,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Remove everything, also what a crashed `lab up` left
    Down {
        #[command(flatten)]
        which: Which,
    },
}

/// Which lab.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// The lab's name: 1 to 12 of a-z and 0-9; labs of different names stand side by side
    #[arg(long, value_name = "NAME", default_value = "lab")]
    pub name: String,
}

/// Which process of which lab.
#[derive(Debug, Clone, clap::Args)]
pub struct OneProcess {
    #[command(flatten)]
    which: Which,
    /// discovery, west/relay, east/activator, west/dns-signal, ...
    #[arg(value_name = "PROCESS")]
    process: String,
}

/// Does what the command says. The exit code of `exec` is that of what it ran; of `status`, 1 when something that
/// should run does not.
pub fn run(command: LabCommand) -> Result<ExitCode> {
    match command {
        LabCommand::Up {
            nat,
            which,
            bin_dir,
            no_mesh,
        } => up(&which.name, nat, bin_dir, !no_mesh)?,
        LabCommand::Exec {
            which,
            host,
            command,
        } => {
            return exec(&Lab::open(&which.name)?, &host, &command);
        }
        LabCommand::Start(OneProcess { which, process }) => {
            Lab::open(&which.name)?.start(&process)?;
        }
        LabCommand::Stop {
            process: OneProcess { which, process },
            kill,
        } => {
            let lab = Lab::open(&which.name)?;
            if kill {
                lab.kill9(&process)?
            } else {
                lab.stop(&process)?
            }
        }
        LabCommand::Status { which, json } => {
            let status = Lab::open(&which.name)?.status();
            if json {
                println!(
                    "{}",
                    serde_json::to_string_pretty(&status).context("the status")?
                );
            } else {
                print!("{}", status.to_text());
            }
            return Ok(ExitCode::from(u8::from(!status.complete())));
        }
        LabCommand::Down { which } => Lab::remove(&which.name)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(name: &str, nat: NatKind, bin_dir: Option<PathBuf>, mesh: bool) -> Result<()> {
    let mut options = LabOptions::new(name);
    options.nat = nat;
    options.mesh = mesh;
    options.progress = |line| eprintln!("{line}");
    if let Some(directory) = bin_dir {
        options.binaries = directory;
    }
    let lab = Lab::up(&options)?;
    println!("lab `{}` is up. Try:", lab.name());
    if mesh {
        println!(
            "  turnpike lab exec --name {name} west/app -- curl http://orders.east.mesh.internal:8080/"
        );
    }
    println!("  turnpike lab status --name {name}\n  turnpike lab down --name {name}");
    Ok(())
}

fn exec(lab: &Lab, host: &str, command: &[String]) -> Result<ExitCode> {
    let (program, args) = command.split_first().context("no command given")?;
    let status = lab
        .command(host, program)?
        .args(args)
        .status()
        .with_context(|| format!("running {program} in {host}"))?;
    // Ended by a signal: 1, as nothing better is known.
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(ExitCode::from(code))
}
