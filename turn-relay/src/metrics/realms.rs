//! What each realm has and does, where there are several.

use super::Metrics;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;
use turn_relay_proto::Usage;

impl Metrics {
    pub(super) fn encode_realms(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let realms = self.shared.realms();
        if realms.len() < 2 {
            return Ok(());
        }
        let help = "Allocations of a realm that exist now";
        let mut held =
            encoder.encode_descriptor("realm_allocations", help, None, MetricType::Gauge)?;
        for realm in &realms {
            let labels = [("realm", &*realm.name)];
            ConstGauge::new(i64::from(realm.allocations)).encode(held.encode_family(&labels)?)?;
        }
        let shards: Vec<_> = self.shards.iter().map(|shard| shard.load().0).collect();
        let help = "Bytes of application data relayed for a realm";
        let mut bytes =
            encoder.encode_descriptor("realm_bytes", help, None, MetricType::Counter)?;
        for (at, realm) in realms.iter().enumerate() {
            let mut sum: Usage = realm.joined;
            for shard in &shards {
                sum.add(shard.realms.get(at).copied().unwrap_or_default());
            }
            for (direction, traffic) in [("to_peer", sum.to_peer), ("to_client", sum.to_client)] {
                let labels = [("realm", &*realm.name), ("direction", direction)];
                ConstCounter::new(traffic.bytes).encode(bytes.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
