//! `turnpike init`: a mesh out of nothing.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use identity::{Authority, write_private, write_public};
use model::{MeshName, NetworkName};
use net::Clock;
use service_kit::ConfigError;

use crate::{
    mesh_directory::{
        CA_CERTIFICATE, CA_KEY, DISCOVERY_CERTIFICATE, DISCOVERY_KEY, MESH, MeshFile,
        RELAY_CERTIFICATE, RELAY_KEY, RELAY_SECRET, absolute,
    },
    samples::{self, Sample},
};

/// The certificates of discovery and relays. There is one of each, and an operator to replace it.
const SERVER_LIFETIME: Duration = Duration::from_secs(5 * 365 * 86_400);

#[derive(Args)]
pub(crate) struct InitArgs {
    /// The directory to make; must be empty or absent
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// The mesh's name: 1 to 63 of a-z, 0-9 and -
    #[arg(long, value_name = "NAME")]
    mesh: MeshName,
    /// Where nodes will reach discovery: a host name or address, and a port
    #[arg(long, value_name = "HOST:PORT")]
    discovery: String,
    /// Another name or address that nodes may use for discovery; repeatable
    #[arg(long, value_name = "HOST")]
    server_name: Vec<String>,
    /// A network; repeatable. Each gets sample configurations
    #[arg(long, value_name = "NAME")]
    network: Vec<NetworkName>,
    /// That network's relay, for example turn:203.0.113.12:3478?transport=udp; one for each --network, in their order
    #[arg(long, value_name = "URL")]
    relay: Vec<String>,
}

pub(crate) fn run(args: &InitArgs) -> Result<()> {
    let (host, port) = host_and_port(&args.discovery)?;
    let networks = networks(args)?;
    let target = absolute(&args.directory)?;
    refuse_to_overwrite(&target)?;

    // Made beside it and moved in one step: there is a whole mesh or none.
    let name = target
        .file_name()
        .context("DIR is not the name of a directory")?;
    let building = target.with_file_name(format!(".{}.new", name.to_string_lossy()));
    match fs::remove_dir_all(&building) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", building.display()));
        }
        _ => {}
    }
    make_directory(&building)?;
    let result = build(args, &building, &target, (&host, port), &networks).and_then(|()| {
        fs::rename(&building, &target).with_context(|| format!("making {}", target.display()))
    });
    if result.is_err() {
        // Best effort: the error to show is the first one.
        let _ = fs::remove_dir_all(&building);
    }
    result?;
    tell(&target, args);
    Ok(())
}

fn build(
    args: &InitArgs,
    building: &Path,
    target: &Path,
    (host, port): (&str, u16),
    networks: &[(NetworkName, String)],
) -> Result<()> {
    let now = Clock.unix_time();
    let authority = Authority::new(args.mesh.clone(), now)?;
    let mut names = vec![
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned(),
    ];
    names.extend(args.server_name.iter().cloned());
    names.dedup();
    let server = authority.issue_server(&names, SERVER_LIFETIME, now)?;
    write_public(
        &building.join(CA_CERTIFICATE),
        authority.certificate_pem().as_bytes(),
    )?;
    write_private(&building.join(CA_KEY), authority.key_pem().as_bytes())?;
    write_public(
        &building.join(DISCOVERY_CERTIFICATE),
        server.certificate_pem.as_bytes(),
    )?;
    write_private(&building.join(DISCOVERY_KEY), server.key_pem.as_bytes())?;
    let url = format!("https://{host}:{port}");
    let mesh = MeshFile {
        mesh: args.mesh.to_string(),
        discovery: url.clone(),
    };
    write_public(&building.join(MESH), toml::to_string(&mesh)?.as_bytes())?;

    let listen = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, port),
        Err(_) => SocketAddr::from(([0, 0, 0, 0], port)),
    };
    let sample = Sample {
        directory: target,
        discovery: &url,
        listen,
        networks,
    };
    write_public(
        &building.join("discovery.toml"),
        sample.discovery().as_bytes(),
    )?;
    for (network, relay) in networks {
        let directory = building.join(network.as_str());
        make_directory(&directory)?;
        write_private(&directory.join(RELAY_SECRET), random_secret()?.as_bytes())?;
        let host = samples::relay_host(relay).unwrap_or_default().to_owned();
        let server = authority.issue_server(&[host], SERVER_LIFETIME, now)?;
        let certificate = server.certificate_pem.as_bytes();
        write_public(&directory.join(RELAY_CERTIFICATE), certificate)?;
        write_private(&directory.join(RELAY_KEY), server.key_pem.as_bytes())?;
        for (name, text) in [
            ("turn-relay.toml", sample.turn_relay(network, relay)),
            ("activator.toml", sample.activator(network)),
            ("dns-signal.toml", sample.dns_signal(network)),
        ] {
            write_public(&directory.join(name), text.as_bytes())?;
        }
    }
    Ok(())
}

fn host_and_port(text: &str) -> Result<(String, u16), ConfigError> {
    let wrong = || {
        let remedy = "write HOST:PORT, an IPv6 address in brackets";
        ConfigError::of_field("--discovery", text, "not a host and a port", remedy)
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let bracketed = host.len() == bare.len() + 2;
    let fits = match bare.parse::<IpAddr>() {
        Ok(ip) => ip.is_ipv6() == bracketed,
        Err(_) => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            !bracketed && !bare.is_empty() && bare.chars().all(allowed)
        }
    };
    match port.parse() {
        Ok(port) if fits && port != 0 => Ok((host.to_owned(), port)),
        _ => Err(wrong()),
    }
}

fn networks(args: &InitArgs) -> Result<Vec<(NetworkName, String)>, ConfigError> {
    if args.network.len() != args.relay.len() {
        let problem = format!(
            "{} networks and {} relays",
            args.network.len(),
            args.relay.len()
        );
        let remedy = "give one --relay URL for each --network NAME, in the same order";
        return Err(ConfigError::of_field(
            "--relay",
            args.relay.join(" "),
            problem,
            remedy,
        ));
    }
    for (i, network) in args.network.iter().enumerate() {
        if args.network[..i].contains(network) {
            let remedy = "name each network once";
            return Err(ConfigError::of_field(
                "--network",
                network,
                "given twice",
                remedy,
            ));
        }
    }
    for relay in &args.relay {
        if samples::relay_address(relay).is_none() {
            let remedy = "write turn:HOST:PORT?transport=udp";
            let problem = "not the URL of a relay";
            return Err(ConfigError::of_field("--relay", relay, problem, remedy));
        }
    }
    Ok(args
        .network
        .iter()
        .cloned()
        .zip(args.relay.iter().cloned())
        .collect())
}

fn refuse_to_overwrite(target: &Path) -> Result<(), ConfigError> {
    let empty = match fs::read_dir(target) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if empty {
        return Ok(());
    }
    let remedy = "name another, or remove it: with it goes the mesh's CA";
    Err(ConfigError::of_field(
        "DIR",
        target.display(),
        "there is something already",
        remedy,
    ))
}

fn make_directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("making {}", path.display()))
}

/// 256 bits as hex, and a line end.
fn random_secret() -> Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(hex + "\n")
}

fn tell(target: &Path, args: &InitArgs) {
    let directory = target.display();
    println!(
        "The mesh `{}` is in {directory}. Keep {CA_KEY} safe: whoever has it is the mesh.",
        args.mesh
    );
    println!("Next:");
    println!("  discovery --config {directory}/discovery.toml");
    let network = args.network.first().map_or("NETWORK", NetworkName::as_str);
    println!(
        "  turnpike token create --mesh-directory {directory} --network {network} --role activator"
    );
}
