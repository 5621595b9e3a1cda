//! `GET /explain?name=NAME`: what this sidecar knows about a name. With `&open=1` the link is wanted too, as by a query
//! for the name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use discovery_client::{Directory, VerifiedRegistration, View};
use dns_signal_proto::agent::{self, Way};
use dns_signal_proto::service::ServiceId;
use explain::facts::{
    Activator, Binding, Failure, FailureKind, Foothold, Known, Link, Pair, Rejected, Relay,
    Sidecar, Trouble, TroubleKind,
};
use link::PairStatus;
use model::{Exports, ServiceName};
use net::Clock;
use protocol::document::Service;
use protocol::document::relay_trouble::Kind;
use service_kit::status::{Asker, milliseconds};

use crate::config::Config;
use crate::dns_resolver::Resolver;
use crate::routes;
use crate::upstream::Upstreams;

/// Names shown of a list.
const MAX_SHOWN: usize = 64;

/// What only the event loop knows.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) way: Way,
    pub(crate) rejected: Vec<Rejected>,
}

/// Documents that were not believed, by the node in whose name they came.
#[derive(Debug, Default)]
pub(crate) struct Rejections(BTreeMap<String, String>);

impl Rejections {
    /// Nodes kept; further ones are left out.
    const MAX: usize = 64;

    pub(crate) fn note(&mut self, from: &str, reason: &str) {
        if self.0.len() < Self::MAX || self.0.contains_key(from) {
            let short: String = reason.chars().take(256).collect();
            self.0.insert(from.to_owned(), short);
        }
    }

    /// A registration is believed again, and with it its node.
    pub(crate) fn forget(&mut self, view: &View) {
        for node in view.registrations.keys() {
            let key = format!("registration/{}/{}", node.network, node.name);
            self.0.remove(&key);
        }
    }

    /// A document of this node was believed.
    pub(crate) fn believed(&mut self, node: &str) {
        self.0.remove(node);
    }

    pub(crate) fn of(&self, network: &str) -> Vec<Rejected> {
        let of_network = |from: &str| {
            let node = from.strip_prefix("registration/").unwrap_or(from);
            node.split('/').next() == Some(network)
        };
        let matching = self.0.iter().filter(|(from, _)| of_network(from));
        matching
            .map(|(from, reason)| Rejected {
                from: from.clone(),
                reason: reason.clone(),
            })
            .collect()
    }
}

/// Puts together what the parts of this process know.
#[derive(Debug)]
pub(crate) struct Explainer {
    pub(crate) config: Config,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) upstreams: Arc<Upstreams>,
    /// There once this node is enrolled.
    pub(crate) directory: OnceLock<Directory>,
    pub(crate) asker: Asker<ServiceId, Told>,
}

impl Explainer {
    /// Everything about a name.
    pub(crate) async fn explain(&self, name: &str, open: bool) -> Sidecar {
        let suffix = self.config.dns.suffix.to_string();
        let mut sidecar = Sidecar {
            network: self.config.network.to_string(),
            discovery: self.config.discovery.clone(),
            known: Known::NotOurs,
            upstreams: self.upstreams.facts(),
            ..Sidecar::default()
        };
        let tunnel = &self.config.tunnel;
        sidecar.collisions = routes::collisions(&tunnel.pools, &tunnel.interface);
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        let short = lower.strip_suffix(&format!(".{suffix}"));
        let now = Clock.now();
        let parsed = short.unwrap_or(&lower).parse::<ServiceId>();
        // Without the suffix, a name of several labels and a network that is none is somebody else's.
        let is_ours = |id: &ServiceId| {
            short.is_some()
                || id.service.labels().nth(1).is_none()
                || self.resolver.known(id, now) != Known::NoSuchNetwork
        };
        sidecar.suffix = suffix;
        let Some(id) = self
            .resolver
            .alias_of(&lower)
            .or(parsed.ok().filter(is_ours))
        else {
            return sidecar;
        };
        sidecar.service = id.service.to_string();
        sidecar.target = id.network.to_string();
        sidecar.known = self.resolver.known(&id, now);
        sidecar.absent = self.resolver.why_absent(&id, now);
        if open && sidecar.known == Known::Exported {
            self.resolver.want(&id, now);
        }
        sidecar.virtual_ips = self.resolver.addresses(&id);
        let Some(directory) = self.directory.get() else {
            sidecar.discovery_problem =
                Some("this node is not enrolled yet, and waits for it".to_owned());
            return sidecar;
        };
        sidecar.node = directory.identity().node_id().to_string();
        sidecar.discovery_problem = directory.problem();
        fill_view(&mut sidecar, &directory.view());
        if let Some(told) = self.asker.ask(id).await {
            fill_way(&mut sidecar, told, Clock.now());
        }
        sidecar
    }
}

fn fill_view(sidecar: &mut Sidecar, view: &View) {
    let relays = view.relays.values();
    let mut networks: BTreeSet<&str> = relays.map(|relay| relay.network.as_str()).collect();
    networks.extend(view.registrations.keys().map(|node| node.network.as_str()));
    sidecar.networks = shown(networks.into_iter());
    let here = |network: &str| network == sidecar.network || network == sidecar.target;
    let relays = view.relays.values().filter(|relay| here(&relay.network));
    sidecar.relays = relays
        .map(|relay| Relay {
            name: relay.name.clone(),
            network: relay.network.clone(),
            url: relay.url.clone(),
        })
        .collect();
    let of_target: Vec<&VerifiedRegistration> = view
        .registrations
        .values()
        .filter(|known| known.node.network.as_str() == sidecar.target)
        .take(MAX_SHOWN)
        .collect();
    let services: BTreeSet<&str> = of_target
        .iter()
        .flat_map(|known| &known.registration.services)
        .map(|service| service.name.as_str())
        .collect();
    sidecar.services = shown(services.into_iter());
    sidecar.activators = of_target
        .iter()
        .map(|known| activator(known, sidecar.service.parse().ok().as_ref()))
        .collect();
}

fn shown<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    names.take(MAX_SHOWN).map(str::to_owned).collect()
}

fn activator(known: &VerifiedRegistration, service: Option<&ServiceName>) -> Activator {
    let said = &known.registration;
    let mut exports: Exports<&Service> = Exports::default();
    for service in &said.services {
        if let Ok(name) = service.name.parse() {
            exports.entry(name, || service);
        }
    }
    let exported = service.and_then(|service| exports.find(service).value().copied());
    let ports = |ports: &[u32]| -> Vec<u16> {
        let fitting = ports.iter().filter_map(|port| u16::try_from(*port).ok());
        fitting.take(MAX_SHOWN).collect()
    };
    let footholds = said.footholds.iter().take(MAX_SHOWN);
    let troubles = said.troubles.iter().take(MAX_SHOWN);
    Activator {
        node: known.node.to_string(),
        exports: exported.is_some(),
        tcp: exported.map(|it| ports(&it.tcp_ports)).unwrap_or_default(),
        udp: exported.map(|it| ports(&it.udp_ports)).unwrap_or_default(),
        footholds: footholds
            .map(|foothold| Foothold {
                relay: foothold.relay.clone(),
                network: foothold.network.clone(),
                relayed: foothold.relayed_addresses.clone(),
            })
            .collect(),
        troubles: troubles
            .map(|trouble| Trouble {
                relay: trouble.relay.clone(),
                network: trouble.network.clone(),
                kind: match trouble.kind() {
                    Kind::Unspecified => TroubleKind::Unknown,
                    Kind::Silent => TroubleKind::Silent,
                    Kind::CredentialRefused => TroubleKind::CredentialRefused,
                    Kind::Refused => TroubleKind::Refused,
                    Kind::NoAccess => TroubleKind::NoAccess,
                    Kind::Unusable => TroubleKind::Unusable,
                },
            })
            .collect(),
        expires: known.expires.to_string(),
    }
}

fn fill_way(sidecar: &mut Sidecar, told: Told, now: Instant) {
    let Told { way, rejected } = told;
    sidecar.rejected = rejected;
    sidecar.failures = way.failures;
    sidecar.last_failure = way.last_failure.map(|failure| Failure {
        kind: kind(failure.kind),
        node: failure.node.map(|node| node.to_string()),
        reason: failure.reason,
        seconds_ago: now.saturating_duration_since(failure.at).as_secs_f64(),
        steps: steps(&failure.steps),
        pairs: pairs(&failure.pairs),
    });
    let (mtu, lane_silent) = (way.mtu, way.lane_silent);
    let binding = match way.verdict {
        agent::Verdict::NotAsked => Binding::NotAsked,
        agent::Verdict::Asked => Binding::Asked,
        agent::Verdict::Accepted => Binding::Accepted,
        agent::Verdict::Refused(reason) => Binding::Refused(reason),
    };
    let found = pairs(&way.pairs);
    sidecar.link = way.link.map(|link| Link {
        link: link.link,
        node: link.peer.to_string(),
        open: link.open,
        path: link.path.map(|path| path.to_string()),
        carrier: link.carrier.map(|carrier| carrier.to_string()),
        rtt_ms: link.rtt.map(milliseconds),
        steps: steps(&link.steps),
        pairs: found,
        binding,
        mtu,
        lane_silent,
    });
}

fn steps(steps: &[agent::TimedStep]) -> Vec<(String, f64)> {
    let step = |step: &agent::TimedStep| (step.name.to_owned(), milliseconds(step.after));
    steps.iter().map(step).collect()
}

fn pairs(pairs: &[PairStatus]) -> Vec<Pair> {
    let pair = |pair: &PairStatus| Pair {
        local: pair.local.to_string(),
        remote: pair.remote.to_string(),
        relayed: pair.relayed,
        state: pair.outcome.to_string(),
        rtt_ms: pair.rtt.map(milliseconds),
    };
    pairs.iter().map(pair).collect()
}

const fn kind(kind: agent::FailureKind) -> FailureKind {
    match kind {
        agent::FailureKind::NoActivator => FailureKind::NoActivator,
        agent::FailureKind::NotDelivered => FailureKind::NotDelivered,
        agent::FailureKind::NoAnswer => FailureKind::NoAnswer,
        agent::FailureKind::Refused => FailureKind::Refused,
        agent::FailureKind::NotBelieved => FailureKind::NotBelieved,
        agent::FailureKind::Ended => FailureKind::Ended,
        agent::FailureKind::NoPath => FailureKind::NoPath,
        agent::FailureKind::NoSession => FailureKind::NoSession,
        agent::FailureKind::Local => FailureKind::Local,
    }
}
