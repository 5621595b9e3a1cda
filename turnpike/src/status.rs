//! `turnpike status` and `turnpike revoke`: what discovery knows, and what services say of themselves.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use discovery_client::{Operator, Snapshot};
use identity::{Serial, Verifier};
use net::Clock;
use serde_json::{Value, json};

use crate::{mesh_directory::MeshDirectory, status_text};

/// An operator's certificate, made for one use.
const LIFETIME: Duration = Duration::from_secs(600);
const HTTP_TIMEOUT: Duration = Duration::from_secs(3);
const MAX_STATUS: u64 = 16 * 1024 * 1024;

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
}

#[derive(Args)]
pub(crate) struct RevokeArgs {
    /// The directory that `turnpike init` made
    #[arg(long, value_name = "DIR", env = "TURNPIKE_MESH_DIRECTORY")]
    mesh_directory: PathBuf,
    /// Where discovery is, if not where `turnpike init` was told
    #[arg(long, value_name = "URL")]
    discovery: Option<String>,
    /// The certificate's serial number, from `turnpike status` or a log
    #[arg(value_name = "SERIAL")]
    serial: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

pub(crate) fn run(args: &StatusArgs) -> Result<()> {
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
        services.insert(address.to_string(), service_status(*address)?);
    }
    if !services.is_empty() {
        all.insert("services".into(), json!(services));
    }
    let all = Value::Object(all);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{}", status_text::table(&all));
    }
    Ok(())
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

/// `GET /status` with HTTP/1.0, of which nothing more than the body is needed.
fn service_status(address: SocketAddr) -> Result<Value> {
    let about = || format!("the admin port {address}");
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, HTTP_TIMEOUT)?;
        stream.set_read_timeout(Some(HTTP_TIMEOUT))?;
        stream.write_all(format!("GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.take(MAX_STATUS).read_to_string(&mut text)?;
        Ok(text)
    };
    let answer = ask().with_context(about)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(about)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status == "503" {
        bail!("{}: {}", about(), body.trim_end());
    }
    if status != "200" {
        bail!(
            "{}: it has no /status (HTTP {status}); name that of an activator or dns-signal",
            about()
        );
    }
    serde_json::from_str(body).with_context(about)
}
