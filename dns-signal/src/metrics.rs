//! Every metric of the event loop, with unit and labels. The DNS side registers its own.

use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use traces::TraceStats;

use crate::status::{Board, Picture};

/// Reads the published picture at each scrape.
#[derive(Debug)]
pub(crate) struct LinkMetrics {
    pub(crate) board: Board,
    pub(crate) trace_spans: Arc<TraceStats>,
}

impl Collector for LinkMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let picture: Arc<Picture> = self.board.load_full();
        let agent = &picture.agent;
        let open = i64::try_from(picture.links_open).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("links", "Links that are open", open),
            (
                "discovery_connected",
                "1 while discovery is reachable",
                i64::from(picture.discovery_connected),
            ),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        for (name, help, value) in [
            ("links_offered", "Offers made", agent.links_offered),
            ("links_opened", "Links that opened", agent.links_opened),
            (
                "links_closed",
                "Links that ended, opened or not",
                agent.links_closed,
            ),
            (
                "links_failed",
                "Attempts that led to no open link",
                agent.links_failed,
            ),
            (
                "links_replaced",
                "Links whose place one to another activator took",
                agent.links_replaced,
            ),
            (
                "waiting_frames_dropped",
                "Frames that waited too long",
                agent.dropped_waiting,
            ),
            (
                "stray_datagrams",
                "Datagrams for no link",
                agent.stray_datagrams,
            ),
            (
                "stray_documents",
                "Documents for no link",
                agent.stray_documents,
            ),
            (
                "stray_controls",
                "Control messages without sense",
                agent.stray_controls,
            ),
            (
                "datagrams_refused",
                "Datagrams that the kernel did not take",
                picture.shell.datagrams_refused,
            ),
            (
                "tun_frames_refused",
                "Frames that the device did not take",
                picture.shell.tun_refused,
            ),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let kind = ConstCounter::new(0_u64).metric_type();
        let help = "Frames dropped, by reason";
        let mut family = encoder.encode_descriptor("dropped_frames", help, None, kind)?;
        for (reason, count) in agent.drops() {
            let labels = [("reason", reason.to_string())];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        let help = "Spans for the collector, by what became of them";
        let mut family = encoder.encode_descriptor("trace_spans", help, None, kind)?;
        for (result, count) in self.trace_spans.by_result() {
            let labels = [("result", result)];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
