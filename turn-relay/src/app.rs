//! The composition: settings become event loops, a registry and an admin port; a signal ends them.

use crate::certificate::Certificate;
use crate::cli::Args;
use crate::config::Settings;
use crate::control::{ControlSender, control};
use crate::eventloop::EventLoop;
use crate::listener::{self, Listener};
use crate::metrics::{Metrics, Published};
use crate::relay_sockets::bind_shared;
use crate::reload::{self, Frame, ReloadStats, Reloader};
use crate::stream::{self, StreamListener, StreamSetup};
use crate::udp::Io;
use anyhow::Context;
use net::Clock;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use service_kit::{Admin, ConfigError, Readiness, SharedRegistry};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc;
use turn_relay_proto::{Server, ServerConfig, Shared};

/// How long a relay address may be missing at the start.
const ADDRESS_DEADLINE: Duration = Duration::from_secs(3);

/// Runs the relay until SIGTERM or SIGINT.
///
/// # Errors
/// When the configuration is wrong, an address cannot be bound, or an event loop fails.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    // Before anything that takes time: until then it ends the process.
    let hangup = reload::hangup()?;
    let settings = Settings::load(args)?;
    let written = reload::written(args)?;
    raise_descriptor_limit();
    let io = choose_io(settings.io)?;
    let readiness = Readiness::new();
    let starting = readiness.task("event-loops");
    let certificate = settings.certificate.clone().map(Certificate::load);
    let certificate = certificate.transpose()?;
    let per_thread = listener::bind(&settings.listen.udp, settings.threads, io)?;
    let streams = stream_setups(&settings, certificate.as_ref())?;
    for address in &settings.relay_addresses {
        wait_for_address(address.bind).await?;
    }
    let listening = announce(&settings, &per_thread[0], &streams[0].listeners, io);
    let mut own: Vec<SocketAddr> = listening.into_iter().map(|address| address.0).collect();

    let registry = service_kit::shared_registry("turn_relay");
    if let Some(address) = settings.admin {
        let admin = Admin::bind(
            address,
            registry.clone(),
            readiness.clone(),
            axum::Router::new(),
        )
        .await?;
        own.push(admin.local_addr()?);
        tracing::info!(address = %admin.local_addr()?, "admin port");
        admin.spawn();
    }
    let stop = Arc::new(EventFd::from_flags(
        EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK,
    )?);
    let reloads = Arc::new(ReloadStats::new(Clock.unix_time()));
    let metrics = Metrics {
        shards: Vec::new(),
        certificate: certificate.clone(),
        reloads: reloads.clone(),
    };
    let per_thread = per_thread.into_iter().zip(streams).collect();
    let frame = frame(&settings, own, io)?;
    let (loops, mut ended) = start(&settings, per_thread, &frame, &stop, &registry, metrics, io)?;
    starting.done();
    if let Some(certificate) = &certificate {
        tokio::spawn(certificate.clone().watch());
    }
    let reloader = Reloader {
        args,
        frame,
        settings,
        written,
        loops,
        certificate,
        stats: reloads,
        hangup,
    };

    tokio::select! {
        signal = service_kit::shutdown_signal() => {
            signal?;
        }
        result = ended.recv() => {
            let result = result.context("all event loops are gone")?;
            return Err(result.err().context("an event loop stopped by itself")?);
        }
        never = reloader.run() => match never {},
    }
    stop.write(1)?;
    // Until all have dropped their ends.
    while let Some(result) = ended.recv().await {
        result?;
    }
    Ok(())
}

/// A new IPv6 address cannot be used for a second or two (duplicate address detection, RFC 4862 section 5.4).
async fn wait_for_address(ip: IpAddr) -> Result<(), ConfigError> {
    let deadline = Clock.now() + ADDRESS_DEADLINE;
    loop {
        match UdpSocket::bind((ip, 0)) {
            Ok(_) => return Ok(()),
            Err(error) if Clock.now() >= deadline => {
                let address = (ip, 0).into();
                return Err(ConfigError::listen("relay-addresses", address, &error));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

type Ended = mpsc::UnboundedReceiver<anyhow::Result<()>>;

/// What all event loops have in common.
fn frame(settings: &Settings, own: Vec<SocketAddr>, io: Io) -> anyhow::Result<Frame> {
    let per_user = settings.usage.allocations_per_user;
    let shared = if settings.relay_networks.is_empty() {
        Shared::new(settings.relay_addresses.clone(), &settings.ports, per_user)
    } else {
        Shared::of_networks(settings.relay_networks.clone(), per_user)
    };
    shared.set_limits(settings.usage);
    Ok(Frame {
        shared: Arc::new(shared),
        own,
        nonce_key: random()?,
        // The lowest rung is the plain one in this, too: what the others do is compared with it.
        short_cut: io != Io::Plain,
    })
}

fn start(
    settings: &Settings,
    per_thread: Vec<(Vec<Listener>, StreamSetup)>,
    frame: &Frame,
    stop: &Arc<EventFd>,
    registry: &SharedRegistry,
    mut metrics: Metrics,
    io: Io,
) -> anyhow::Result<(Vec<ControlSender>, Ended)> {
    let started = Clock.now();
    let families = [true, false].map(|v4| {
        let mut networks = settings.relay_networks.iter();
        networks.any(|network| network.addr().is_ipv4() == v4)
    });
    let is_shared = !settings.relay_networks.is_empty();
    let common = frame.server_config(settings);
    let mut loops = Vec::new();
    let (ending, ended) = mpsc::unbounded_channel();
    for (shard, (listeners, streams)) in (0..settings.threads).zip(per_thread) {
        // Checked with the configuration: even, and within the range.
        let relay_port = is_shared.then(|| settings.ports.start().next_multiple_of(2) + 2 * shard);
        let relay_sockets = relay_port.map_or(Ok(Vec::new()), |port| {
            let failed = |error| {
                let address = (Ipv4Addr::UNSPECIFIED, port).into();
                ConfigError::listen("port-range", address, &error)
            };
            bind_shared(families, port, io).map_err(failed)
        })?;
        let config = ServerConfig {
            relay_port,
            seed: random()?,
            ..common.clone()
        };
        let (sender, receiver) = control(stop.clone())?;
        loops.push(sender);
        let published = Arc::new(Published::default());
        metrics.shards.push(published.clone());
        let server = Server::new(config, started);
        let event_loop = EventLoop::new(
            server,
            listeners,
            streams,
            receiver,
            published,
            relay_sockets,
            io,
        )?;
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
    let mut registry = registry.lock().unwrap_or_else(|e| e.into_inner());
    registry.register_collector(Box::new(metrics));
    Ok((loops, ended))
}

/// What [`Streams`](crate::stream::Streams) of each event loop is made from.
fn stream_setups(
    settings: &Settings,
    certificate: Option<&Arc<Certificate>>,
) -> anyhow::Result<Vec<StreamSetup>> {
    let tls = certificate.map(|c| c.server_config()).transpose()?;
    let setup = || StreamSetup {
        listeners: Vec::new(),
        tls: tls.clone(),
        limits: settings.stream_limits,
    };
    let mut setups: Vec<_> = (0..settings.threads).map(|_| setup()).collect();
    for (kind, address) in &settings.listen.streams {
        let bound = stream::bind(*kind, *address, settings.threads)
            .map_err(|error| ConfigError::listen("listen", address.0, &error))?;
        for (setup, listener) in setups.iter_mut().zip(bound) {
            setup.listeners.push(listener);
        }
    }
    Ok(setups)
}

/// Says what is served and where; the addresses listened on.
fn announce(
    settings: &Settings,
    udp: &[Listener],
    streams: &[StreamListener],
    io: Io,
) -> Vec<model::ServerAddr> {
    let udp = udp.iter().map(|listener| ("udp", listener.address));
    let streams = streams.iter().map(|l| (l.kind.label(), l.address));
    let listen: Vec<_> = udp.chain(streams).collect();
    for (transport, address) in &listen {
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
    if settings.allow_peers.is_empty() {
        tracing::warn!("no peer may be reached: name networks in allow-peers");
    }
    listen.into_iter().map(|(_, address)| address).collect()
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
