//! Metrics by the transport between client and relay.

use super::Metrics;
use crate::stream::{CloseReason, DtlsDropReason, OfTransport, RefuseReason, StreamKind};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;
use std::sync::atomic::Ordering;

type Labels<'l> = Vec<(&'static str, &'l str)>;
type Of = fn(&OfTransport) -> u64;

impl Metrics {
    fn of(&self, kind: StreamKind, value: impl Fn(&OfTransport) -> u64) -> u64 {
        self.sum(|_, shell| value(shell.streams.of(kind)))
    }

    /// For each transport but UDP.
    fn each(&self, value: Of) -> Vec<(Labels<'static>, u64)> {
        StreamKind::ALL
            .map(|kind| (vec![("transport", kind.label())], self.of(kind, value)))
            .to_vec()
    }

    /// What clients of each transport sent and got. Of UDP, what is left of all.
    fn relayed(
        &self,
        of: impl Fn(&turn_relay_proto::Traffic) -> u64,
    ) -> Vec<(Labels<'static>, u64)> {
        let mut all = Vec::new();
        for direction in ["to_peer", "to_client"] {
            let to_peer = direction == "to_peer";
            let streams = StreamKind::ALL.map(|kind| {
                let value = self.of(kind, |t| {
                    of(if to_peer { &t.to_peer } else { &t.to_client })
                });
                (kind.label(), value)
            });
            let total = self.sum(|s, _| of(if to_peer { &s.to_peer } else { &s.to_client }));
            let over_others: u64 = streams.iter().map(|(_, value)| value).sum();
            let udp = total.saturating_sub(over_others);
            for (transport, value) in [("udp", udp)].into_iter().chain(streams) {
                let labels = vec![("transport", transport), ("direction", direction)];
                all.push((labels, value));
            }
        }
        all
    }

    pub(super) fn encode_streams(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let help = "Bytes of application data relayed, by the client's transport";
        counters(encoder, "client_bytes", help, &self.relayed(|t| t.bytes))?;
        let help = "Datagrams and frames relayed, by the client's transport";
        counters(
            encoder,
            "client_packets",
            help,
            &self.relayed(|t| t.packets),
        )?;
        let gauges: [(&str, &str, Of); 3] = [
            (
                "joined_connections",
                "Connections now that carry a peer's TCP connection",
                |t| t.joined,
            ),
            ("connections", "Connections now", |t| t.connections),
            (
                "connections_without_allocation",
                "Connections now that have no allocation",
                |t| t.strangers,
            ),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, value) in self.each(value) {
                ConstGauge::new(value as i64).encode(family.encode_family(&labels)?)?;
            }
        }
        let plain: [(&str, &str, Of); 3] = [
            ("connections_accepted", "Connections accepted", |t| {
                t.accepted
            }),
            (
                "connection_frames_dropped",
                "Frames for clients that read too slowly",
                |t| t.dropped.packets,
            ),
            (
                "tls_handshakes",
                "Handshakes of TLS and DTLS completed",
                |t| t.handshakes,
            ),
        ];
        for (name, help, value) in plain {
            counters(encoder, name, help, &self.each(value))?;
        }
        let mut joined = Vec::new();
        for kind in StreamKind::ALL {
            let labels = |direction| vec![("transport", kind.label()), ("direction", direction)];
            joined.push((labels("to_peer"), self.of(kind, |t| t.joined_to_peer)));
            joined.push((labels("to_client"), self.of(kind, |t| t.joined_to_client)));
        }
        let help = "Bytes carried between clients and peers over TCP";
        counters(encoder, "joined_bytes", help, &joined)?;
        let mut refused = Vec::new();
        let mut closed = Vec::new();
        for kind in StreamKind::ALL {
            let labels = |reason| vec![("transport", kind.label()), ("reason", reason)];
            for (index, reason) in RefuseReason::ALL.iter().enumerate() {
                let value = self.of(kind, |t| t.refused[index]);
                refused.push((labels(reason.label()), value));
            }
            for (index, reason) in CloseReason::ALL.iter().enumerate() {
                let value = self.of(kind, |t| t.closed[index]);
                closed.push((labels(reason.label()), value));
            }
        }
        let help = "Connections closed as soon as they came";
        counters(encoder, "connections_refused", help, &refused)?;
        counters(encoder, "connections_closed", "Connections closed", &closed)?;
        let dropped: Vec<_> = DtlsDropReason::ALL
            .iter()
            .enumerate()
            .map(|(index, reason)| {
                let value = self.sum(|_, shell| shell.streams.dtls_dropped[index]);
                (vec![("reason", reason.label())], value)
            })
            .collect();
        let help = "Datagrams for DTLS listeners that were dropped";
        counters(encoder, "dtls_datagrams_dropped", help, &dropped)?;
        let cookies = self.sum(|_, shell| shell.streams.dtls_cookies);
        let help = "Cookies sent to clients of DTLS that had not shown one";
        let counter = MetricType::Counter;
        ConstCounter::new(cookies).encode(encoder.encode_descriptor(
            "dtls_cookies",
            help,
            None,
            counter,
        )?)?;
        let Some(certificate) = &self.certificate else {
            return Ok(());
        };
        let results = [
            ("taken", &certificate.reloads),
            ("failed", &certificate.failed_reloads),
        ];
        let results = results.map(|(result, count)| {
            let labels = vec![("result", result)];
            (labels, count.load(Ordering::Relaxed))
        });
        let help = "Times that the certificate's files had changed";
        counters(encoder, "certificate_reloads", help, &results)
    }
}

fn counters(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    values: &[(Labels<'_>, u64)],
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in values {
        ConstCounter::new(*value).encode(family.encode_family(labels)?)?;
    }
    Ok(())
}
