//! The composition: settings become event loops, a registry and an admin port; a signal ends them.

use crate::certificate::Certificate;
use crate::cli::Args;
use crate::config::Settings;
use crate::confine::Confinement;
use crate::control::{ControlSender, control};
use crate::eventloop::{Adoption, EventLoop};
use crate::handover::{Estate, Inheritance, InheritedListeners, Predecessor};
use crate::hook::{Desk, HookStats};
use crate::listener::{self, Listener};
use crate::metrics::{Metrics, Published};
use crate::notify;
use crate::relay_sockets::bind_shared;
use crate::reload::{self, Frame, ReloadStats, Reloader};
use crate::running::{End, Ended, Running, Signals};
use crate::stream::{self, DtlsSetup, StreamListener, StreamSetup};
use crate::tcp_relay::PeerSockets;
use crate::udp::Io;
use crate::usage::{self, UsageSender, UsageWriter};
use anyhow::Context;
use net::Clock;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use service_kit::{Admin, ConfigError, Readiness, RecordStats, SharedRegistry};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use turn_relay_proto::{Server, ServerConfig, Shared};

/// How long a relay address may be missing at the start.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(3);

/// Runs the relay until it is told to stop, or has a successor.
///
/// # Errors
/// When the configuration is wrong, an address cannot be bound, or an event loop fails.
pub(crate) async fn run(args: &Args, confinement: &Confinement) -> anyhow::Result<()> {
    confinement.log();
    // Before anything that takes time: until then it ends the process.
    let hangup = reload::hangup()?;
    let signals = Signals::new()?;
    let predecessor = Predecessor::of_this_process()?;
    let mut settings = Settings::load(args)?;
    raise_descriptor_limit();
    let io = choose_io(settings.io)?;
    let readiness = Readiness::new();
    let starting = readiness.task("event-loops");
    let certificate = settings.certificate.clone().map(Certificate::load);
    let certificate = certificate.transpose()?;
    for address in &settings.relay_addresses {
        // Those of listeners are relay addresses, too, where none are named.
        let mut listened = settings.listen.addresses();
        let field = match listened.any(|at| at.0.ip() == address.bind) {
            true => "listen",
            false => "relay-addresses",
        };
        wait_for_address(field, address.bind).await?;
    }
    // All that may be wrong with the configuration alone has been found: from here on nothing is relayed for a moment.
    let mut legacy = predecessor.as_ref().map(Predecessor::take).transpose()?;
    let mut inherited = InheritedListeners::default();
    if let Some(legacy) = &mut legacy {
        legacy.keep_threads(&mut settings);
        inherited = std::mem::take(&mut legacy.listeners);
    }
    let udp = &settings.listen.udp;
    let per_thread = listener::bind(udp, settings.threads, io, "udp", &mut inherited)?;
    let streams = stream_setups(&settings, certificate.as_ref(), &mut inherited)?;
    drop(inherited);
    let listeners = listeners(&settings, &per_thread[0], &streams[0]);
    announce(&settings, &listeners, io);
    let mut own: Vec<SocketAddr> = listeners.iter().map(|(_, _, address)| *address).collect();

    let registry = service_kit::shared_registry("turn_relay");
    let admin = match settings.admin {
        Some(address) => {
            let socket = legacy
                .as_mut()
                .and_then(|legacy| legacy.claim_admin(address));
            let (registry, readiness) = (registry.clone(), readiness.clone());
            let admin = match socket {
                Some(socket) => Admin::on(socket, registry, readiness, axum::Router::new())?,
                None => Admin::bind(address, registry, readiness, axum::Router::new()).await?,
            };
            own.push(admin.local_addr()?);
            tracing::info!(address = %admin.local_addr()?, "admin port");
            let socket = admin.socket()?;
            admin.spawn();
            Some((address, socket))
        }
        None => None,
    };
    let stop = Arc::new(EventFd::from_flags(
        EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
    )?);
    let reloads = Arc::new(ReloadStats::new(Clock.unix_time()));
    let usage_stats = Arc::new(RecordStats::default());
    let published = vec_of(settings.threads);
    let per_thread = per_thread.into_iter().zip(streams).collect();
    let hook_stats = Arc::new(HookStats::default());
    let mut frame = frame(&settings, own, listeners.clone(), &hook_stats, io)?;
    let metrics = Metrics {
        usage: usage_stats.clone(),
        shards: published.clone(),
        certificate: certificate.clone(),
        reloads: reloads.clone(),
        hook: hook_stats.clone(),
        shared: frame.shared.clone(),
    };
    let mut nonce_start = Clock.now();
    if let Some(legacy) = &legacy {
        frame.nonce_key = legacy.nonce_key;
        nonce_start = legacy.nonce_start;
    }
    let usage = settings.usage_records.as_ref();
    let usage = usage.map(|to| usage::start(to, usage_stats.clone()));
    let usage = usage.transpose()?;
    let mut made = make(
        &settings,
        per_thread,
        &frame,
        &stop,
        &published,
        nonce_start,
        legacy,
        io,
    )?;
    for (event_loop, _) in &mut made {
        if let Some(usage) = &usage {
            event_loop.record_usage(UsageSender(usage.sender()));
        }
    }
    let (loops, ended) = start(made)?;
    lock(&registry).register_collector(Box::new(metrics));
    if let Some(predecessor) = predecessor {
        predecessor.took()?;
    }
    starting.done();
    notify::ready();
    if let Some(certificate) = &certificate {
        tokio::spawn(certificate.clone().watch());
    }
    let mut running = Running {
        signals,
        ended,
        loops: loops.clone(),
        published,
        readiness,
        drain: settings.drain,
        usage: usage
            .as_ref()
            .zip(settings.usage_records.as_ref())
            .map(|(usage, settings)| (UsageSender(usage.sender()), settings.period)),
        estate: Arc::new(Estate {
            nonce_key: frame.nonce_key,
            nonce_start,
            listeners,
            admin,
            loops: loops.clone(),
        }),
    };
    let reloader = Reloader {
        args,
        frame,
        settings,
        loops,
        certificate,
        stats: reloads,
        reopen: usage.as_ref().map(UsageWriter::reopen),
        hangup,
    };

    let end = tokio::select! {
        end = running.until_over() => end?,
        never = reloader.run() => match never {},
    };
    if end == End::Told {
        stop.write(1)?;
    }
    // Until all have dropped their ends.
    while let Some(result) = running.ended.recv().await {
        result?;
    }
    if let Some(usage) = usage {
        usage.end();
    }
    Ok(())
}

/// A new IPv6 address cannot be used for a second or two (duplicate address detection, RFC 4862 section 5.4).
async fn wait_for_address(field: &'static str, ip: IpAddr) -> Result<(), ConfigError> {
    let deadline = Clock.now() + ADDRESS_DEADLINE;
    loop {
        match UdpSocket::bind((ip, 0)) {
            Ok(_) => return Ok(()),
            Err(error) if Clock.now() >= deadline => {
                let address = (ip, 0).into();
                return Err(ConfigError::listen(field, address, &error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn vec_of(threads: u16) -> Vec<Arc<Published>> {
    (0..threads).map(|_| Arc::default()).collect()
}

fn lock(
    registry: &SharedRegistry,
) -> std::sync::MutexGuard<'_, prometheus_client::registry::Registry> {
    registry.lock().unwrap_or_else(|e| e.into_inner())
}

/// What all event loops have in common.
fn frame(
    settings: &Settings,
    own: Vec<SocketAddr>,
    listeners: Vec<(&'static str, SocketAddr, SocketAddr)>,
    hook_stats: &Arc<HookStats>,
    io: Io,
) -> anyhow::Result<Frame> {
    let per_user = settings.realms[0].usage.allocations_per_user;
    let shared = if settings.relay_networks.is_empty() {
        Shared::new(settings.relay_addresses.clone(), &settings.ports, per_user)
    } else {
        Shared::of_networks(settings.relay_networks.clone(), per_user)
    };
    let frame = Frame {
        shared: Arc::new(shared),
        own,
        listeners,
        nonce_key: random()?,
        desk: Desk::open(&settings.realms, hook_stats.clone()),
        // The lowest rung is the plain one in this, too: what the others do is compared with it.
        short_cut: io != Io::Plain,
    };
    frame.set_limits(settings, None);
    Ok(frame)
}

/// The event loops, with all that a predecessor left: none of them runs yet.
#[expect(clippy::too_many_arguments, reason = "the composition's own")]
fn make(
    settings: &Settings,
    per_thread: Vec<(Vec<Listener>, StreamSetup)>,
    frame: &Frame,
    stop: &Arc<EventFd>,
    published: &[Arc<Published>],
    nonce_start: Instant,
    legacy: Option<Inheritance>,
    io: Io,
) -> anyhow::Result<Vec<(EventLoop, ControlSender)>> {
    let families = [true, false].map(|v4| {
        let mut networks = settings.relay_networks.iter();
        networks.any(|network| network.addr().is_ipv4() == v4)
    });
    let is_shared = !settings.relay_networks.is_empty();
    let common = frame.server_config(settings);
    let at = legacy.as_ref().map(|legacy| legacy.at);
    let mut left = legacy.into_iter().flat_map(|legacy| legacy.shards);
    let mut made = Vec::new();
    let mut adopted = Adoption::default();
    for ((shard, (listeners, streams)), published) in
        (0..settings.threads).zip(per_thread).zip(published)
    {
        let mut left = left.next();
        // Checked with the configuration: even, and within the range.
        let relay_port = is_shared.then(|| settings.ports.start().next_multiple_of(2) + 2 * shard);
        let relay_sockets = relay_port.map_or(Ok(Vec::new()), |port| {
            let failed = |error| {
                let address = (Ipv4Addr::UNSPECIFIED, port).into();
                ConfigError::listen("port-range", address, &error)
            };
            let inherited = left
                .as_mut()
                .and_then(|left| left.claim_shared(families, port));
            inherited.map_or_else(|| bind_shared(families, port, io).map_err(failed), Ok)
        })?;
        let config = ServerConfig {
            relay_port,
            seed: random()?,
            ..common.clone()
        };
        let (sender, receiver) = control(stop.clone())?;
        let asks = frame.desk.asks(sender.clone());
        let server = Server::new(config, nonce_start);
        let mut event_loop = EventLoop::new(
            server,
            listeners,
            streams,
            (receiver, asks),
            published.clone(),
            relay_sockets,
            io,
        )?;
        if let (Some(left), Some(at)) = (left, at) {
            adopted.add(event_loop.adopt(left, at)?);
        }
        made.push((event_loop, sender));
    }
    if at.is_some() {
        let Adoption {
            allocations,
            left_out,
            connections,
        } = adopted;
        tracing::info!(allocations, left_out, connections, "took over");
    }
    Ok(made)
}

fn start(made: Vec<(EventLoop, ControlSender)>) -> anyhow::Result<(Vec<ControlSender>, Ended)> {
    let (made, loops): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    let (ending, ended) = mpsc::unbounded_channel();
    for (shard, mut event_loop) in (0..).zip(made) {
        event_loop.set_shards(shard, loops.clone());
        let ending = ending.clone();
        thread::Builder::new()
            .name(format!("relay-{shard}"))
            .spawn(move || {
                // A loop that is gone silently would leave its share of the clients without answer.
                let result = catch_unwind(AssertUnwindSafe(|| event_loop.run()));
                let result = match result {
                    Ok(result) => result.context("an event loop failed"),
                    Err(_) => Err(anyhow::anyhow!("an event loop panicked")),
                };
                // Nobody listens any more when another one failed before.
                let _ = ending.send(result);
            })?;
    }
    Ok((loops, ended))
}

/// Each with its transport, as configured and as it is: in the order in which an event loop has them.
fn listeners(
    settings: &Settings,
    udp: &[Listener],
    streams: &StreamSetup,
) -> Vec<(&'static str, SocketAddr, SocketAddr)> {
    let configured = settings.listen.addresses().map(|address| address.0);
    let udp = udp.iter().map(|l| ("udp", l.address.0));
    let dtls = streams.dtls.listeners.iter().map(|l| ("dtls", l.address.0));
    let streams = streams.listeners.iter();
    let streams = streams.map(|l| (l.kind.label(), l.address.0));
    let actual = udp.chain(streams).chain(dtls).zip(configured);
    actual
        .map(|((label, address), configured)| (label, configured, address))
        .collect()
}

/// What [`Streams`](crate::stream::Streams) of each event loop is made from.
fn stream_setups(
    settings: &Settings,
    certificate: Option<&Arc<Certificate>>,
    inherited: &mut InheritedListeners,
) -> anyhow::Result<Vec<StreamSetup>> {
    let tls = certificate.map(|c| c.server_config()).transpose()?;
    let peers = Arc::new(PeerSockets::default());
    // One datagram at a time is read from these.
    let dtls = &settings.listen.dtls;
    let dtls = listener::bind(dtls, settings.threads, Io::Plain, "dtls", inherited)?;
    let config = match settings.listen.dtls.is_empty() {
        true => None,
        false => Some(DtlsSetup::config(&settings.stream_limits)?),
    };
    let cookie_key = random()?;
    let setup = |listeners| StreamSetup {
        dtls: DtlsSetup {
            listeners,
            certificate: certificate.cloned(),
            config: config.clone(),
            cookie_key,
        },
        proxies: settings.proxies.clone(),
        peers: peers.clone(),
        listeners: Vec::new(),
        tls: tls.clone(),
        limits: settings.stream_limits,
    };
    let mut setups: Vec<_> = dtls.into_iter().map(setup).collect();
    for (kind, address) in &settings.listen.streams {
        let bound = match inherited.claim(kind.label(), address.0) {
            Some((address, sockets)) => sockets
                .into_iter()
                .map(|socket| StreamListener {
                    kind: *kind,
                    socket: socket.into(),
                    address: model::ServerAddr(address),
                })
                .collect(),
            None => stream::bind(*kind, *address, settings.threads)
                .map_err(|error| ConfigError::listen("listen", address.0, &error))?,
        };
        for (setup, listener) in setups.iter_mut().zip(bound) {
            setup.listeners.push(listener);
        }
    }
    Ok(setups)
}

/// Says what is served and where.
fn announce(settings: &Settings, listeners: &[(&str, SocketAddr, SocketAddr)], io: Io) {
    for (transport, _, address) in listeners {
        tracing::info!(address = %format_args!("{transport}://{address}"), "listening");
    }
    let addresses = settings.relay_addresses.iter();
    let addresses = addresses.map(|address| address.bind.to_string());
    let networks = settings.relay_networks.iter().map(ToString::to_string);
    let relay: Vec<String> = addresses.chain(networks).collect();
    tracing::info!(
        addresses = relay.join(", "),
        ports = %format_args!("{}-{}", settings.ports.start(), settings.ports.end()),
        threads = settings.threads,
        %io,
        "relaying"
    );
    for realm in settings.realms.iter().filter(|r| r.allow_peers.is_empty()) {
        let realm = realm.name();
        tracing::warn!(
            realm,
            "no peer may be reached: name networks in allow-peers"
        );
    }
}

/// The highest rung of the ladder that works here, or the one that is forced.
fn choose_io(forced: Option<Io>) -> Result<Io, ConfigError> {
    let Some(io) = forced else {
        return Ok(Io::probe());
    };
    let missing = |error: std::io::Error| {
        let problem = format!("this kernel cannot: {error}");
        ConfigError::of_field("io", io, problem, "leave it out, or write `auto`")
    };
    io.works().map_err(missing)?;
    Ok(io)
}

/// One descriptor per relayed address: as many as the system lets us have.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn random() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).context("no randomness from the system")?;
    Ok(bytes)
}
