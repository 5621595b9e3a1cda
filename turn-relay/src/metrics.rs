//! Every metric of the service. The event loops publish their counters; they are added up when somebody asks.
//!
//! | name (prefix `turn_relay_`) | unit | labels |
//! |---|---|---|
//! | `allocations`, `permissions`, `channels` | now | |
//! | `allocations_created_total` | allocations | |
//! | `allocations_moved_total` | moves to another five-tuple (RFC 8016) | |
//! | `allocations_ended_total` | allocations | `reason`: deleted, expired, disconnected, revoked |
//! | `relayed_bytes_total` | bytes of application data | `direction`: to_peer, to_client |
//! | `relayed_packets_total` | datagrams | `direction` |
//! | `dropped_packets_total` | datagrams | `reason`: those of `DropReason`, send_buffer_full, send_refused, connection_buffer_full |
//! | `denied_peers_total` | permissions, channels and Send indications refused for their peer | `reason`: those of `Denied` |
//! | `requests_total` | requests | `method` |
//! | `error_responses_total` | answers | `code` |
//! | `icmp_errors_total` | ICMP errors about relayed datagrams | `result`: relayed, ignored |
//! | `answers_unsent_total` | answers | |
//! | `peer_connections_total` | TCP connections with peers | `result`: made, refused (closed at once), bound, unbound (nobody bound them in time) |
//! | `revoked_requests_total` | requests with a revoked credential | |
//! | `hook_answers_total` | answers of the site's own check | `result`: found, refused, failed |
//! | `hook_in_flight` | questions, now | |
//! | `hook_milliseconds_total` | time that the answers took | |
//! | `hook_without_room_total` | requests that could not wait | |
//! | `usage_records_total` | records | `result`: written, lost |
//! | `config_reloads_total` | reloads | `result`: applied, refused |
//! | `config_last_reload_successful` | 1, or 0 if the last was refused | |
//! | `config_applied_timestamp_seconds` | Unix time at which what runs was taken | |
//!
//! With the label `realm`, where there is more than one; a realm that was configured away stays as it was:
//!
//! | name | unit | further labels |
//! |---|---|---|
//! | `realm_allocations` | now | |
//! | `realm_bytes_total` | bytes of application data, those of TCP to peers among them | `direction` |
//!
//! With the label `transport`, what is between client and relay (udp, tcp, tls; no udp where it has no connections):
//!
//! | name | unit | further labels |
//! |---|---|---|
//! | `client_bytes_total` | bytes of application data | `direction` |
//! | `client_packets_total` | datagrams or frames | `direction` |
//! | `connections`, `connections_without_allocation` | now | |
//! | `connections_accepted_total` | connections | |
//! | `connections_refused_total` | connections | `reason`: those of `RefuseReason` |
//! | `connections_closed_total` | connections | `reason`: those of `CloseReason` |
//! | `connection_frames_dropped_total` | frames | |
//! | `joined_connections` | connections now that carry a peer's TCP connection | |
//! | `joined_bytes_total` | bytes that they carried | `direction` |
//! | `tls_handshakes_total` | handshakes completed | |
//! | `certificate_reloads_total` | reloads | `result`: taken, failed; without `transport` |

mod hook;
mod realms;
mod reloads;
mod streams;

use crate::certificate::Certificate;
use crate::hook::HookStats;
use crate::reload::ReloadStats;
use crate::stream::StreamStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use service_kit::RecordStats;
use std::fmt::Error;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use turn_relay_proto::{Denied, DropReason, ERROR_CODES, Shared, Stats};

/// What the mind cannot know: that the kernel did not take a datagram.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShellStats {
    /// Relayed datagrams that found the socket's buffer full.
    pub(crate) send_buffer_full: u64,
    /// Relayed datagrams that the kernel refused: no route, too large.
    pub(crate) send_refused: u64,
    /// Answers to clients, for either reason.
    pub(crate) answers_unsent: u64,
    /// Clients over TCP and TLS.
    pub(crate) streams: StreamStats,
}

/// Where one event loop leaves its counters. Locked every 20 ms at most, never for a packet.
#[derive(Debug, Default)]
pub(crate) struct Published(Mutex<(Stats, ShellStats)>);

impl Published {
    pub(crate) fn store(&self, stats: &Stats, shell: &ShellStats) {
        let mut published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.0.clone_from(stats);
        published.1.clone_from(shell);
    }

    /// Allocations now.
    pub(crate) fn allocations(&self) -> u64 {
        let published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.0.allocations
    }

    fn load(&self) -> (Stats, ShellStats) {
        let published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        published.clone()
    }
}

/// The counters of all event loops together.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) shards: Vec<Arc<Published>>,
    /// If there is a TLS listener.
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) reloads: Arc<ReloadStats>,
    pub(crate) hook: Arc<HookStats>,
    pub(crate) usage: Arc<RecordStats>,
    pub(crate) shared: Arc<Shared>,
}

impl Metrics {
    fn sum(&self, value: impl Fn(&Stats, &ShellStats) -> u64) -> u64 {
        let each = self.shards.iter().map(|shard| {
            let (stats, shell) = shard.load();
            value(&stats, &shell)
        });
        each.sum()
    }
}

type Of = fn(&Stats, &ShellStats) -> u64;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let gauges: [(&str, &str, Of); 3] = [
            ("allocations", "Allocations that exist now", |s, _| {
                s.allocations
            }),
            ("permissions", "Permissions that are stored now", |s, _| {
                s.permissions
            }),
            ("channels", "Channels that are stored now", |s, _| {
                s.channels
            }),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(self.sum(value) as i64);
            gauge.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let counters: [(&str, &str, Of); 4] = [
            (
                "revoked_requests",
                "Requests with a revoked credential",
                |s, _| s.revoked_requests,
            ),
            ("allocations_created", "Allocations made", |s, _| {
                s.allocations_created
            }),
            (
                "allocations_moved",
                "Allocations that went with their clients",
                |s, _| s.allocations_moved,
            ),
            (
                "answers_unsent",
                "Answers that the kernel did not take",
                |_, s| s.answers_unsent,
            ),
        ];
        for (name, help, value) in counters {
            let counter = ConstCounter::new(self.sum(value));
            counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let family = |encoder: &mut DescriptorEncoder<'_>,
                      name: &str,
                      help: &str,
                      label: &'static str,
                      values: &[(String, u64)]| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (text, value) in values {
                labeled(&mut family, label, text, *value)?;
            }
            Ok::<(), Error>(())
        };
        let one = |text: &str, value: Of| (text.to_owned(), self.sum(value));
        family(
            &mut encoder,
            "allocations_ended",
            "Allocations that are over",
            "reason",
            &[
                one("deleted", |s, _| s.allocations_deleted),
                one("expired", |s, _| s.allocations_expired),
                one("disconnected", |s, _| s.allocations_disconnected),
                one("revoked", |s, _| s.allocations_revoked),
            ],
        )?;
        family(
            &mut encoder,
            "relayed_bytes",
            "Bytes of application data relayed",
            "direction",
            &[
                one("to_peer", |s, _| s.to_peer.bytes),
                one("to_client", |s, _| s.to_client.bytes),
            ],
        )?;
        family(
            &mut encoder,
            "relayed_packets",
            "Datagrams relayed",
            "direction",
            &[
                one("to_peer", |s, _| s.to_peer.packets),
                one("to_client", |s, _| s.to_client.packets),
            ],
        )?;
        let mut dropped: Vec<(String, u64)> = DropReason::ALL
            .iter()
            .map(|reason| {
                let value = self.sum(|stats, _| stats.dropped(*reason));
                (reason.label().to_owned(), value)
            })
            .collect();
        dropped.push(one("send_buffer_full", |_, s| s.send_buffer_full));
        dropped.push(one("send_refused", |_, s| s.send_refused));
        dropped.push(one("connection_buffer_full", |_, s| s.streams.dropped()));
        let help = "Datagrams that were ignored or lost";
        family(&mut encoder, "dropped_packets", help, "reason", &dropped)?;
        let denied = Denied::ALL.iter().map(|why| {
            let value = self.sum(|stats, _| stats.denied(*why));
            (why.label().to_owned(), value)
        });
        let help = "Permissions, channels and Send indications that were refused for their peer";
        let denied: Vec<_> = denied.collect();
        family(&mut encoder, "denied_peers", help, "reason", &denied)?;
        let methods: [(&str, Of); 7] = [
            ("connect", |s, _| s.connect_requests),
            ("connection_bind", |s, _| s.connection_bind_requests),
            ("binding", |s, _| s.binding_requests),
            ("allocate", |s, _| s.allocate_requests),
            ("refresh", |s, _| s.refresh_requests),
            ("create_permission", |s, _| s.create_permission_requests),
            ("channel_bind", |s, _| s.channel_bind_requests),
        ];
        let requests = methods.map(|(text, value)| one(text, value));
        let help = "TCP connections with peers (RFC 6062)";
        let peers = [
            one("made", |s, _| s.peer_connections_made),
            one("refused", |s, _| s.peer_connections_refused),
            one("bound", |s, _| s.peer_connections_bound),
            one("unbound", |s, _| s.peer_connections_unbound),
        ];
        family(&mut encoder, "peer_connections", help, "result", &peers)?;
        let help = "Requests, authentic or not";
        family(&mut encoder, "requests", help, "method", &requests)?;
        let icmp = [
            one("relayed", |s, _| s.icmp_relayed),
            one("ignored", |s, _| s.icmp_ignored),
        ];
        let help = "ICMP errors about relayed datagrams (RFC 8656 section 11.5)";
        family(&mut encoder, "icmp_errors", help, "result", &icmp)?;
        let errors = ERROR_CODES.map(|code| {
            let value = self.sum(|stats, _| stats.error_responses(code));
            (code.to_string(), value)
        });
        let help = "Error answers (RFC 8489 section 14.8, RFC 8656 section 19)";
        family(&mut encoder, "error_responses", help, "code", &errors)?;
        self.encode_hook(&mut encoder)?;
        let usage = [("written", &self.usage.written), ("lost", &self.usage.lost)];
        let usage = usage.map(|(text, count)| (text.to_owned(), count.load(Ordering::Relaxed)));
        let help = "Usage records, for usage-file";
        family(&mut encoder, "usage_records", help, "result", &usage)?;
        self.encode_reloads(&mut encoder)?;
        self.encode_realms(&mut encoder)?;
        self.encode_streams(&mut encoder)
    }
}

fn labeled(
    family: &mut MetricEncoder<'_>,
    label: &'static str,
    text: &str,
    value: u64,
) -> Result<(), Error> {
    ConstCounter::new(value).encode(family.encode_family(&[(label, text)])?)
}
