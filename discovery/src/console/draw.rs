//! The picture, made of the directory and of what activators report. Texts of nodes are bounded here; the page makes text of them.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use identity::Verifier;
use model::{NetworkName, NodeId, Role, UnixTime};
use prost::Message as _;
use protocol::{
    directory::Relay as RelayValue,
    document::{self, Registration, SignedDocument, document::Body, relay_trouble::Kind},
};

use super::{
    picture::{Activator, Exporter, Foothold, Link, Network, Picture, Relay, Service, Trouble},
    verdict,
};
use crate::{
    records::NodeRecord,
    reports::{Report, bounded},
    store::Core,
};

/// More than this is not drawn, only counted.
const MAX_ACTIVATORS: usize = 500;
const MAX_SERVICES: usize = 2_000;
const MAX_LINKS: usize = 2_000;
const MAX_NODES: usize = 20_000;
/// Of one activator; its registration has no more than 16 KiB.
const MAX_LIST: usize = 128;

/// What the store has of it: copied under its lock, looked at outside.
#[derive(Debug, Default)]
pub(crate) struct Raw {
    revision: u64,
    relays: Vec<Arc<[u8]>>,
    registrations: Vec<(String, Arc<[u8]>, Option<Instant>)>,
    nodes: Vec<(String, Arc<[u8]>)>,
    left_out: usize,
}

impl Raw {
    pub(crate) fn of(core: &Core) -> Self {
        let registrations = core.range("registration/").take(MAX_ACTIVATORS);
        let nodes = core.range("node/").take(MAX_NODES);
        Self {
            revision: core.revision().0,
            relays: core
                .range("relay/")
                .map(|(_, entry)| entry.value.clone())
                .collect(),
            registrations: registrations
                .map(|(key, entry)| {
                    let lease = entry.lease.and_then(|id| core.lease_deadline(id));
                    (key.to_string(), entry.value.clone(), lease)
                })
                .collect(),
            nodes: nodes
                .map(|(key, entry)| (key.to_string(), entry.value.clone()))
                .collect(),
            left_out: core.range("registration/").skip(MAX_ACTIVATORS).count()
                + core.range("node/").skip(MAX_NODES).count(),
        }
    }
}

/// Of what the picture is made, beside the store.
pub(crate) struct Around<'a> {
    pub(crate) mesh: &'a str,
    pub(crate) verifier: &'a Verifier,
    pub(crate) reports: &'a BTreeMap<NodeId, Report>,
    pub(crate) time: UnixTime,
    pub(crate) now: Instant,
}

#[derive(Default)]
struct Drawing {
    networks: BTreeMap<String, Network>,
    services: BTreeMap<(String, String), Service>,
    left_out: usize,
}

impl Drawing {
    fn network(&mut self, name: &str) -> &mut Network {
        self.networks
            .entry(name.to_owned())
            .or_insert_with(|| Network {
                name: name.to_owned(),
                ..Network::default()
            })
    }
}

/// The picture as of now.
pub(crate) fn picture(raw: &Raw, around: &Around<'_>) -> Picture {
    let mut drawing = Drawing {
        left_out: raw.left_out,
        ..Drawing::default()
    };
    for value in &raw.relays {
        if let Ok(relay) = RelayValue::decode(&**value) {
            drawing.network(&relay.network).relays.push(Relay {
                name: relay.name,
                urls: [vec![relay.url], relay.more_urls].concat(),
                holders: 0,
                troubled: 0,
            });
        }
    }
    for (key, value) in &raw.nodes {
        count_workload(&mut drawing, key, value, around.time);
    }
    for (key, value, lease) in &raw.registrations {
        registration(&mut drawing, key, value, *lease, around);
    }
    let Drawing {
        mut networks,
        services,
        mut left_out,
    } = drawing;
    count_holders(&mut networks);
    let networks: Vec<Network> = networks.into_values().collect();
    left_out += services.len().saturating_sub(MAX_SERVICES);
    let services = services.into_values().take(MAX_SERVICES);
    let services = services
        .map(|mut service| {
            service.findings = verdict::of(&service, &networks);
            service
        })
        .collect();
    let links: usize = around
        .reports
        .values()
        .map(|report| report.links.len())
        .sum();
    let links_in_all = around.reports.values().map(|report| report.links_in_all);
    Picture {
        mesh: around.mesh.to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        revision: raw.revision,
        time: around.time.0,
        networks,
        services,
        links_in_all: links_in_all.sum(),
        left_out: left_out + links.saturating_sub(MAX_LINKS),
        links: all_links(around.reports),
    }
}

fn count_workload(drawing: &mut Drawing, key: &str, value: &[u8], time: UnixTime) {
    let node = key.strip_prefix("node/").and_then(|id| id.parse().ok());
    let Some(NodeId { network, role, .. }) = node else {
        return;
    };
    let lives = NodeRecord::decode(value).is_ok_and(|node| node.certificate_not_after >= time.0);
    let network = drawing.network(network.as_str());
    if role == Role::Workload && lives {
        network.workloads += 1;
    }
}

fn registration(
    drawing: &mut Drawing,
    key: &str,
    value: &[u8],
    lease: Option<Instant>,
    around: &Around<'_>,
) {
    let mut names = key.split('/').skip(1);
    let network: Option<NetworkName> = names.next().and_then(|name| name.parse().ok());
    let (Some(network), Some(name)) = (network, names.next()) else {
        return;
    };
    let mut activator = Activator {
        node: format!("{network}/{}/{name}", Role::Activator),
        lease_seconds: lease.map_or(0.0, |end| {
            end.saturating_duration_since(around.now).as_secs_f64()
        }),
        ..Activator::default()
    };
    match believed(value, &activator.node, around) {
        Ok((registration, signed)) => {
            activator.certificate = signed.serial.to_string();
            activator.certificate_ends = signed.certificate_not_after.0;
            describe(&mut activator, &registration);
            let report = around.reports.get(&signed.node);
            activator.links = report.map_or(0, |report| report.links_in_all);
            activator.reported_seconds_ago = report.map(|report| {
                let age = around.now.saturating_duration_since(report.at);
                age.as_secs_f64()
            });
            for service in registration.services.iter().take(MAX_LIST) {
                export(drawing, network.as_str(), &activator.node, service, report);
            }
        }
        Err(problem) => activator.problem = Some(bounded(&problem)),
    }
    drawing.network(network.as_str()).activators.push(activator);
}

/// What nodes believe too.
fn believed(
    value: &[u8],
    node: &str,
    around: &Around<'_>,
) -> Result<(Registration, identity::Verified), String> {
    let signed = SignedDocument::decode(value).map_err(|_| "it is not a signed document")?;
    let verified = around.verifier.verify(&signed, around.time);
    let verified = verified.map_err(|error| error.to_string())?;
    if verified.node.to_string() != node {
        return Err(format!("it is signed by {}", verified.node));
    }
    match verified.document.body.clone() {
        Some(Body::Registration(registration)) => Ok((registration, verified)),
        _ => Err("it is not a registration".to_owned()),
    }
}

fn describe(activator: &mut Activator, registration: &Registration) {
    activator.instance = format!("{:016x}", registration.instance);
    let footholds = registration.footholds.iter().take(MAX_LIST);
    activator.footholds = footholds
        .map(|foothold| Foothold {
            relay: bounded(&foothold.relay),
            network: bounded(&foothold.network),
            addresses: foothold
                .relayed_addresses
                .iter()
                .take(2)
                .map(|address| bounded(address))
                .collect(),
        })
        .collect();
    let troubles = registration.troubles.iter().take(MAX_LIST);
    activator.troubles = troubles
        .map(|trouble| {
            let (what, remedy) = trouble_text(trouble.kind());
            Trouble {
                relay: bounded(&trouble.relay),
                network: bounded(&trouble.network),
                what,
                remedy,
            }
        })
        .collect();
}

const fn trouble_text(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Silent => (
            "the relay does not answer it",
            "start turn-relay there, or mend the way to it",
        ),
        Kind::CredentialRefused => (
            "the relay refuses its credentials",
            "give the relay and discovery the same secret",
        ),
        Kind::Refused => (
            "the relay does not allocate",
            "run `turn-relay doctor` on the relay's machine",
        ),
        Kind::NoAccess => (
            "discovery gave it no credential, or the relay's name has no address",
            "look at the activator's log",
        ),
        Kind::Unusable | Kind::Unspecified => (
            "it cannot use the relay",
            "look at the activator's log, and at the relay's `url` in discovery.toml",
        ),
    }
}

fn export(
    drawing: &mut Drawing,
    network: &str,
    activator: &str,
    said: &document::Service,
    report: Option<&Report>,
) {
    let name = bounded(&said.name);
    let key = (network.to_owned(), name.clone());
    let service = drawing.services.entry(key).or_insert_with(|| Service {
        network: network.to_owned(),
        name: name.clone(),
        ..Service::default()
    });
    service.ipv4 |= said.ipv4;
    service.ipv6 |= said.ipv6;
    service.tcp.extend(said.tcp_ports.iter().take(MAX_LIST));
    service.udp.extend(said.udp_ports.iter().take(MAX_LIST));
    let mut exports = report.into_iter().flat_map(|report| &report.exports);
    let policy = exports.find(|export| export.service == name);
    service.exporters.push(Exporter {
        activator: activator.to_owned(),
        everyone: policy.map(|policy| policy.everyone),
        allow: policy.map_or_else(Vec::new, |policy| policy.allow.clone()),
    });
}

/// What activators say of each relay.
fn count_holders(networks: &mut BTreeMap<String, Network>) {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for activator in networks.values().flat_map(|network| &network.activators) {
        for foothold in &activator.footholds {
            counts.entry(foothold.relay.clone()).or_default().0 += 1;
        }
        for trouble in &activator.troubles {
            counts.entry(trouble.relay.clone()).or_default().1 += 1;
        }
    }
    for relay in networks
        .values_mut()
        .flat_map(|network| &mut network.relays)
    {
        (relay.holders, relay.troubled) = counts.get(&relay.name).copied().unwrap_or_default();
    }
}

fn all_links(reports: &BTreeMap<NodeId, Report>) -> Vec<Link> {
    let links = reports.iter().flat_map(|(activator, report)| {
        report.links.iter().map(move |link| Link {
            activator: activator.to_string(),
            peer: link.peer.to_string(),
            link: link.said.link,
            open: link.said.open,
            path: link.said.path.clone(),
            carrier: link.said.carrier.clone(),
            rtt_ms: (link.said.rtt_micros > 0).then(|| f64::from(link.said.rtt_micros) / 1_000.0),
            sent_rate: link.sent_rate,
            received_rate: link.received_rate,
            bytes_sent: link.said.bytes_sent,
            bytes_received: link.said.bytes_received,
        })
    });
    links.take(MAX_LINKS).collect()
}
