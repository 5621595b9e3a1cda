//! What the configuration names, read and checked; errors call it by its field.

use std::{
    collections::BTreeMap, io, os::unix::fs::DirBuilderExt as _, path::Path, time::Duration,
};

use model::{MAX_RELAY_URIS, RelayName, RelayUri};
use prost::Message as _;
use protocol::directory::Relay;
use service_kit::ConfigError;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::{
    Config, RelayConfig,
    store::{Limits, Store},
};

const HANDSHAKE: Duration = Duration::from_secs(5);

pub(crate) fn check_lifetimes(config: &Config) -> Result<(), ConfigError> {
    let check = |field, value: Duration, max: Duration, text| {
        if (Duration::from_secs(60)..=max).contains(&value) {
            return Ok(());
        }
        let value = humantime::format_duration(value);
        Err(ConfigError::of_field(field, value, "out of bounds", text))
    };
    let day = Duration::from_secs(86_400);
    check(
        "certificate-lifetime",
        config.certificate_lifetime,
        90 * day,
        "use 1m to 90days",
    )?;
    check(
        "turn-credential-lifetime",
        config.turn_credential_lifetime,
        day,
        "use 1m to 24h",
    )
}

pub(crate) fn tls(config: &Config, ca_pem: &str) -> Result<ServerTlsConfig, ConfigError> {
    let certificate = read("certificate-file", &config.certificate_file)?;
    let key = service_kit::read_secret_file(&config.key_file)
        .map_err(|error| secret_error("key-file", &config.key_file, &error))?;
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key.expose()))
        .client_ca_root(Certificate::from_pem(ca_pem))
        .client_auth_optional(true)
        .timeout(HANDSHAKE);
    // Found out now rather than when serving, so that the field can be named.
    Server::builder().tls_config(tls.clone()).map_err(|error| {
        let problem = format!("certificate and key cannot be used: {}", causes(&error));
        let remedy = "name the two files that `turnpike init` made";
        ConfigError::of_field(
            "certificate-file",
            config.certificate_file.display(),
            problem,
            remedy,
        )
    })?;
    Ok(tls)
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

pub(crate) fn read(field: &str, path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| {
        ConfigError::of_field(field, path.display(), error, "name a readable PEM file")
    })
}

/// A file that holds a secret, called by its field.
pub(crate) fn secret_error(field: &str, path: &Path, error: &ConfigError) -> ConfigError {
    ConfigError::of_field(field, path.display(), error, "")
}

pub(crate) type Relays = (BTreeMap<String, Vec<u8>>, BTreeMap<RelayName, Vec<u8>>);

/// The relays as directory entries, and their secrets.
pub(crate) fn relays(configs: &[RelayConfig]) -> Result<Relays, ConfigError> {
    let (mut entries, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for (i, config) in configs.iter().enumerate() {
        let field = |name: &str| format!("relay[{i}].{name}");
        let more = config.more_urls.iter().map(|url| ("more-urls", url));
        for (name, url) in std::iter::once(("url", &config.url)).chain(more) {
            if let Err(error) = RelayUri::decode(url) {
                let remedy = "write it as turn:HOST:PORT?transport=udp, turn:HOST:PORT?transport=tcp or turns:HOST:443";
                return Err(ConfigError::of_field(&field(name), url, error, remedy));
            }
        }
        if config.more_urls.len() >= MAX_RELAY_URIS {
            let problem = format!("{} URLs", config.more_urls.len());
            let remedy = "give at most 7";
            return Err(ConfigError::of_field(
                &field("more-urls"),
                "",
                problem,
                remedy,
            ));
        }
        let file = &config.auth_secret_file;
        let name = field("auth-secret-file");
        let secret = service_kit::read_secret_file(file)
            .map_err(|error| secret_error(&name, file, &error))?;
        if secret.expose().len() < 16 {
            let remedy = "put at least 16 random characters into it, the same as on the relay";
            return Err(ConfigError::of_field(
                &name,
                file.display(),
                "it is too short",
                remedy,
            ));
        }
        let relay = Relay {
            name: config.name.to_string(),
            network: config.network.to_string(),
            url: config.url.clone(),
            more_urls: config.more_urls.clone(),
        };
        entries.insert(format!("relay/{}", config.name), relay.encode_to_vec());
        if secrets
            .insert(config.name.clone(), secret.expose().as_bytes().to_vec())
            .is_some()
        {
            let remedy = "give each relay its own name";
            return Err(ConfigError::of_field(
                &field("name"),
                &config.name,
                "used twice",
                remedy,
            ));
        }
    }
    Ok((entries, secrets))
}

pub(crate) fn open_store(config: &Config) -> Result<Store, ConfigError> {
    let file = config.data_file.as_deref();
    if file.is_none() {
        tracing::warn!("no data-file: registrations, token uses and revocations are not kept");
    }
    let store = make_parent(file)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            Store::open(file, Limits::default(), net::Clock).map_err(|error| error.to_string())
        });
    store.map_err(|error| {
        let path = file.unwrap_or(Path::new("(memory)")).display();
        let remedy = "check that the directory can be written and no other discovery uses the file";
        ConfigError::of_field("data-file", path, error, remedy)
    })
}

fn make_parent(file: Option<&Path>) -> io::Result<()> {
    match file
        .and_then(Path::parent)
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        Some(parent) => std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent),
        None => Ok(()),
    }
}
