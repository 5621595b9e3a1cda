//! Composition.

use std::sync::Arc;

use anyhow::Context as _;
use service_kit::{Admin, Readiness, shared_registry, shutdown_signal};

use crate::config::Config;
use crate::dns_listener::DnsListener;
use crate::dns_metrics::DnsMetrics;
use crate::dns_resolver::Resolver;
use crate::dns_state;

/// Runs until told to stop.
///
/// # Errors
/// When something cannot be set up, or fails for good.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let assigned = dns_state::load(&config.state_directory, config.tunnel.pools);
    let (resolver, mut wanted) = Resolver::new(config.dns.suffix.clone(), assigned);
    let listener = DnsListener::bind(&config.dns, Arc::clone(&resolver))
        .map_err(|error| error.in_file(&config.file))?;

    let registry = shared_registry("dns_signal");
    let metrics = DnsMetrics::new(Arc::clone(&resolver), listener.upstreams());
    if let Ok(mut registry) = registry.lock() {
        registry.register_collector(Box::new(metrics));
    }
    let admin = Admin::bind(config.admin, registry, Readiness::new(), axum::Router::new()).await?;
    admin.spawn();
    tokio::spawn(dns_state::keep(Arc::clone(&resolver), config.state_directory.clone()));
    tokio::spawn(async move { while wanted.recv().await.is_some() {} });

    for address in listener.local_addrs() {
        tracing::info!(%address, suffix = %config.dns.suffix, "answering DNS over UDP and TCP");
    }
    tokio::select! {
        ended = listener.run() => ended.context("DNS failed"),
        signal = shutdown_signal() => signal.map(drop).context("cannot wait for signals"),
    }
}
