//! Composition, in order: the device, for a resolver of the host may need it; then names are answered, so that a workload
//! can resolve what is not ours whatever becomes of the rest; then the identity, the directory, and the loop.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use allocations::{AccessFetcher, Allocations};
use anyhow::Context as _;
use discovery_client::{IdentityHandle, Settings, StunServers, View};
use dns_signal_proto::agent::{Agent, AgentConfig};
use dns_signal_proto::service::ServiceId;
use dns_signal_proto::services::Services;
use explain::facts::Collision;
use link::DtlsCertificate;
use model::Role;
use net::{AddressChanges, Clock, HostSockets, Poller};
use service_kit::status::{Asked, Asker, Questions};
use service_kit::{
    Admin, ConfigError, Readiness, Task, on_own_thread, read_secret_of_field, shared_registry,
    shutdown_signal,
};
use tokio::sync::{mpsc, watch};
use traces::{Collector, TraceStats};
use tun::{Device, TunConfig};
use turn_client::MAX_RESERVATIONS;

use crate::config::Config;
use crate::dns_listener::DnsListener;
use crate::dns_metrics::DnsMetrics;
use crate::dns_resolver::{Resolver, Wanted};
use crate::dns_state;
use crate::eventloop::EventLoop;
use crate::explain::{Explainer, Rejections, Told};
use crate::interception::{Around, Interception};
use crate::metrics::LinkMetrics;
use crate::openings::Openings;
use crate::routes;
use crate::signaling::Signaling;
use crate::status::{Board, ShellStats, Status};

/// How long an answer to an offer is waited for.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// What a workload's packet may measure. A frame may be larger than a datagram: SCTP cuts it.
const TUNNEL_MTU: u16 = 1_400;

/// Runs until told to stop.
///
/// # Errors
/// When something cannot be set up, or fails for good.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let assigned = dns_state::load(&config.state_directory, config.tunnel.pools);
    let dns = &config.dns;
    let (resolver, wanted) =
        Resolver::with_aliases(dns.suffix.clone(), Some(dns.aliases.clone()), assigned);
    let listener = DnsListener::bind(&config.dns, Arc::clone(&resolver))
        .map_err(|error| error.in_file(&config.file))?;

    let collector = config.traces.check();
    let telling = Telling {
        collector: collector.map_err(|error| error.in_file(&config.file))?,
        spans: Arc::default(),
    };
    let board = Board::default();
    let readiness = Readiness::new();
    let mut ready = Ready {
        enrolled: Some(readiness.task("identity")),
        directory: Some(readiness.task("first view of the directory")),
        device: Some(readiness.task("TUN device")),
    };
    let (asker, asked) = Asker::new();
    let explainer = Arc::new(Explainer {
        config: config.clone(),
        resolver: Arc::clone(&resolver),
        upstreams: listener.upstreams(),
        directory: OnceLock::new(),
        asker,
    });
    let questions = serve_admin(&explainer, &listener, (&board, &telling), readiness).await?;
    let ways_to_ask = WaysToAsk {
        questions,
        asked,
        explainer,
        interception: String::new(),
    };
    tokio::spawn(dns_state::keep(
        Arc::clone(&resolver),
        config.state_directory.clone(),
    ));
    let listen = listener.local_addrs();
    for address in &listen {
        tracing::info!(%address, suffix = %config.dns.suffix, "answering DNS over UDP and TCP");
    }

    let stop = stop_signal();
    let device = open_device(&config)?;
    release(&mut ready.device);
    let upstreams = listener.upstreams();
    let servers = &config.dns.upstreams;
    let upstream_addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let answering = listener.run();
    tokio::pin!(answering);
    // Given up before the sockets are closed.
    let interception = Interception::start(
        config.dns.interception,
        &Around {
            listen: &listen,
            upstreams: &upstream_addresses,
            suffix: &config.dns.suffix,
            aliases: &config.dns.aliases,
            pools: &config.tunnel.pools,
            device: device.index(),
            dnsmasq: &config.dns.dnsmasq,
            state_directory: &config.state_directory,
        },
    )
    .await?;
    tracing::info!(%interception, "interception of DNS");
    upstreams.mark(interception.own_mark());
    let ways_to_ask = WaysToAsk {
        interception: interception.to_string(),
        ..ways_to_ask
    };
    tokio::select! {
        ended = answering => ended.context("DNS failed"),
        ended = tunnel(&config, resolver, wanted, device, (board, ways_to_ask, telling), ready, stop) => ended,
    }
}

/// Turns true when the process is told to stop.
fn stop_signal() -> watch::Receiver<bool> {
    let (told, stop) = watch::channel(false);
    tokio::spawn(async move {
        if let Err(error) = shutdown_signal().await {
            tracing::error!(%error, "cannot wait for signals");
        }
        let _ = told.send(true);
    });
    stop
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|told| *told).await;
}

/// How people ask the event loop, and what is answered beside it.
struct WaysToAsk {
    questions: Questions<Status>,
    asked: mpsc::Receiver<Asked<ServiceId, Told>>,
    explainer: Arc<Explainer>,
    interception: String,
}

/// The way to a collector of traces.
struct Telling {
    collector: Collector,
    spans: Arc<TraceStats>,
}

/// What readiness waits for, released one by one.
struct Ready {
    enrolled: Option<Task>,
    directory: Option<Task>,
    device: Option<Task>,
}

fn release(task: &mut Option<Task>) {
    if let Some(task) = task.take() {
        task.done();
    }
}

async fn serve_admin(
    explainer: &Arc<Explainer>,
    listener: &DnsListener,
    (board, telling): (&Board, &Telling),
    readiness: Readiness,
) -> anyhow::Result<Questions<Status>> {
    let Explainer {
        config, resolver, ..
    } = &**explainer;
    let registry = shared_registry("dns_signal");
    if let Ok(mut registry) = registry.lock() {
        let dns = DnsMetrics::new(Arc::clone(resolver), listener.upstreams());
        registry.register_collector(Box::new(dns));
        registry.register_collector(Box::new(LinkMetrics {
            board: board.clone(),
            trace_spans: Arc::clone(&telling.spans),
        }));
    }
    let (router, questions) = service_kit::status::route();
    let explained = Arc::clone(explainer);
    let explain = service_kit::status::about("/explain", "name", move |name, open| {
        let explainer = Arc::clone(&explained);
        async move { explainer.explain(&name, open).await }
    });
    Admin::bind(config.admin, registry, readiness, router.merge(explain))
        .await
        .map_err(|error| error.in_file(&config.file))?
        .spawn();
    Ok(questions)
}

/// Everything but DNS.
async fn tunnel(
    config: &Config,
    resolver: Arc<Resolver>,
    wanted: mpsc::Receiver<Wanted>,
    device: Device,
    (board, ways_to_ask, telling): (Board, WaysToAsk, Telling),
    mut ready: Ready,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let settings = settings(config)?;
    let identity = tokio::select! {
        joined = discovery_client::join_patiently(&settings, None) => joined?,
        () = stopped(&mut stop) => return Ok(()),
    };
    tracing::info!(node = %identity.current().node_id(), "enrolled");
    release(&mut ready.enrolled);
    let trust = relay_trust(config, &identity).map_err(|error| error.in_file(&config.file))?;

    let node = identity.current().node_id().to_string();
    let Telling { collector, spans } = telling;
    let (traces, exporting) = collector.start("dns-signal", Some(node), spans);

    let device_addresses = config.tunnel.pools.device();
    for Collision {
        pool,
        route,
        interface,
        ..
    } in routes::collisions(&config.tunnel.pools, device.name())
    {
        tracing::warn!(
            pool,
            route,
            interface,
            "the pool of virtual IPs collides with a route of this machine"
        );
    }
    let poller = Poller::new().context("cannot prepare the event loop")?;
    let address_changes =
        AddressChanges::new().context("cannot be told when this host's addresses change")?;
    poller.watch(&address_changes, false)?;
    let sockets = HostSockets::bind(0, &[device.name()])
        .context("cannot bind UDP sockets on this host's addresses")?;
    let watched = sockets.watch(&poller);
    watched.and_then(|()| poller.watch(&device, false))?;
    let hosts = sockets.addresses();
    tracing::info!(candidates = ?hosts, "host candidates");

    let (directory, events) = discovery_client::start(settings, identity, std::future::pending());
    let _ = ways_to_ask.explainer.directory.set(directory.clone());
    let (signaling, failed) = Signaling::new(directory.clone());
    let (fetcher, access) = AccessFetcher::new(directory.clone(), MAX_RESERVATIONS);
    let (stun_servers, servers) = StunServers::new(config.network.clone());
    let agent_config = AgentConfig {
        network: config.network.clone(),
        device_ipv4: device_addresses.ipv4,
        device_ipv6: device_addresses.ipv6,
        idle_timeout: config.link.idle_timeout,
        answer_timeout: ANSWER_TIMEOUT,
        standby: config.link.standby,
        link: link::LinkConfig {
            carrier: config.link.carrier,
            path: config.link.path,
            ..link::LinkConfig::default()
        },
        paths: config.link.paths.clone(),
    };
    let certificate = DtlsCertificate::generate().context("cannot make a DTLS certificate")?;
    let seed = getrandom::u64().context("no random numbers")?;
    let (lookup, told) = (Arc::clone(&resolver), Arc::clone(&resolver));
    let event_loop = EventLoop {
        poller,
        agent: Agent::new(agent_config, certificate, hosts, seed),
        sockets,
        address_changes,
        device,
        device_addresses: [
            IpAddr::from(device_addresses.ipv4),
            IpAddr::from(device_addresses.ipv6),
        ],
        directory: directory.clone(),
        events,
        wanted,
        signaling,
        failed,
        stun_servers,
        servers,
        allocations: Allocations::new(Some(trust)),
        fetcher,
        access,
        interception: ways_to_ask.interception,
        upstreams: Arc::clone(&ways_to_ask.explainer.upstreams),
        questions: ways_to_ask.questions,
        asked: ways_to_ask.asked,
        rejections: Rejections::default(),
        lookup: Box::new(move |address| lookup.destination_of(address)),
        on_verdict: Box::new(move |id, verdict| {
            told.handle_verdict(id, verdict, Clock.now());
        }),
        on_view: Box::new(move |view| {
            publish_services(&resolver, view);
            if view.revision.0 > 0 {
                release(&mut ready.directory);
            }
        }),
        board,
        openings: Openings::new(traces),
        stats: ShellStats::default(),
        bursts: Vec::new(),
    };
    let ran = on_own_thread("packets", move || event_loop.run(stopped(&mut stop)));
    let result = ran.await.context("the event loop ended").flatten();
    directory.shutdown().await;
    exporting.end().await;
    result
}

/// Whose certificates relays may show over TLS.
fn relay_trust(
    config: &Config,
    identity: &IdentityHandle,
) -> Result<Arc<rustls::ClientConfig>, ConfigError> {
    let file = config.relay_trust_file.as_deref();
    let current = identity.current();
    allocations::relay_trust(current.ca_certificate_der(), file).map_err(|problem| {
        let path = file.unwrap_or_else(|| Path::new("")).display();
        ConfigError::of_field("relay-trust-file", path, problem, allocations::TRUST_REMEDY)
    })
}

fn settings(config: &Config) -> anyhow::Result<Settings> {
    let state_directory = config.state_directory.clone();
    let token = discovery_client::token_file(&state_directory, config.join_token_file.as_deref())
        .map(|file| read_secret_of_field("join-token-file", file))
        .transpose()?;
    Ok(Settings {
        discovery: config.discovery.clone(),
        state_directory,
        join_token: token.map(|token| token.expose().to_owned()),
        node_name: config.node_name.as_ref().map(ToString::to_string),
        network: config.network.clone(),
        role: Role::Workload,
    })
}

fn open_device(config: &Config) -> anyhow::Result<Device> {
    let pools = config.tunnel.pools;
    let device = pools.device();
    let tun = TunConfig {
        name: config.tunnel.interface.clone(),
        mtu: TUNNEL_MTU,
        offload: true,
        addresses: vec![
            ipnet::Ipv4Net::new_assert(device.ipv4, 32).into(),
            ipnet::Ipv6Net::new_assert(device.ipv6, 128).into(),
        ],
        routes: vec![pools.ipv4().into(), pools.ipv6().into()],
    };
    let name = &config.tunnel.interface;
    Device::create(&tun).with_context(|| {
        format!("cannot create the TUN device `{name}`: it needs CAP_NET_ADMIN and /dev/net/tun")
    })
}

fn publish_services(resolver: &Resolver, view: &View) {
    if view.revision.0 == 0 {
        return;
    }
    let mut services = Services::new(view.revision.0);
    for known in view.registrations.values() {
        let refused = services.add_registration(&known.registration);
        if refused > 0 {
            tracing::warn!(node = %known.node, refused, "a registration has services without a valid name");
        }
    }
    resolver.publish(services);
}
