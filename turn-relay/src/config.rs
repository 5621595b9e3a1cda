//! The config file, the flags over it, and what both come to.

mod file;
mod hook;
mod listen;
mod parse;
mod printed;
mod realm;
mod safety;

use crate::certificate::CertificateFiles;
use crate::cli::Args;
use crate::stream::StreamLimits;
use crate::udp::Io;
use crate::usage::UsageSettings;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use file::File;
use ipnet::{IpNet, Ipv6Net};
pub(crate) use listen::Listen;
pub(crate) use parse::realm as realm_name;
pub(crate) use printed::default_file;
pub(crate) use realm::RealmSettings;
use service_kit::{ConfigError, parse_config, read_config, read_secret_of_field};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use turn_relay_proto::{
    AnswerLimits, Extensions, Limits, RelayAddress, RelayLimits, Revocations, TokenKey,
};

/// RFC 8656 section 7.2: the dynamic ports of RFC 6335.
const PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// How often usage records of users are written, unless configured otherwise.
const USAGE_SECONDS: u32 = 60;

/// All that the service has to know, checked.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The config file as it is written; empty if there is none.
    pub(crate) written: toml::Table,
    pub(crate) listen: Listen,
    /// If a listener needs them.
    pub(crate) certificate: Option<CertificateFiles>,
    /// Load balancers whose connections begin with a PROXY header.
    pub(crate) proxies: Arc<[IpNet]>,
    /// Of each event loop.
    pub(crate) stream_limits: StreamLimits,
    /// At least one; the first is what is configured at the top of the file.
    pub(crate) realms: Vec<RealmSettings>,
    /// Of all realms together.
    pub(crate) relay_limits: RelayLimits,
    pub(crate) relay_addresses: Vec<RelayAddress>,
    /// Instead of relay addresses: networks whose addresses are the allocations', on sockets that they share.
    pub(crate) relay_networks: Vec<IpNet>,
    pub(crate) nat64_prefixes: Vec<Ipv6Net>,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) admin: Option<SocketAddr>,
    /// Event loops, at least 1.
    pub(crate) threads: u16,
    /// Of all event loops together.
    pub(crate) answers: AnswerLimits,
    /// Those of the mind that are configured, and the others as they are.
    pub(crate) limits: Limits,
    /// Forced; otherwise the best that works.
    pub(crate) io: Option<Io>,
    pub(crate) extensions: Extensions,
    /// How long a drain may take; none at all if zero.
    pub(crate) drain: Duration,
    /// The user to become, if it is another.
    pub(crate) run_as: Option<String>,
    /// Whether files and calls are given up that are not needed.
    pub(crate) confinement: bool,
    /// If they are wanted.
    pub(crate) usage_records: Option<UsageSettings>,
}

impl Settings {
    /// Reads the config file, if one is named, and what it names.
    ///
    /// # Errors
    /// One line: which field or flag, its value, what is wrong, and what to do.
    pub(crate) fn load(args: &Args) -> Result<Self, ConfigError> {
        match &args.common.config {
            Some(path) => Self::of(args, path, &read_config(path)?),
            None => Self::of(args, Path::new("-"), ""),
        }
    }

    /// From a config file's text and no flags.
    pub(crate) fn read(text: &str) -> Result<Self, ConfigError> {
        Self::of(&Args::default(), Path::new("-"), text)
    }

    fn of(args: &Args, path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: File = parse_config(path, text)?;
        let written = parse_config(path, text)?;
        let listen = over(("--listen", &args.listen), ("listen", file.listen.clone()));
        let relay = over(
            ("--relay-address", &args.relay_address),
            ("relay-addresses", file.relay_addresses.clone()),
        );
        let external = over(
            ("--external-address", &args.external_address),
            ("external-addresses", file.external_addresses.clone()),
        );
        let proxies = over(
            ("", &[]),
            ("proxy-protocol-from", file.proxy_protocol_from.clone()),
        );
        let nat64 = over(("", &[]), ("nat64-prefixes", file.nat64_prefixes.clone()));
        let answers = safety::answers(&file);
        let mut listen = listen::listen(&listen)?;
        let of_file = |field, values| Values { field, values };
        let alternates = of_file("alternate-servers", file.alternate_servers.clone());
        let alternate_addresses = of_file("alternate-addresses", file.alternate_addresses.clone());
        let certificate = listen::certificate(args, &file, &listen)?;
        let threads = threads(file.threads);
        let stream_limits = listen::limits(&file, threads);
        let limits = listen::mind_limits(&file);
        let realms = realm::all(args, &file, &listen, threads)?;
        let relay_limits = safety::relay_limits(&file);
        let ports = args.port_range.clone().map(|text| ("--port-range", text));
        let ports = ports.or(file.port_range.map(|text| ("port-range", text)));
        let admin = args.admin.clone().map(|text| ("--admin", text));
        let admin = admin.or(file.admin.map(|text| ("admin", text)));
        let ports = ports.map_or(Ok(PORTS), |(field, text)| parse::ports(field, &text))?;
        let sockets = args
            .relay_sockets
            .as_deref()
            .map(|text| ("--relay-sockets", text));
        let is_shared = parse::relay_sockets(sockets, file.relay_sockets.as_deref())?;
        let (relay_addresses, relay_networks) = if is_shared {
            parse::ports_of_shards(&ports, threads)?;
            (Vec::new(), parse::relay_networks(&relay, &external)?)
        } else {
            (
                parse::relay_addresses(&relay, &external, &listen)?,
                Vec::new(),
            )
        };
        let usage_period = seconds(file.usage_seconds, USAGE_SECONDS);
        let extensions = Extensions {
            usage: file.usage_file.is_some(),
            alternates: listen::alternates(&alternates)?,
            // A shared socket cannot go to another event loop.
            mobility: file.mobility.unwrap_or(true) && (!is_shared || threads == 1),
            // Last: what is added to the addresses listened on is not for relayed addresses.
            discovery: listen::discovery(&alternate_addresses, &mut listen)?,
        };
        Ok(Self {
            written,
            relay_addresses,
            relay_networks,
            proxies: parse::each(&proxies, parse::network)?.into(),
            nat64_prefixes: parse::each(&nat64, safety::nat64_prefix)?,
            realms,
            relay_limits,
            answers,
            ports,
            admin: admin
                .map(|(field, text)| parse::admin(field, &text))
                .transpose()?,
            threads,
            limits,
            io: parse::io(
                args.io.as_deref().map(|text| ("--io", text)),
                file.io.as_deref(),
            )?,
            extensions,
            run_as: file.run_as,
            confinement: file.confinement.unwrap_or(true),
            usage_records: file.usage_file.map(|file_path| UsageSettings {
                file: file_path,
                period: usage_period,
            }),
            drain: Duration::from_secs(
                args.drain_seconds
                    .or(file.drain_seconds)
                    .unwrap_or(0)
                    .into(),
            ),
            listen,
            certificate,
            stream_limits,
        })
    }
}

/// The key that is shared with an authorization server.
fn token_key(kid: &str, path: &Path) -> Result<TokenKey, ConfigError> {
    let field = format!("token-keys.{kid}");
    let text = read_secret_of_field(&field, path)?;
    let bytes = STANDARD.decode(text.expose()).ok();
    bytes
        .and_then(|bytes| TokenKey::new(&bytes))
        .ok_or_else(|| {
            ConfigError::of_field(
                &field,
                path.display(),
                "not a key",
                "write 16 or 32 bytes in base64 into the file, as `openssl rand -base64 32` does",
            )
        })
}

/// The names in `revocations-file`, one per line; `#` begins a comment.
///
/// # Errors
/// One line: the field, the file, what is wrong with it, and what to do.
pub(crate) fn revocations(path: &Path) -> Result<Revocations, ConfigError> {
    /// Some hundred thousand names; a wrong path may be a disk.
    const MAX_BYTES: u64 = 16 << 20;
    let wrong = |problem: String, remedy: &str| {
        ConfigError::of_field("revocations-file", path.display(), problem, remedy)
    };
    let unreadable = |error| {
        wrong(
            format!("cannot read it: {error}"),
            "check path and permissions",
        )
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(wrong(
            "not a list of names".into(),
            "name a regular file of at most 16 MiB with a name per line",
        ));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let names = text.lines().map(str::trim);
    let names = names.filter(|name| !name.is_empty() && !name.starts_with('#'));
    Ok(Revocations::new(names))
}

/// A list of values and the flag or field that they are from.
#[derive(Debug)]
struct Values {
    field: &'static str,
    values: Vec<String>,
}

fn over(flag: (&'static str, &[String]), field: (&'static str, Vec<String>)) -> Values {
    if flag.1.is_empty() {
        Values {
            field: field.0,
            values: field.1,
        }
    } else {
        Values {
            field: flag.0,
            values: flag.1.to_vec(),
        }
    }
}

fn threads(configured: Option<NonZeroUsize>) -> u16 {
    let threads = configured
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    // More would be a mistake.
    threads.min(256) as u16
}

/// One event loop's part of a bound.
fn share(all: Option<NonZeroUsize>, default: usize, threads: u16) -> usize {
    let all = all.map_or(default, NonZeroUsize::get);
    all.div_ceil(usize::from(threads))
}

fn seconds(configured: Option<NonZeroU32>, default: u32) -> Duration {
    Duration::from_secs(configured.map_or(default, NonZeroU32::get).into())
}

/// Whether two addresses are of one family.
fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}
