//! The realms: the first one is what is configured at the top of the file, and each other is a table of `[[realms]]`.

use super::hook::HookFile;
use super::{File, Listen, Values, listen, over, parse, revocations, safety, token_key};
use crate::cli::Args;
use crate::hook::Hook;
use crate::users;
use model::ServerAddr;
use serde::Deserialize;
use service_kit::{ConfigError, Secret, read_secret_of_field};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use turn_relay_proto::{AlternateTransport, Credentials, PeerRule, Revocations, UsageLimits};

/// Realms beside the first: each has labels of its own in the metrics.
const MOST: usize = 256;

/// `[[realms]]`: another realm of the same relay, with users, rules about peers and bounds of its own. A field that is not
/// explained here is what it is at the top, and no users are taken over from there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct RealmFile {
    /// What users log in to: unlike all others, at most 127 characters.
    pub(super) name: String,
    /// Of the addresses in `listen` at the top, those at which clients are asked to log in to this realm. Default: none.
    pub(super) listen: Vec<String>,
    /// Names by which clients of `tls://` reach this realm, at whatever address; the certificate must be good for them.
    /// Default: none.
    pub(super) tls_names: Vec<String>,
    /// Web origins whose pages are asked to log in to this realm, as `https://www.example.org`: of clients that send ORIGIN,
    /// which proves nothing. Default: none.
    pub(super) origins: Vec<String>,
    /// Default: none.
    pub(super) auth_secret_files: Vec<PathBuf>,
    /// Default: none.
    pub(super) users_file: Option<PathBuf>,
    /// Default: none.
    pub(super) token_keys: BTreeMap<String, PathBuf>,
    /// Default: the realm's name.
    pub(super) server_name: Option<String>,
    /// Default: none.
    pub(super) hook: Option<HookFile>,
    /// Default: none.
    pub(super) revocations_file: Option<PathBuf>,
    /// Default: none, so that nobody can be reached.
    pub(super) allow_peers: Vec<String>,
    /// Those of the top are denied here, too. Default: none.
    pub(super) deny_peers: Vec<String>,
    /// Default: as at the top.
    pub(super) allocations_per_user: Option<u32>,
    /// Default: as at the top.
    pub(super) allocations: Option<u32>,
    /// Default: as at the top.
    pub(super) user_bytes_per_second: Option<u64>,
    /// Default: as at the top.
    pub(super) total_bytes_per_second: Option<u64>,
    /// Default: as at the top.
    pub(super) new_peers_per_minute: Option<u32>,
    /// Default: as at the top.
    pub(super) max_lifetime_seconds: Option<u32>,
}

/// One realm, checked.
#[derive(Debug)]
pub(crate) struct RealmSettings {
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) revocations_file: Option<PathBuf>,
    /// Who is asked about users who are not known here.
    pub(crate) hook: Option<Arc<Hook>>,
    pub(crate) allow_peers: Vec<PeerRule>,
    /// Its own, without those of the first realm.
    pub(crate) deny_peers: Vec<PeerRule>,
    pub(crate) usage: UsageLimits,
    pub(crate) max_lifetime: Option<Duration>,
    /// As they are configured.
    pub(crate) listen: Vec<(AlternateTransport, SocketAddr)>,
    pub(crate) tls_names: Vec<String>,
    pub(crate) origins: Vec<String>,
}

impl RealmSettings {
    pub(crate) fn name(&self) -> &str {
        self.credentials.realm()
    }
}

/// All realms, the first one first.
pub(super) fn all(
    args: &Args,
    file: &File,
    listen: &Listen,
    threads: u16,
) -> Result<Vec<RealmSettings>, ConfigError> {
    let mut all = vec![first(args, file, listen, threads)?];
    if file.realms.len() > MOST {
        let problem = format!("more than {MOST}");
        let remedy = "run another relay for the others";
        return Err(ConfigError::of_field(
            "realms",
            file.realms.len(),
            problem,
            remedy,
        ));
    }
    for realm in &file.realms {
        let table = format!("realms.{}", realm.name);
        let loaded = another(realm, file, &all, listen, threads);
        all.push(loaded.map_err(|error| error.within(&table))?);
    }
    Ok(all)
}

fn first(
    args: &Args,
    file: &File,
    listen: &Listen,
    threads: u16,
) -> Result<RealmSettings, ConfigError> {
    let name = args.realm.clone().or(file.realm.clone());
    let secrets = match &args.auth_secret_file[..] {
        [] => &file.auth_secret_files,
        others => others,
    };
    let top = RealmFile {
        name: parse::realm("realm", name.as_deref().unwrap_or("turnpike"))?,
        auth_secret_files: secrets.to_vec(),
        users_file: file.users_file.clone(),
        token_keys: file.token_keys.clone(),
        server_name: file.server_name.clone(),
        hook: file.hook.clone(),
        revocations_file: file.revocations_file.clone(),
        allocations_per_user: file.allocations_per_user,
        allocations: file.allocations,
        user_bytes_per_second: file.user_bytes_per_second,
        total_bytes_per_second: file.total_bytes_per_second,
        new_peers_per_minute: file.new_peers_per_minute,
        max_lifetime_seconds: file.max_lifetime_seconds,
        ..RealmFile::default()
    };
    let allow = over(
        ("--allow-peer", &args.allow_peer),
        ("allow-peers", file.allow_peers.clone()),
    );
    let deny = over(
        ("--deny-peer", &args.deny_peer),
        ("deny-peers", file.deny_peers.clone()),
    );
    load(&top, &args.user, (&allow, &deny), listen, threads)
}

/// One of `[[realms]]`, beside those before it.
fn another(
    file: &RealmFile,
    top: &File,
    before: &[RealmSettings],
    listen: &Listen,
    threads: u16,
) -> Result<RealmSettings, ConfigError> {
    let name = parse::realm("name", &file.name)?;
    if before.iter().any(|realm| realm.name() == name) {
        let problem = "a second realm of this name";
        return Err(ConfigError::of_field(
            "name",
            name,
            problem,
            "choose another",
        ));
    }
    let file = RealmFile {
        allocations_per_user: file.allocations_per_user.or(top.allocations_per_user),
        allocations: file.allocations.or(top.allocations),
        user_bytes_per_second: file.user_bytes_per_second.or(top.user_bytes_per_second),
        total_bytes_per_second: file.total_bytes_per_second.or(top.total_bytes_per_second),
        new_peers_per_minute: file.new_peers_per_minute.or(top.new_peers_per_minute),
        max_lifetime_seconds: file.max_lifetime_seconds.or(top.max_lifetime_seconds),
        ..file.clone()
    };
    let values = |field, values: &Vec<String>| Values {
        field,
        values: values.clone(),
    };
    let allow = values("allow-peers", &file.allow_peers);
    let deny = values("deny-peers", &file.deny_peers);
    let realm = load(&file, &[], (&allow, &deny), listen, threads)?;
    for other in before {
        unlike("listen", &realm.listen, &other.listen, other, |(_, a)| {
            a.to_string()
        })?;
        unlike(
            "tls-names",
            &realm.tls_names,
            &other.tls_names,
            other,
            Clone::clone,
        )?;
        unlike(
            "origins",
            &realm.origins,
            &other.origins,
            other,
            Clone::clone,
        )?;
    }
    Ok(realm)
}

/// No way leads to two realms.
fn unlike<T: PartialEq>(
    field: &str,
    own: &[T],
    others: &[T],
    other: &RealmSettings,
    text: impl Fn(&T) -> String,
) -> Result<(), ConfigError> {
    match own.iter().find(|way| others.contains(way)) {
        None => Ok(()),
        Some(way) => Err(ConfigError::of_field(
            field,
            text(way),
            format!("it leads to the realm `{}` already", other.name()),
            "leave it to one of the two",
        )),
    }
}

fn load(
    file: &RealmFile,
    users: &[String],
    (allow, deny): (&Values, &Values),
    listen: &Listen,
    threads: u16,
) -> Result<RealmSettings, ConfigError> {
    let mut credentials = Credentials::new(file.name.clone());
    for user in users {
        users::add_user(&mut credentials, "--user", user)?;
    }
    if let Some(path) = &file.users_file {
        let text = read_secret_of_field("users-file", path)?;
        users::add_users(&mut credentials, path, &text)?;
    }
    for (kid, path) in &file.token_keys {
        credentials.add_token_key(kid, token_key(kid, path)?);
    }
    if let Some(name) = &file.server_name {
        credentials.set_server_name(parse::server_name(name.clone())?);
    }
    for path in &file.auth_secret_files {
        let secret: Secret = read_secret_of_field("auth-secret-files", path)?;
        credentials.add_secret(secret.expose().as_bytes());
    }
    let hook = file.hook.as_ref().map(|hook| {
        credentials.look_up_others(hook.limits(threads));
        hook.load(credentials.realm())
    });
    let hook = hook.transpose()?;
    if credentials.is_empty() {
        return Err(ConfigError::without_field(
            format!("nobody could log in to the realm `{}`", file.name),
            "name a secret in auth-secret-files, users in users-file, a key in token-keys or a hook, or add --user NAME:PASSWORD for a test",
        ));
    }
    let revocations = file.revocations_file.as_deref().map(revocations);
    Ok(RealmSettings {
        credentials: Arc::new(credentials),
        revocations: Arc::new(revocations.transpose()?.unwrap_or_default()),
        revocations_file: file.revocations_file.clone(),
        hook,
        allow_peers: parse::each(allow, safety::rule)?,
        deny_peers: parse::each(deny, safety::rule)?,
        usage: safety::usage(file)?,
        max_lifetime: file.max_lifetime_seconds.map(max_lifetime).transpose()?,
        listen: entrances(&file.listen, listen)?,
        tls_names: each_once("tls-names", &file.tls_names, tls_name)?,
        origins: each_once("origins", &file.origins, origin)?,
    })
}

/// Between the default of RFC 8656 section 3.2, which nobody gets less than, and a day.
fn max_lifetime(seconds: u32) -> Result<Duration, ConfigError> {
    if (600..=86_400).contains(&seconds) {
        return Ok(Duration::from_secs(seconds.into()));
    }
    Err(ConfigError::of_field(
        "max-lifetime-seconds",
        seconds,
        "not a lifetime that can be granted",
        "write 600 to 86400",
    ))
}

fn entrances(
    texts: &[String],
    listen: &Listen,
) -> Result<Vec<(AlternateTransport, SocketAddr)>, ConfigError> {
    let mut entrances = Vec::new();
    for text in texts {
        let (kind, ServerAddr(address)) = listen::address("listen", text)?;
        let transport = listen::transport(kind);
        if !listen
            .all()
            .any(|listener| listener == (transport, address))
        {
            return Err(ConfigError::of_field(
                "listen",
                text,
                "the relay does not listen there",
                "add it to `listen` at the top, too",
            ));
        }
        entrances.push((transport, address));
    }
    Ok(entrances)
}

fn each_once(
    field: &str,
    texts: &[String],
    read: impl Fn(&str) -> Result<String, &'static str>,
) -> Result<Vec<String>, ConfigError> {
    let read = |text: &String| {
        let remedy = "write it as clients send it";
        read(text).map_err(|problem| ConfigError::of_field(field, text, problem, remedy))
    };
    let names: BTreeSet<String> = texts.iter().map(read).collect::<Result<_, _>>()?;
    Ok(names.into_iter().collect())
}

/// RFC 6066 section 3: no address, no trailing dot.
fn tls_name(text: &str) -> Result<String, &'static str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let fits = !text.is_empty() && text.len() <= 253 && text.chars().all(is_name);
    if !fits || text.ends_with('.') || text.parse::<std::net::IpAddr>().is_ok() {
        return Err("not a DNS name");
    }
    Ok(text.to_ascii_lowercase())
}

/// RFC 6454 section 6.2: scheme, host, and port if it is not the scheme's own.
fn origin(text: &str) -> Result<String, &'static str> {
    let host = text.split_once("://").map_or("", |(_, host)| host);
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || host.contains(['/', '?', '#', '@']) || !is_plain || text.len() > 267 {
        return Err("not an origin, as https://www.example.org is, without a path");
    }
    Ok(text.to_ascii_lowercase())
}
