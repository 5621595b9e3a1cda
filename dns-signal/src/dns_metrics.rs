//! Every metric of the DNS side, with labels; read from the counters at each scrape.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::dns_resolver::Resolver;
use crate::upstream::Upstreams;

/// To be registered with `Registry::register_collector`.
#[derive(Debug)]
pub struct DnsMetrics {
    resolver: Arc<Resolver>,
    upstreams: Arc<Upstreams>,
}

impl DnsMetrics {
    /// Reads the counters of these two.
    pub fn new(resolver: Arc<Resolver>, upstreams: Arc<Upstreams>) -> Self {
        Self {
            resolver,
            upstreams,
        }
    }
}

impl Collector for DnsMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.resolver.stats();
        let mut family =
            |name: &str, help: &str, label: &str, values: &[(&str, u64)]| -> fmt::Result {
                let kind = ConstCounter::new(0_u64).metric_type();
                let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
                for (value, count) in values {
                    let labels = [(label, *value)];
                    ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
                }
                Ok(())
            };
        let transports = [("udp", stats.udp.get()), ("tcp", stats.tcp.get())];
        family(
            "dns_queries",
            "DNS messages that came in",
            "transport",
            &transports,
        )?;
        let outcomes = [
            ("remote", stats.remote.get()),
            ("pointer", stats.pointer.get()),
            ("no_data", stats.no_data.get()),
            ("no_such_name", stats.no_such_name.get()),
            ("directory_unknown", stats.directory_unknown.get()),
            ("pool_exhausted", stats.pool_exhausted.get()),
            ("wildcard_full", stats.wildcard_full.get()),
            ("refused", stats.refused.get()),
            ("malformed", stats.malformed.get()),
            ("unanswerable", stats.unanswerable.get()),
            ("forwarded", stats.forwarded.get()),
            ("cached", stats.cached.get()),
            ("upstream_failed", stats.upstream_failed.get()),
            ("forward_limit", stats.forward_limit.get()),
        ];
        family(
            "dns_outcomes",
            "What became of DNS messages",
            "outcome",
            &outcomes,
        )?;
        let troubles = [
            ("upstream_timeout", stats.upstream_timeouts.get()),
            ("upstream_mismatch", stats.upstream_mismatches.get()),
            ("upstream_unreachable", stats.upstream_unreachable.get()),
            ("upstream_untrusted", stats.upstream_untrusted.get()),
            ("upstream_lost", stats.upstream_lost.get()),
            ("tcp_limit", stats.tcp_limit.get()),
            ("send_failed", stats.send_failed.get()),
            ("wanted_lost", stats.wanted_lost.get()),
        ];
        family(
            "dns_troubles",
            "What went wrong on the way of DNS messages",
            "trouble",
            &troubles,
        )?;

        let connections = ConstCounter::new(stats.upstream_connections.get());
        connections.encode(encoder.encode_descriptor(
            "dns_upstream_connections",
            "Encrypted connections to upstreams that were made",
            None,
            connections.metric_type(),
        )?)?;
        let mut gauge = |name: &str, help: &str, value: usize| -> fmt::Result {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        gauge(
            "dns_forwards_in_flight",
            "Queries waiting for upstreams",
            self.upstreams.in_flight(),
        )?;
        gauge(
            "virtual_ips",
            "Services that have a virtual IP",
            self.resolver.assigned_count(),
        )?;
        gauge(
            "virtual_ips_lent",
            "Names below wildcards among them",
            self.resolver.lent_count(),
        )
    }
}
