//! Every metric of the activator, with unit and labels. All have the prefix `activator_`.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use activator_proto::stats::{DropReason, ForwardStats, GatewayStats, NameStats};
use arc_swap::ArcSwap;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use service_kit::RecordStats;
use traces::TraceStats;

/// What is shown; the event loop renews it a few times a second.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) forward: ForwardStats,
    pub(crate) gateway: GatewayStats,
    pub(crate) name_stats: NameStats,
    pub(crate) names: usize,
    pub(crate) shell: ShellStats,
    pub(crate) links: usize,
    pub(crate) links_open: usize,
    pub(crate) allocations: usize,
    pub(crate) allocations_wanted: usize,
    pub(crate) clients: usize,
    pub(crate) discovery_connected: bool,
}

/// What the event loop itself counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShellStats {
    /// Links that opened.
    pub(crate) links_opened: u64,
    /// Links that ended, opened or not.
    pub(crate) links_closed: u64,
    /// Links that ended without having opened.
    pub(crate) links_failed: u64,
    /// Datagrams that belong to no link.
    pub(crate) stray_datagrams: u64,
    /// Datagrams that neither the kernel nor an allocation took.
    pub(crate) datagrams_refused: u64,
    /// Messages from relays that were dropped.
    pub(crate) relay_messages_dropped: u64,
    /// Documents that were not believed.
    pub(crate) documents_rejected: u64,
    /// Bytes of datagrams sent through allocations.
    pub(crate) relayed_bytes_sent: u64,
    /// Bytes of datagrams that came through allocations.
    pub(crate) relayed_bytes_received: u64,
}

/// Where the picture hangs.
pub(crate) type Board = Arc<ArcSwap<Picture>>;

/// Reads the picture at each scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) board: Board,
    pub(crate) flow_records: Arc<RecordStats>,
    pub(crate) trace_spans: Arc<TraceStats>,
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let picture = **self.board.load();
        let Picture {
            forward,
            gateway,
            shell,
            ..
        } = picture;
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("links", "Links, opening and open", count(picture.links)),
            (
                "links_open",
                "Links that are open",
                count(picture.links_open),
            ),
            (
                "allocations",
                "Allocations that are up",
                count(picture.allocations),
            ),
            (
                "allocations_wanted",
                "Allocations that should be up",
                count(picture.allocations_wanted),
            ),
            ("clients", "Client addresses in use", count(picture.clients)),
            (
                "names",
                "Names below wildcards that are known",
                count(picture.names),
            ),
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
            (
                "registrations",
                "Registrations handed to discovery",
                gateway.registrations,
            ),
            ("links_opened", "Links that opened", shell.links_opened),
            (
                "links_closed",
                "Links that ended, opened or not",
                shell.links_closed,
            ),
            (
                "links_failed",
                "Links that ended without having opened",
                shell.links_failed,
            ),
            (
                "frames_to_services",
                "Frames passed on to services",
                forward.frames_to_services,
            ),
            (
                "frames_to_links",
                "Frames passed on to links",
                forward.frames_to_links,
            ),
            (
                "stray_datagrams",
                "Datagrams for no link",
                shell.stray_datagrams,
            ),
            (
                "datagrams_refused",
                "Datagrams that could not be sent",
                shell.datagrams_refused,
            ),
            (
                "relay_messages_dropped",
                "Messages from relays dropped",
                shell.relay_messages_dropped,
            ),
            (
                "documents_rejected",
                "Documents that were not believed",
                shell.documents_rejected,
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
        for (name, help, value) in [
            (
                "to_services",
                "IP packets passed on to services",
                forward.bytes_to_services,
            ),
            (
                "to_links",
                "IP packets passed on to links",
                forward.bytes_to_links,
            ),
            (
                "relayed_sent",
                "Datagrams sent through allocations",
                shell.relayed_bytes_sent,
            ),
            (
                "relayed_received",
                "Datagrams received through allocations",
                shell.relayed_bytes_received,
            ),
        ] {
            let counter = ConstCounter::new(value);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, Some(&Unit::Bytes), kind)?)?;
        }
        let drops = DropReason::ALL.map(|reason| (reason.as_str(), forward.drops(reason)));
        family(
            &mut encoder,
            "dropped_frames",
            "Frames dropped, by reason",
            "reason",
            &drops,
        )?;
        let offers = [
            ("accepted", gateway.offers_accepted),
            ("refused", gateway.offers_refused),
            ("repeated", gateway.offers_repeated),
        ];
        family(
            &mut encoder,
            "offers",
            "Offers, by what became of them",
            "result",
            &offers,
        )?;
        let refused = [("tcp", forward.tcp_refused), ("udp", forward.udp_refused)];
        let help = "Packets to ports not exported that were answered, by protocol";
        family(&mut encoder, "refused_packets", help, "protocol", &refused)?;
        let NameStats {
            found,
            absent,
            outside,
            failed,
            limited,
        } = picture.name_stats;
        let lookups = [
            ("found", found),
            ("absent", absent),
            ("outside", outside),
            ("failed", failed),
            ("limited", limited),
        ];
        let help = "What this network's DNS was asked for below wildcards, by what became of it";
        family(&mut encoder, "name_lookups", help, "result", &lookups)?;
        let RecordStats { written, lost } = &*self.flow_records;
        let records = [("written", written), ("lost", lost)];
        let records = records.map(|(result, count)| (result, count.load(Ordering::Relaxed)));
        let help = "Records for flow-file, by what became of them";
        family(&mut encoder, "flow_records", help, "result", &records)?;
        let help = "Spans for the collector, by what became of them";
        let spans = self.trace_spans.by_result();
        family(&mut encoder, "trace_spans", help, "result", &spans)
    }
}

fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &'static str,
    values: &[(&'static str, u64)],
) -> Result<(), fmt::Error> {
    let kind = ConstCounter::new(0_u64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (value, count) in values {
        let labels = [(label, *value)];
        ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
