//! What came of asking the site about users.

use super::{Metrics, labeled};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;
use std::sync::atomic::Ordering;

impl Metrics {
    pub(super) fn encode_hook(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let hook = &self.hook;
        let help = "Answers of the hook";
        let counter = MetricType::Counter;
        let mut family = encoder.encode_descriptor("hook_answers", help, None, counter)?;
        let results = [
            ("found", &hook.found),
            ("refused", &hook.refused),
            ("failed", &hook.failed),
        ];
        for (result, count) in results {
            labeled(&mut family, "result", result, count.load(Ordering::Relaxed))?;
        }
        let without_room = self.sum(|stats, _| stats.lookups_without_room);
        let milliseconds = hook.milliseconds.load(Ordering::Relaxed);
        let counters = [
            (
                "hook_without_room",
                "Requests that found no room to wait for the hook",
                without_room,
            ),
            (
                "hook_milliseconds",
                "Time that answers of the hook took, added up",
                milliseconds,
            ),
        ];
        for (name, help, value) in counters {
            let counter = MetricType::Counter;
            ConstCounter::new(value)
                .encode(encoder.encode_descriptor(name, help, None, counter)?)?;
        }
        let help = "Questions to the hook that are not answered yet";
        let value = ConstGauge::new(hook.in_flight.load(Ordering::Relaxed) as i64);
        value.encode(encoder.encode_descriptor("hook_in_flight", help, None, MetricType::Gauge)?)
    }
}
