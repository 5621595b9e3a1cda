//! Asking this network's own DNS what a name below a wildcard is.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use activator_proto::names::Resolved;
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, RecordType},
    },
    system_conf::read_system_conf,
};
use model::ServiceName;
use service_kit::ConfigError;
use tokio::{runtime::Handle, sync::mpsc};

/// For one server, each time; all in all it stays below the 5 s that a workload's first packets wait for a link.
const TIMEOUT: Duration = Duration::from_millis(1_500);
const DEADLINE: Duration = Duration::from_secs(4);

/// A negative answer without SOA, which would say for how long it may be remembered.
const NEGATIVE: Duration = Duration::from_secs(5);

/// Answers that the event loop has not looked at yet; who answers waits for room.
const MAX_ANSWERS: usize = 64;

/// What became of a question.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) name: ServiceName,
    pub(crate) resolved: Resolved,
}

/// Asks, and has what comes of it handed to the event loop.
#[derive(Debug)]
pub(crate) struct NameServers {
    resolver: Option<Arc<TokioResolver>>,
    runtime: Handle,
    answers: mpsc::Sender<Answered>,
}

impl NameServers {
    /// Asks these servers, or those of `/etc/resolv.conf`. Without `wanted` none are looked for, and nothing is asked.
    ///
    /// # Errors
    /// When there are none to ask.
    pub(crate) fn new(
        wanted: bool,
        servers: &[SocketAddr],
    ) -> Result<(Self, mpsc::Receiver<Answered>), ConfigError> {
        let (answers, answered) = mpsc::channel(MAX_ANSWERS);
        let resolver = wanted.then(|| resolver(servers)).transpose()?;
        let servers = Self {
            resolver: resolver.map(Arc::new),
            runtime: Handle::current(),
            answers,
        };
        Ok((servers, answered))
    }

    /// Asks for a domain's addresses of these families. How many at once, the gateway bounds.
    pub(crate) fn ask(&self, name: ServiceName, domain: &str, (ipv4, ipv6): (bool, bool)) {
        let resolver = self.resolver.clone();
        let answers = self.answers.clone();
        // With its last dot, so that no search domain is tried.
        let domain = Name::from_ascii(format!("{domain}."));
        self.runtime.spawn(async move {
            let resolved = match (resolver, domain) {
                (Some(resolver), Ok(domain)) => {
                    let asked = resolve(&resolver, &domain, (ipv4, ipv6));
                    let answer = tokio::time::timeout(DEADLINE, asked).await;
                    answer.unwrap_or_else(|_| Resolved::Failed("no answer in time".to_owned()))
                }
                _ => Resolved::Absent(NEGATIVE),
            };
            // Closed when the loop has ended: nobody wants to know.
            let _ = answers.send(Answered { name, resolved }).await;
        });
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, ConfigError> {
    let wrong = |value: &str, error: NetError| {
        let remedy =
            "exports with `resolve` need this network's DNS: name its resolvers in dns.servers";
        ConfigError::of_field("dns.servers", value, error, remedy)
    };
    let servers = match servers {
        [] => {
            let read = read_system_conf();
            let (config, _) = read.map_err(|error| wrong("/etc/resolv.conf", error))?;
            config.name_servers().to_vec()
        }
        servers => servers.iter().map(server).collect(),
    };
    let config = ResolverConfig::from_name_servers(servers);
    let mut options = ResolverOpts::default();
    // Answers are remembered by whoever asks here, and by nobody twice.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = TIMEOUT;
    options.attempts = 1;
    options.edns0 = true;
    let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let resolver = builder.with_options(options).build();
    resolver.map_err(|error| wrong("", error))
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// The addresses of both families, if both are wanted; one without any takes nothing from the other.
async fn resolve(resolver: &TokioResolver, domain: &Name, (ipv4, ipv6): (bool, bool)) -> Resolved {
    let one = async |wanted: bool, kind: RecordType| match wanted {
        true => Some(lookup(resolver, domain, kind).await),
        false => None,
    };
    let (ipv4, ipv6) = tokio::join!(one(ipv4, RecordType::A), one(ipv6, RecordType::AAAA));
    let (mut addresses, mut found) = (Vec::new(), None::<Duration>);
    let (mut absent, mut failed) = (None::<Duration>, None);
    for resolved in [ipv4, ipv6].into_iter().flatten() {
        match resolved {
            Resolved::Addresses(more, ttl) => {
                addresses.extend(more);
                found = Some(found.map_or(ttl, |other| other.min(ttl)));
            }
            Resolved::Absent(ttl) => absent = Some(absent.map_or(ttl, |other| other.min(ttl))),
            Resolved::Failed(why) => failed = Some(why),
        }
    }
    match (found, failed) {
        (Some(ttl), _) => Resolved::Addresses(addresses, ttl),
        (None, Some(why)) => Resolved::Failed(why),
        (None, None) => Resolved::Absent(absent.unwrap_or(NEGATIVE)),
    }
}

async fn lookup(resolver: &TokioResolver, domain: &Name, kind: RecordType) -> Resolved {
    match resolver.lookup(domain.clone(), kind).await {
        Ok(lookup) => {
            let address = |data: &RData| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            };
            let answers = lookup.answers().iter();
            let addresses: Vec<IpAddr> = answers.filter_map(|it| address(&it.data)).collect();
            let ttl = lookup
                .valid_until()
                .saturating_duration_since(Instant::now());
            match addresses.is_empty() {
                true => Resolved::Absent(ttl),
                false => Resolved::Addresses(addresses, ttl),
            }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none)))
            if matches!(
                none.response_code,
                ResponseCode::NXDomain | ResponseCode::NoError
            ) =>
        {
            let ttl = none.negative_ttl.map(|ttl| Duration::from_secs(ttl.into()));
            Resolved::Absent(ttl.unwrap_or(NEGATIVE))
        }
        Err(error) => Resolved::Failed(error.to_string()),
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
