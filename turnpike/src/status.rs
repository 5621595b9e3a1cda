//! `turnpike status` and `turnpike revoke`: what discovery knows, and what services say of themselves.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use discovery_client::{Operator, Snapshot};
use identity::{Serial, Verifier};
use net::Clock;
use serde_json::{Value, json};

use crate::{admin, mesh_directory::MeshDirectory, status_text};

/// An operator's certificate, made for one use.
const LIFETIME: Duration = Duration::from_secs(600);
/// Nobody reads faster.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The directory that `turnpike init` made: show what discovery knows
    #[arg(long, value_name = "DIR", env = "TURNPIKE_MESH_DIRECTORY")]
    mesh_directory: Option<PathBuf>,
    /// Where discovery is, if not where `turnpike init` was told
    #[arg(long, value_name = "URL", requires = "mesh_directory")]
    discovery: Option<String>,
    /// The admin port of an activator or dns-signal; repeatable
    #[arg(long, value_name = "ADDR", required_unless_present = "mesh_directory")]
    admin: Vec<SocketAddr>,
    /// For machines
    #[arg(long)]
    json: bool,
    /// Again and again, this often, until Ctrl-C
    #[arg(short, long, value_name = "TIME", num_args = 0..=1, default_missing_value = "2s",
        value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
}

#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// The directory that `turnpike init` made
    #[arg(long, value_name = "DIR", env = "TURNPIKE_MESH_DIRECTORY")]
    mesh_directory: PathBuf,
    /// Where discovery is, if not where `turnpike init` was told
    #[arg(long, value_name = "URL")]
    discovery: Option<String>,
    /// The serial number of one of its certificates, from `turnpike status` or discovery's log
    #[arg(value_name = "SERIAL")]
    serial: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

pub(crate) fn run(args: &StatusArgs) -> Result<()> {
    let Some(interval) = args.watch else {
        print!("{}", shown(args)?);
        return Ok(());
    };
    loop {
        // What cannot be asked now may answer the next time.
        let text = shown(args).unwrap_or_else(|error| format!("{error:#}\n"));
        // From the top of a cleared screen; in a pipe, one after the other.
        let clear = if std::io::stdout().is_terminal() {
            "\x1b[H\x1b[2J"
        } else {
            ""
        };
        let mut stdout = std::io::stdout();
        stdout.write_all(format!("{clear}{text}").as_bytes())?;
        stdout.flush()?;
        std::thread::sleep(interval.max(MIN_INTERVAL));
    }
}

fn shown(args: &StatusArgs) -> Result<String> {
    let mut all = serde_json::Map::new();
    if let Some(directory) = &args.mesh_directory {
        let snapshot = with_operator(
            directory,
            args.discovery.as_deref(),
            async |mut operator| operator.snapshot().await,
        )?;
        all.insert("mesh".into(), mesh_json(&snapshot));
    }
    let mut services = BTreeMap::new();
    for address in &args.admin {
        services.insert(
            address.to_string(),
            admin::get::<Value>(*address, "/status")?,
        );
    }
    if !services.is_empty() {
        all.insert("services".into(), json!(services));
    }
    let all = Value::Object(all);
    if args.json {
        let json = match args.watch {
            // One line each, for whoever reads them as they come.
            Some(_) => serde_json::to_string(&all)?,
            None => serde_json::to_string_pretty(&all)?,
        };
        return Ok(json + "\n");
    }
    Ok(status_text::table(&all))
}

pub(crate) fn revoke(args: &RevokeArgs) -> Result<()> {
    let serial: Serial = args.serial.parse().context("SERIAL")?;
    with_operator(
        &args.mesh_directory,
        args.discovery.as_deref(),
        async |mut operator| operator.revoke(&serial, &args.reason).await,
    )?;
    println!("revoked {serial}");
    Ok(())
}

fn with_operator<T>(
    directory: &Path,
    discovery: Option<&str>,
    work: impl AsyncFnOnce(Operator) -> Result<T, discovery_client::DirectoryError>,
) -> Result<T> {
    let mesh = MeshDirectory::open(directory)?;
    let url = discovery.unwrap_or(&mesh.file.discovery);
    let tls = mesh
        .authority
        .new_admin("turnpike".parse()?, LIFETIME, Clock.unix_time())?;
    let verifier = Verifier::new(mesh.authority.certificate_der(), None)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let operator = Operator::connect(url, &tls, verifier).await;
        let operator = operator.with_context(|| format!("discovery at {url}"))?;
        Ok(work(operator).await?)
    })
}

fn mesh_json(snapshot: &Snapshot) -> Value {
    let relays = snapshot
        .relays
        .values()
        .map(|relay| json!({ "name": relay.name, "network": relay.network, "url": relay.url }));
    let registrations = snapshot.registrations.values().map(|entry| {
        let registration = &entry.registration;
        let footholds = registration.footholds.iter().map(|foothold| {
            json!({
                "relay": foothold.relay,
                "network": foothold.network,
                "relayed": foothold.relayed_addresses,
            })
        });
        let services = registration.services.iter().map(|service| {
            json!({ "name": service.name, "tcp": service.tcp_ports, "udp": service.udp_ports })
        });
        json!({
            "node": entry.node.to_string(),
            "certificate": entry.certificate.to_string(),
            "expires": entry.expires.to_string(),
            "footholds": footholds.collect::<Vec<_>>(),
            "services": services.collect::<Vec<_>>(),
        })
    });
    let revoked: BTreeMap<_, _> = snapshot
        .revoked
        .iter()
        .map(|(serial, reason)| (serial.to_string(), reason))
        .collect();
    json!({
        "revision": snapshot.revision.0,
        "time": snapshot.time.to_string(),
        "relays": relays.collect::<Vec<_>>(),
        "registrations": registrations.collect::<Vec<_>>(),
        "rejected": snapshot.rejected,
        "nodes": snapshot.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "revoked": revoked,
    })
}
