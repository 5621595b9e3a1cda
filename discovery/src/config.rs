//! The configuration file.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use model::{NetworkName, RelayName};
use serde::{Deserialize, Deserializer, de::Error as _};
use traces::TracesConfig;

/// `discovery.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Where nodes connect (TCP, TLS).
    pub listen: SocketAddr,
    /// Health, readiness and metrics (TCP, plain HTTP); a private address. Default: none.
    #[serde(default)]
    pub admin: Option<SocketAddr>,
    /// The console for browsers (TCP, plain HTTP, read-only, without a password); a loopback address. Default: none, and then
    /// nothing is asked of activators for it.
    #[serde(default)]
    pub console: Option<SocketAddr>,
    /// Where leases, registrations, token uses and revocations are kept. Without it they are forgotten at a restart,
    /// and a join token can be used again.
    #[serde(default)]
    pub data_file: Option<PathBuf>,
    /// The mesh CA's certificate (PEM).
    pub ca_certificate_file: PathBuf,
    /// The mesh CA's key (PEM, PKCS #8).
    pub ca_key_file: PathBuf,
    /// This server's certificate (PEM); it names every host name and address that nodes use.
    pub certificate_file: PathBuf,
    /// This server's key (PEM, PKCS #8).
    pub key_file: PathBuf,
    /// How long a node's certificate is valid; nodes renew at two thirds. Default: 24h; at least 1m, at most 90days.
    #[serde(default = "day", deserialize_with = "duration")]
    pub certificate_lifetime: Duration,
    /// How long TURN credentials are valid. Default: 1h; at least 1m, at most 24h.
    #[serde(default = "hour", deserialize_with = "duration")]
    pub turn_credential_lifetime: Duration,
    /// Traces for an OpenTelemetry collector: what discovery does for links that are being opened.
    #[serde(default)]
    pub traces: TracesConfig,
    /// The relays of the mesh.
    #[serde(default)]
    pub relay: Vec<RelayConfig>,
}

/// `[[relay]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RelayConfig {
    /// Its name, unique in the mesh.
    pub name: RelayName,
    /// The network at whose edge it stands.
    pub network: NetworkName,
    /// RFC 7065: `turn:203.0.113.12:3478?transport=udp`.
    pub url: String,
    /// The same relay over other transports, for nodes that cannot reach it over UDP: `turn:HOST:PORT?transport=tcp`,
    /// `turns:HOST:443`. At most 7. Default: none.
    #[serde(default)]
    pub more_urls: Vec<String>,
    /// The secret it shares with discovery, to mint TURN credentials (at least 16 bytes of text).
    pub auth_secret_file: PathBuf,
}

const fn day() -> Duration {
    Duration::from_secs(86_400)
}

const fn hour() -> Duration {
    Duration::from_secs(3_600)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| D::Error::custom(format!("not a duration such as `24h` ({error})")))
}
