//! Composition: config → admin port → mesh → device and kernel → loop.

use std::{path::Path, sync::Arc, time::Duration};

use activator_proto::{
    Forwarder, Gateway, GatewayConfig, forward::nat::NatTable, policy::Exported,
};
use allocations::{AccessFetcher, Allocations};
use anyhow::Context as _;
use discovery_client::{IdentityHandle, JoinError, Settings, StunServers};
use ipnet::IpNet;
use link::{DtlsCertificate, LinkConfig, Reflexive};
use model::Role;
use net::{HostSockets, Poller};
use service_kit::{
    Admin, ConfigError, Readiness, RecordStats, on_own_thread, read_secret_of_field,
    shared_registry, shutdown_signal,
};
use tokio::sync::oneshot;
use traces::TraceStats;
use tun::{Device, TunConfig};
use turn_client::MAX_RESERVATIONS;
use wire::frame::MAX_FRAME_LEN;

use crate::{
    cli::Cli,
    config::Config,
    eventloop::EventLoop,
    flow_log::{self, FlowLog},
    forwarding::Forwarding,
    links::ActiveLinks,
    metrics::{Board, Metrics, ShellStats},
    names::NameServers,
    registration::Publisher,
    report,
    signaling::Signaling,
};

/// Services are started together: discovery may take a moment longer than we do.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);

/// The interface takes what services send, whatever their own network's MTU: over IPv6 the first long datagram of each
/// service would else be lost to path MTU discovery. A link carries it as one message; TCP is kept smaller by its MSS.
const INTERFACE_MTU: u16 = 9000;

/// Runs until told to stop.
///
/// # Errors
/// When something cannot be set up, or fails for good.
pub(crate) async fn run(cli: &Cli) -> anyhow::Result<()> {
    let file = cli.common.config_file()?;
    let mut config: Config = cli.common.load()?;
    if let Some(admin) = cli.admin {
        config.admin = admin;
    }
    let checked = config.check(file)?;
    let settings = settings(&config).map_err(|error| error.in_file(file))?;
    let has_wildcards = checked
        .exports
        .iter()
        .any(|exported| matches!(exported, Exported::Wildcard(_)));
    let (name_servers, answered) = NameServers::new(has_wildcards, &checked.dns_servers)
        .map_err(|error| error.in_file(file))?;

    let readiness = Readiness::new();
    let (discovered, allocated) = (readiness.task("discovery"), readiness.task("allocation"));
    let registry = shared_registry("activator");
    let board = Board::default();
    let collector = config.traces.check().map_err(|error| error.in_file(file))?;
    let trace_spans = Arc::new(TraceStats::default());
    let flow_records = Arc::new(RecordStats::default());
    let writer = config.flow_file.as_deref().map(|flow_file| {
        flow_log::start(flow_file, Arc::clone(&flow_records)).map_err(|error| error.in_file(file))
    });
    let writer = writer.transpose()?;
    if let Some(writer) = &writer {
        let caught = writer.reopen().on_hangup();
        caught.context("cannot wait for SIGHUP")?;
    }
    if let Ok(mut registry) = registry.lock() {
        registry.register_collector(Box::new(Metrics {
            board: board.clone(),
            flow_records: Arc::clone(&flow_records),
            trace_spans: Arc::clone(&trace_spans),
        }));
    }
    let (router, asker, questions) = service_kit::status::route_and_asker();
    Admin::bind(config.admin, registry, readiness, router)
        .await?
        .spawn();

    let identity = join(&settings).await?;
    let node = identity.current().node_id().clone();
    tracing::info!(%node, exports = checked.exports.iter().count(), "joined");
    let trust = relay_trust(&config, &identity).map_err(|error| error.in_file(file))?;
    let (traces, exporting) = collector.start("activator", Some(node.to_string()), trace_spans);
    let certificate = DtlsCertificate::generate().context("cannot make a DTLS certificate")?;

    let (ipv4, ipv6) = checked.pool.interface_addresses();
    let device = Device::create(TunConfig {
        name: config.tunnel.interface.clone(),
        mtu: config.tunnel.mtu.max(INTERFACE_MTU),
        offload: true,
        addresses: vec![IpNet::V4(ipv4), IpNet::V6(ipv6)],
        routes: Vec::new(),
    })?;
    let (ipv4, ipv6) = checked.pool.prefixes();
    let forwarding = Forwarding::set_up(device.name(), ipv4, ipv6)?;
    let poller = Poller::new().context("cannot prepare the event loop")?;
    let sockets = HostSockets::bind(0, &[device.name()]).context("cannot open host sockets")?;
    let watched = sockets.watch(&poller);
    watched.and_then(|()| poller.watch(&device, false))?;

    let (directory, events) =
        discovery_client::start(settings, identity, std::future::pending::<()>());
    let (stun_servers, servers) = StunServers::new(node.network.clone());
    let (fetcher, access) = AccessFetcher::new(directory.clone(), MAX_RESERVATIONS);
    tokio::spawn(report::run(
        directory.clone(),
        asker,
        report::exports(&checked.exports),
    ));
    let gateway = GatewayConfig {
        node,
        instance: getrandom::u64().context("no random numbers")?,
        seed: getrandom::u64().context("no random numbers")?,
        exports: checked.exports,
        limits: checked.limits,
    };
    let mut forwarder = Forwarder::new(NatTable::new(checked.pool), config.tunnel.mtu);
    if writer.is_some() {
        forwarder.tell_flows(Duration::from_secs(config.flow_seconds.into()));
    }
    let eventloop = EventLoop {
        poller,
        gateway: Gateway::new(gateway, forwarder),
        allocations: Allocations::new(Some(trust)),
        links: ActiveLinks::new(checked.limits.total),
        hosts: sockets.addresses(),
        sockets,
        reflexive: Reflexive::new(Arc::clone(&certificate)),
        stun_servers,
        servers,
        device,
        signaling: Signaling::new(directory.clone()),
        publisher: Publisher::new(directory.clone()),
        directory,
        events,
        fetcher,
        name_servers,
        answered,
        runtime: tokio::runtime::Handle::current(),
        access,
        questions,
        certificate,
        paths: checked.paths,
        link_config: LinkConfig {
            carrier: checked.carrier,
            path: checked.path,
            ..LinkConfig::default()
        },
        board,
        stats: ShellStats::default(),
        traces,
        flow_log: writer.as_ref().map(|writer| FlowLog::new(writer.sender())),
        discovered: Some(discovered),
        allocated: Some(allocated),
        bursts: Vec::new(),
        frame: vec![0; MAX_FRAME_LEN],
    };
    let (told, stop) = oneshot::channel();
    tokio::spawn(async move {
        if let Err(error) = shutdown_signal().await {
            tracing::error!(%error, "cannot wait for signals");
        }
        let _ = told.send(());
    });
    let ran = on_own_thread("packets", move || {
        eventloop.run(async {
            let _ = stop.await;
        })
    });
    let ran = match ran.await.context("the event loop ended").flatten() {
        Ok(shutdown) => shutdown.await.context("withdrawing failed"),
        Err(error) => Err(error),
    };
    let removed = forwarding.remove();
    if let Some(writer) = writer {
        writer.end();
    }
    exporting.end().await;
    ran.and(removed)
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

fn settings(config: &Config) -> Result<Settings, ConfigError> {
    let state_directory = config.state_directory.clone();
    let token = discovery_client::token_file(&state_directory, config.join_token_file.as_deref())
        .map(|path| read_secret_of_field("join-token-file", path))
        .transpose()?;
    Ok(Settings {
        discovery: config.discovery.clone(),
        state_directory,
        join_token: token.map(|token| token.expose().to_owned()),
        node_name: config.node_name.as_ref().map(ToString::to_string),
        network: config.network.clone(),
        role: Role::Activator,
    })
}

async fn join(settings: &Settings) -> anyhow::Result<Arc<IdentityHandle>> {
    let joined = discovery_client::join_patiently(settings, Some(JOIN_PATIENCE)).await;
    joined.map_err(|error| match error {
        JoinError::Setting {
            field,
            value,
            problem,
        } => ConfigError::of_field(field, value, problem, "").into(),
        error => error.into(),
    })
}
