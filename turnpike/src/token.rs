//! `turnpike token create`.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand};
use identity::JoinToken;
use model::{NetworkName, NodeName, Role};
use net::Clock;

use crate::mesh_directory::MeshDirectory;

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a join token and print it
    Create(CreateArgs),
}

#[derive(Args)]
pub(crate) struct CreateArgs {
    /// The directory that `turnpike init` made
    #[arg(long, value_name = "DIR", env = "TURNPIKE_MESH_DIRECTORY")]
    mesh_directory: PathBuf,
    /// The network the node will stand in
    #[arg(long, value_name = "NAME")]
    network: NetworkName,
    /// What the node will be: activator or workload
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// How many nodes may enroll with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    uses: u32,
    /// How long it is good, for example 10m or 7days
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// The name the node must take; also replaces a node of that name
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
}

pub(crate) fn run(command: &TokenCommand) -> Result<()> {
    let TokenCommand::Create(args) = command;
    let mesh = MeshDirectory::open(&args.mesh_directory)?;
    let token = JoinToken::create(
        &mesh.authority,
        &args.network,
        args.role,
        args.node.as_ref(),
        args.uses,
        args.ttl,
        &mesh.file.discovery,
        Clock.unix_time(),
    )?;
    println!("{token}");
    Ok(())
}
