//! The sidecar on this machine: where it can be asked, and what is known of it when it cannot.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Args;
use discovery_client::{JoinError, Settings};
use explain::facts::{Binding, FailureKind, IdentityProblem, IdentityProblemKind, Known, Sidecar};
use model::{NetworkName, Role};
use serde::Deserialize;

use crate::admin;

/// Where packages and the first-hour guide put it.
const CONFIG: &str = "/etc/turnpike/dns-signal.toml";
/// dns-signal's own default.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9103);
/// An attempt to open a link takes 3 s for the answer, 6 s for a path, 8 s for the session.
const PATIENCE: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(100);
/// What a sidecar that has just started may not know yet, it knows after this.
const YOUNG: Duration = Duration::from_secs(2);

#[derive(Args)]
pub(crate) struct SidecarArgs {
    /// dns-signal's admin port [default: what the configuration says, else 127.0.0.1:9103]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// dns-signal's configuration, for where it is and who this machine is [default: /etc/turnpike/dns-signal.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What of dns-signal's configuration matters here.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    network: NetworkName,
    discovery: String,
    #[serde(default = "state_directory")]
    state_directory: PathBuf,
    node_name: Option<String>,
    admin: Option<SocketAddr>,
    #[serde(default)]
    tunnel: Tunnel,
}

#[derive(Default, Deserialize)]
struct Tunnel {
    interface: Option<String>,
}

fn state_directory() -> PathBuf {
    "/var/lib/turnpike/dns-signal".into()
}

/// Where the sidecar is.
pub(crate) struct Reach {
    pub(crate) admin: SocketAddr,
    config: Option<Config>,
}

impl SidecarArgs {
    /// # Errors
    /// When a configuration was named and cannot be read.
    pub(crate) fn reach(&self) -> Result<Reach> {
        let config = match &self.config {
            Some(file) => Some(service_kit::load_config::<Config>(file)?),
            None => Some(Path::new(CONFIG))
                .filter(|file| self.admin.is_none() && file.exists())
                .and_then(|file| service_kit::load_config(file).ok()),
        };
        let configured = config.as_ref().and_then(|config| config.admin);
        Ok(Reach {
            admin: self.admin.or(configured).unwrap_or(ADMIN),
            config,
        })
    }
}

impl Reach {
    /// Its TUN interface, as its configuration names it, or dns-signal's own default.
    pub(crate) fn interface(&self) -> String {
        let config = self.config.as_ref();
        let named = config.and_then(|config| config.tunnel.interface.clone());
        named.unwrap_or_else(|| "turnpike0".to_owned())
    }

    /// What the sidecar knows of a name now.
    pub(crate) fn ask(&self, name: &str, open: bool) -> Result<Sidecar> {
        let open = if open { "&open=1" } else { "" };
        admin::get(self.admin, &format!("/explain?name={name}{open}"))
    }

    /// The same when an attempt to open the link has come to an end, good or bad.
    pub(crate) fn settled(&self, name: &str) -> Result<Sidecar> {
        let begin = Instant::now();
        let mut before = None;
        loop {
            let sidecar = self.ask(name, true)?;
            let before = *before.get_or_insert(sidecar.failures);
            let young = begin.elapsed() < YOUNG;
            if is_settled(&sidecar, before, young) || begin.elapsed() >= PATIENCE {
                return Ok(sidecar);
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Why this machine is not who it should be, as far as its configuration tells. Changes nothing.
    pub(crate) fn identity_problem(&self) -> Option<IdentityProblem> {
        let config = self.config.as_ref()?;
        let settings = Settings {
            discovery: config.discovery.clone(),
            state_directory: config.state_directory.clone(),
            join_token: None,
            node_name: config.node_name.clone(),
            network: config.network.clone(),
            role: Role::Workload,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .ok()?;
        let error = runtime.block_on(discovery_client::join(&settings)).err()?;
        let kind = match &error {
            JoinError::Expired { .. } => IdentityProblemKind::Expired,
            JoinError::ClockSkew { .. } => IdentityProblemKind::ClockSkew,
            JoinError::NoToken => IdentityProblemKind::NotEnrolled,
            JoinError::Refused(_) => IdentityProblemKind::Refused,
            JoinError::Unreachable { .. } | JoinError::Protocol { .. } => return None,
            _ => IdentityProblemKind::Unusable,
        };
        let problem = error.to_string();
        Some(IdentityProblem { kind, problem })
    }
}

/// Whether asking again would tell more.
fn is_settled(sidecar: &Sidecar, before: u64, young: bool) -> bool {
    match sidecar.known {
        Known::NotOurs => return true,
        Known::NothingYet => return !young,
        Known::NoSuchNetwork | Known::NoSuchService | Known::Absent => return true,
        Known::Exported => {}
    }
    if let Some(link) = &sidecar.link {
        return link.open && !matches!(link.binding, Binding::NotAsked | Binding::Asked);
    }
    // A relay that has just died is noticed by the activator within one more attempt; until then it looks as if only the
    // path to it were blocked.
    let enough = match &sidecar.last_failure {
        Some(failure) if failure.kind == FailureKind::NoPath => 2,
        Some(_) => 1,
        None => return false,
    };
    sidecar.failures >= before + enough
}

/// Names go into a query string and onto the terminal.
///
/// # Errors
/// When it is no name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    fits.then_some(()).with_context(|| {
        format!("`{name}` is not a name: use SERVICE.NETWORK, such as orders.east")
    })
}
