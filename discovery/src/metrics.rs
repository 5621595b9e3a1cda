//! Every metric of discovery. Names have the prefix `discovery_`.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::Gauge,
    },
    registry::Registry,
};
use tonic::{Code, Status};
use traces::TraceStats;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    method: &'static str,
    code: String,
}

/// Counters and gauges.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    calls: Family<Call, Counter<u64, AtomicU64>>,
    pub(crate) enrolled: Counter,
    pub(crate) renewed: Counter,
    pub(crate) mail: Counter,
    pub(crate) keys: Gauge<i64, AtomicI64>,
    pub(crate) leases: Gauge<i64, AtomicI64>,
    pub(crate) watches: Gauge<i64, AtomicI64>,
    pub(crate) revision: Gauge<i64, AtomicI64>,
    pub(crate) trace_spans: Arc<TraceStats>,
}

#[derive(Debug)]
struct TraceSpans(Arc<TraceStats>);

impl Collector for TraceSpans {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Spans for the collector, by what became of them";
        let kind = ConstCounter::new(0_u64).metric_type();
        let mut family = encoder.encode_descriptor("trace_spans", help, None, kind)?;
        for (result, count) in self.0.by_result() {
            let labels = [("result", result)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "calls",
            "Answered calls, by method and gRPC code",
            self.calls.clone(),
        );
        registry.register(
            "enrolled",
            "Certificates issued for join tokens",
            self.enrolled.clone(),
        );
        registry.register("renewed", "Certificates renewed", self.renewed.clone());
        registry.register("mail", "Documents put into mailboxes", self.mail.clone());
        registry.register("keys", "Keys in the store", self.keys.clone());
        registry.register("leases", "Leases in the store", self.leases.clone());
        registry.register("watches", "Open watches", self.watches.clone());
        registry.register("revision", "The store's revision", self.revision.clone());
        registry.register_collector(Box::new(TraceSpans(Arc::clone(&self.trace_spans))));
    }

    /// Counts an answer and passes it on.
    pub(crate) fn count<T>(
        &self,
        method: &'static str,
        result: Result<T, Status>,
    ) -> Result<T, Status> {
        let code = result.as_ref().err().map_or(Code::Ok, Status::code);
        self.calls
            .get_or_create(&Call {
                method,
                code: format!("{code:?}"),
            })
            .inc();
        if let Err(status) = &result {
            tracing::debug!(method, code = ?status.code(), reason = status.message(), "refused");
        }
        result
    }
}
