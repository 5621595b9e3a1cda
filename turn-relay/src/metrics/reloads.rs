//! How reloads of the configuration went.

use super::{Metrics, labeled};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;
use std::sync::atomic::Ordering;

impl Metrics {
    pub(super) fn encode_reloads(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let reloads = &self.reloads;
        let help = "Reloads of the configuration, on SIGHUP";
        let counter = MetricType::Counter;
        let mut family = encoder.encode_descriptor("config_reloads", help, None, counter)?;
        for (result, count) in [("applied", &reloads.applied), ("refused", &reloads.refused)] {
            labeled(&mut family, "result", result, count.load(Ordering::Relaxed))?;
        }
        let successful = i64::from(!reloads.stale.load(Ordering::Relaxed));
        let since = reloads.since.load(Ordering::Relaxed) as i64;
        let gauges = [
            (
                "config_last_reload_successful",
                "Whether the last reload was applied; 1 before the first",
                successful,
            ),
            (
                "config_applied_timestamp_seconds",
                "When the running configuration was taken",
                since,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = MetricType::Gauge;
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, gauge)?)?;
        }
        Ok(())
    }
}
