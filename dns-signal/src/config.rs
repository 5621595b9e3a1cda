//! The configuration as it is used, checked. As it is written, and what each field means: [`File`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dns_signal_proto::alias::{Alias, Aliases};
use dns_signal_proto::intercept::Suffix;
use dns_signal_proto::virtual_ip::{PoolError, Pools};
use ipnet::{Ipv4Net, Ipv6Net};
use link::{Carrier, PathChoice};
use model::{NetworkName, NodeName};
use service_kit::{ConfigError, load_config};
use traces::TracesConfig;

use crate::config_file::{AliasFile, DnsFile, File, TunnelFile};
use crate::interception::Wish;
use crate::interception::dnsmasq::Dnsmasq;
use crate::upstream::Locator;

/// A configuration that can be used.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it came from, for errors found later.
    pub file: PathBuf,
    /// See [`File::network`].
    pub network: NetworkName,
    /// See [`File::discovery`].
    pub discovery: String,
    /// See [`File::state_directory`].
    pub state_directory: PathBuf,
    /// See [`File::join_token_file`].
    pub join_token_file: Option<PathBuf>,
    /// See [`File::node_name`].
    pub node_name: Option<NodeName>,
    /// See [`File::admin`].
    pub admin: SocketAddr,
    /// See [`File::relay_trust_file`].
    pub relay_trust_file: Option<PathBuf>,
    /// Section `[dns]`.
    pub dns: DnsConfig,
    /// Section `[tunnel]`.
    pub tunnel: TunnelConfig,
    /// Section `[link]`.
    pub link: LinkConfig,
    /// Section `[traces]`.
    pub traces: TracesConfig,
}

/// See [`DnsFile`].
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// See [`DnsFile::listen`].
    pub listen: Vec<SocketAddr>,
    /// See [`DnsFile::upstreams`].
    pub upstreams: Vec<Locator>,
    /// See [`DnsFile::upstream_trust_file`].
    pub upstream_trust_file: Option<PathBuf>,
    /// See [`DnsFile::cache_answers`].
    pub cache_answers: usize,
    /// See [`DnsFile::suffix`].
    pub suffix: Suffix,
    /// See [`DnsFile::ttl`].
    pub ttl: Duration,
    /// See [`DnsFile::interception`].
    pub interception: Wish,
    /// See [`DnsFile::dnsmasq_file`] and [`DnsFile::dnsmasq_reload`].
    pub dnsmasq: Dnsmasq,
    /// See [`DnsFile::alias`].
    pub aliases: Aliases,
}

/// See [`TunnelFile`].
#[derive(Clone, Debug)]
pub struct TunnelConfig {
    /// See [`TunnelFile::interface`].
    pub interface: String,
    /// Both ranges of virtual IPs; [`Pools::device`] is the interface's own addresses.
    pub pools: Pools,
}

/// See [`LinkFile`](crate::config_file::LinkFile).
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// See [`LinkFile::idle_timeout`](crate::config_file::LinkFile::idle_timeout).
    pub idle_timeout: Duration,
    /// See [`LinkFile::carrier`](crate::config_file::LinkFile::carrier).
    pub carrier: Carrier,
    /// See [`LinkFile::path`](crate::config_file::LinkFile::path).
    pub path: PathChoice,
    /// See [`LinkFile::paths`](crate::config_file::LinkFile::paths).
    pub paths: BTreeMap<NetworkName, PathChoice>,
    /// See [`LinkFile::standby`](crate::config_file::LinkFile::standby).
    pub standby: bool,
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// One line that names file, line, field, value, and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file: File = load_config(path)?;
        Self::check(file, path).map_err(|error| error.in_file(path))
    }

    fn check(file: File, path: &Path) -> Result<Self, ConfigError> {
        check_discovery(&file.discovery)?;
        Ok(Self {
            file: path.to_owned(),
            dns: DnsConfig::check(&file.dns, &file.network)?,
            network: file.network,
            discovery: file.discovery,
            state_directory: file.state_directory,
            join_token_file: file.join_token_file,
            node_name: file.node_name,
            admin: file.admin,
            relay_trust_file: file.relay_trust_file,
            tunnel: TunnelConfig::check(file.tunnel)?,
            link: LinkConfig {
                idle_timeout: duration(
                    "link.idle-timeout",
                    &file.link.idle_timeout,
                    Duration::from_secs(1)..=Duration::from_secs(86_400),
                )?,
                carrier: file.link.carrier.parse().map_err(|_| {
                    let remedy = "use \"auto\", \"datagram\" or \"data-channel\"";
                    ConfigError::of_field(
                        "link.carrier",
                        &file.link.carrier,
                        "not a carrier",
                        remedy,
                    )
                })?,
                path: path_choice("link.path", &file.link.path)?,
                paths: file
                    .link
                    .paths
                    .iter()
                    .map(|(network, path)| {
                        let field = format!("link.paths.{network}");
                        Ok((network.clone(), path_choice(&field, path)?))
                    })
                    .collect::<Result<_, ConfigError>>()?,
                standby: file.link.standby,
            },
            traces: file.traces,
        })
    }
}

fn path_choice(field: &str, text: &str) -> Result<PathChoice, ConfigError> {
    let remedy = "use \"auto\", \"relay-only\" or \"direct-only\"";
    text.parse()
        .map_err(|_| ConfigError::of_field(field, text, "not a choice of paths", remedy))
}

impl DnsConfig {
    fn check(file: &DnsFile, own: &NetworkName) -> Result<Self, ConfigError> {
        let listen = addresses("dns.listen", &file.listen, 16, |text| {
            let address = text.parse::<SocketAddr>().ok();
            let address = address.or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)));
            let remedy = "use ADDRESS:PORT, such as 192.0.2.53:53 or [2001:db8::53]:53";
            address.ok_or_else(|| ("not an address".to_owned(), remedy))
        })?;
        let upstreams = addresses("dns.upstreams", &file.upstreams, 8, |text| {
            upstream(text, &listen)
        })?;
        if file.cache_answers > 65_536 {
            return Err(ConfigError::of_field(
                "dns.cache-answers",
                file.cache_answers,
                "too many",
                "use 0 to 65536",
            ));
        }
        let suffix = file.suffix.parse().map_err(|error| {
            ConfigError::of_field(
                "dns.suffix",
                &file.suffix,
                error,
                "use a domain such as mesh.internal",
            )
        })?;
        let ttl = duration(
            "dns.ttl",
            &file.ttl,
            Duration::ZERO..=Duration::from_secs(3600),
        )?;
        if ttl.subsec_nanos() != 0 {
            let remedy = "use 1s or more";
            return Err(ConfigError::of_field(
                "dns.ttl",
                &file.ttl,
                "DNS counts whole seconds",
                remedy,
            ));
        }
        let interception = file.interception.parse().map_err(|error| {
            let remedy = "use \"auto\", \"resolved\", \"redirect\", \"dnsmasq\", \"resolv-conf\" or \"none\"";
            ConfigError::of_field("dns.interception", &file.interception, error, remedy)
        })?;
        Ok(Self {
            listen,
            upstreams,
            upstream_trust_file: file.upstream_trust_file.clone(),
            interception,
            dnsmasq: dnsmasq(file)?,
            cache_answers: file.cache_answers,
            suffix,
            ttl,
            aliases: aliases(&file.alias, own)?,
        })
    }
}

fn dnsmasq(file: &DnsFile) -> Result<Dnsmasq, ConfigError> {
    if let Some(path) = file.dnsmasq_file.as_ref().filter(|it| !it.is_absolute()) {
        let remedy = "use a path such as /etc/dnsmasq.d/turnpike.conf";
        return Err(ConfigError::of_field(
            "dns.dnsmasq-file",
            path.display(),
            "not an absolute path",
            remedy,
        ));
    }
    // They are kept in the state directory, a line each.
    let is_word = |word: &String| !word.is_empty() && !word.contains('\n');
    if let Some(words) = &file.dnsmasq_reload
        && (words.is_empty() || !words.iter().all(is_word))
    {
        let remedy = "use a list such as [\"systemctl\", \"restart\", \"dnsmasq\"]";
        return Err(ConfigError::of_field(
            "dns.dnsmasq-reload",
            format!("{words:?}"),
            "not a program with its arguments",
            remedy,
        ));
    }
    Ok(Dnsmasq {
        file: file.dnsmasq_file.clone(),
        reload: file.dnsmasq_reload.clone(),
    })
}

fn aliases(files: &[AliasFile], own: &NetworkName) -> Result<Aliases, ConfigError> {
    const AT_MOST: usize = 256;
    if files.len() > AT_MOST {
        let problem = format!("{} aliases", files.len());
        let remedy = format!("at most {AT_MOST}; one with `*` can stand for many");
        return Err(ConfigError::of_field("dns.alias", "[…]", problem, remedy));
    }
    let mut aliases = Aliases::new(own.clone());
    for (index, file) in files.iter().enumerate() {
        let field = |name: &str| format!("dns.alias[{index}].{name}");
        let choice = file.choose.parse().map_err(|error| {
            let remedy = "use \"failover\" or \"round-robin\"";
            ConfigError::of_field(&field("choose"), &file.choose, error, remedy)
        })?;
        let alias = Alias {
            service: file.service.clone(),
            networks: file.networks.clone(),
            choice,
        };
        aliases.add(&file.name, alias).map_err(|error| {
            let remedy = "use a name such as api.example.com with its `service`, or *.prod.svc.clusterset.local";
            ConfigError::of_field(&field("name"), &file.name, error, remedy)
        })?;
    }
    Ok(aliases)
}

impl TunnelConfig {
    fn check(file: TunnelFile) -> Result<Self, ConfigError> {
        let name = &file.interface;
        // IFNAMSIZ is 16 with the final zero; the kernel refuses these characters and names.
        let bad_character = |c: char| c == '/' || c == ':' || c == '%' || !c.is_ascii_graphic();
        if name.is_empty()
            || name.len() > 15
            || name.contains(bad_character)
            || name.starts_with('.')
        {
            let remedy = "use 1 to 15 letters, digits, - or _";
            return Err(ConfigError::of_field(
                "tunnel.interface",
                name,
                "not an interface name",
                remedy,
            ));
        }
        const REMEDY: [&str; 2] = [
            "use a range such as 198.18.0.0/15",
            "use a range such as fd74:7572:6e70::/64",
        ];
        let ipv4: Ipv4Net = file.pool_ipv4.parse().map_err(|_| {
            ConfigError::of_field(
                "tunnel.pool-ipv4",
                &file.pool_ipv4,
                "not an IPv4 range",
                REMEDY[0],
            )
        })?;
        let ipv6: Ipv6Net = file.pool_ipv6.parse().map_err(|_| {
            ConfigError::of_field(
                "tunnel.pool-ipv6",
                &file.pool_ipv6,
                "not an IPv6 range",
                REMEDY[1],
            )
        })?;
        let pools = Pools::new(ipv4, ipv6).map_err(|error| {
            let is_ipv4 = match &error {
                PoolError::Ipv4TooSmall(_) => true,
                PoolError::Ipv6TooSmall(_) => false,
                PoolError::NotARange(range, _) | PoolError::NotForHosts(range) => {
                    !range.contains(':')
                }
            };
            if is_ipv4 {
                ConfigError::of_field("tunnel.pool-ipv4", ipv4, error, REMEDY[0])
            } else {
                ConfigError::of_field("tunnel.pool-ipv6", ipv6, error, REMEDY[1])
            }
        })?;
        Ok(Self {
            interface: file.interface,
            pools,
        })
    }
}

fn check_discovery(url: &str) -> Result<(), ConfigError> {
    let authority = url
        .strip_prefix("https://")
        .map(|rest| rest.trim_end_matches('/'));
    let is_good = authority
        .and_then(|authority| authority.rsplit_once(':'))
        .is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(|c: char| c == '/' || c == '@' || c.is_whitespace())
                && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
    if is_good {
        return Ok(());
    }
    let remedy = "use https://HOST:PORT, as `turnpike init` was told";
    Err(ConfigError::of_field(
        "discovery",
        url,
        "not the address of a discovery server",
        remedy,
    ))
}

fn upstream(text: &str, listen: &[SocketAddr]) -> Result<Locator, (String, &'static str)> {
    let upstream = text.parse::<Locator>();
    let upstream = upstream.map_err(|error| (error.to_string(), error.remedy()))?;
    let address = upstream.address;
    if address.ip().is_unspecified() || address.port() == 0 {
        let remedy = "name the resolver's own address and port";
        return Err(("not a resolver's address".to_owned(), remedy));
    }
    if listen.iter().any(|listen| reaches(*listen, address)) {
        let problem = "dns-signal itself listens there, so queries would go round";
        let remedy = "name a resolver that does not forward to this one";
        return Err((problem.to_owned(), remedy));
    }
    Ok(upstream)
}

/// `read` says what a text means, or what is wrong with it and what to do.
fn addresses<T>(
    field: &str,
    texts: &[String],
    at_most: usize,
    read: impl Fn(&str) -> Result<T, (String, &'static str)>,
) -> Result<Vec<T>, ConfigError> {
    if texts.is_empty() {
        let remedy = "name at least one address, such as 127.0.0.1:53";
        return Err(ConfigError::of_field(field, "[]", "no address", remedy));
    }
    if texts.len() > at_most {
        let problem = format!("{} addresses", texts.len());
        return Err(ConfigError::of_field(
            field,
            "[…]",
            problem,
            format!("name at most {at_most}"),
        ));
    }
    let parsed = texts.iter().enumerate().map(|(index, text)| {
        let field = format!("{field}[{index}]");
        read(text).map_err(|(problem, remedy)| ConfigError::of_field(&field, text, problem, remedy))
    });
    parsed.collect()
}

/// Whether what is sent to `upstream` arrives at a socket that listens on `listen`.
fn reaches(listen: SocketAddr, upstream: SocketAddr) -> bool {
    listen.port() == upstream.port()
        && (listen.ip() == upstream.ip()
            || (listen.ip().is_unspecified()
                && upstream.ip().is_loopback()
                && listen.is_ipv4() == upstream.is_ipv4()))
}

fn duration(
    field: &str,
    text: &str,
    range: std::ops::RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    let parsed = humantime::parse_duration(text).map_err(|_| {
        ConfigError::of_field(
            field,
            text,
            "not a duration",
            "use a number with a unit, such as 5s, 2m or 1h",
        )
    })?;
    if range.contains(&parsed) {
        return Ok(parsed);
    }
    let show = |duration: Duration| humantime::format_duration(duration).to_string();
    let remedy = format!("use {} to {}", show(*range.start()), show(*range.end()));
    Err(ConfigError::of_field(field, text, "out of range", remedy))
}
