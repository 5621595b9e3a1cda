//! One link to one activator, from offer to end, and what this sidecar knows of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::{Link, Path, Step};
use model::{NodeId, RelayName, ServiceName};
use protocol::document::{Binding, BindingResult};

use super::output::LinkStatus;
use super::relays::OwnRelays;
use super::route::Destination;

/// What the activator said of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum BindingState {
    /// Named in the offer or in a `Bind` that is on its way.
    ExpectResult {
        since: Instant,
    },
    Accepted,
    /// Asked again after a while.
    Refused {
        reason: String,
        at: Instant,
    },
}

/// What an activator said of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) service: ServiceName,
    /// Why it is refused, if it is.
    pub(crate) refused: Option<String>,
    /// For how long there is nothing behind the name.
    pub(crate) absent: Option<Duration>,
}

/// Services one link is asked for; names below wildcards have no end.
const MAX_BINDINGS: usize = 1_024;
/// Characters kept of a reason.
const MAX_REASON: usize = 256;

/// A step of opening a link, with the time since it was first wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedStep {
    /// `dns_answer`, `offer_sent`, `answer_received`, `ice_connected`, `dtls_connected`, `open`, `first_byte`;
    /// `direct`, when a path without a relay was first used.
    pub name: &'static str,
    /// Since the link was wanted.
    pub after: Duration,
}

/// A link with all that belongs to it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) node: NodeId,
    pub(crate) instance: u64,
    pub(crate) link: Link,
    pub(crate) wanted_at: Instant,
    /// There until the answer is.
    pub(crate) answer_deadline: Option<Instant>,
    bindings: HashMap<ServiceName, (Arc<Destination>, BindingState)>,
    pub(crate) steps: Vec<TimedStep>,
    /// Set before the link is closed for a reason the peer should read.
    pub(crate) opened: bool,
    /// Kept open beside another link of its network, used or not.
    pub(crate) standby: bool,
    /// Whether it may go over a relay.
    pub(crate) may_relay: bool,
    /// Without a path by then it needs relayed addresses of this end.
    pub(crate) relay_due: Option<Instant>,
    /// Peers that relays let through for it; given back at the end.
    pub(crate) permitted: Vec<(RelayName, SocketAddr)>,
}

impl Session {
    pub(crate) fn new(
        node: NodeId,
        instance: u64,
        link: Link,
        wanted_at: Instant,
        answer_deadline: Instant,
    ) -> Self {
        Self {
            node,
            instance,
            link,
            wanted_at,
            answer_deadline: Some(answer_deadline),
            bindings: HashMap::new(),
            steps: Vec::new(),
            opened: false,
            standby: false,
            may_relay: true,
            relay_due: None,
            permitted: Vec::new(),
        }
    }

    pub(crate) fn record(&mut self, name: &'static str, now: Instant) {
        if self.steps.iter().all(|step| step.name != name) {
            let after = now.saturating_duration_since(self.wanted_at);
            self.steps.push(TimedStep { name, after });
        }
    }

    pub(crate) fn record_step(&mut self, step: Step, now: Instant) {
        let name = match step {
            Step::IceConnected => "ice_connected",
            Step::DtlsConnected => "dtls_connected",
            Step::Open => "open",
        };
        self.record(name, now);
    }

    /// All that the link leads to, or may.
    pub(crate) fn destinations(&self) -> Vec<Arc<Destination>> {
        let all = self.bindings.values();
        all.filter(|(_, state)| !matches!(state, BindingState::Refused { .. }))
            .map(|(destination, _)| destination.clone())
            .collect()
    }

    /// What is known of a service on this link.
    pub(crate) fn binding(&self, service: &ServiceName) -> Option<&BindingState> {
        self.bindings.get(service).map(|(_, state)| state)
    }

    /// What is known of a destination on this link; nothing, if its service was bound to other addresses: those of a name below
    /// a wildcard may change.
    pub(crate) fn state_of(&self, destination: &Destination) -> Option<&BindingState> {
        let (bound, state) = self.bindings.get(&destination.service)?;
        let moved = matches!((bound.ipv4, destination.ipv4), (Some(was), Some(is)) if was != is)
            || matches!((bound.ipv6, destination.ipv6), (Some(was), Some(is)) if was != is);
        (!moved).then_some(state)
    }

    /// Notes that a binding was asked for and gives what to send.
    pub(crate) fn bind(&mut self, destination: &Arc<Destination>, now: Instant) -> Binding {
        let state = BindingState::ExpectResult { since: now };
        if self.bindings.len() >= MAX_BINDINGS {
            // They are asked for again when they are needed.
            self.bindings
                .retain(|_, (_, state)| *state == BindingState::Accepted);
        }
        self.bindings
            .insert(destination.service.clone(), (destination.clone(), state));
        Binding {
            service: destination.service.to_string(),
            virtual_ipv4: destination
                .ipv4
                .map(|ip| ip.octets().to_vec())
                .unwrap_or_default(),
            virtual_ipv6: destination
                .ipv6
                .map(|ip| ip.octets().to_vec())
                .unwrap_or_default(),
        }
    }

    /// Takes in results; gives what they say. Results nobody asked for are ignored.
    pub(crate) fn on_results(&mut self, results: &[BindingResult], now: Instant) -> Vec<Said> {
        let mut said = Vec::new();
        for result in results {
            let Ok(service) = result.service.parse::<ServiceName>() else {
                continue;
            };
            let Some((_, state)) = self.bindings.get_mut(&service) else {
                continue;
            };
            let refused = (!result.accepted)
                .then(|| result.reason.chars().take(MAX_REASON).collect::<String>());
            *state = match &refused {
                None => BindingState::Accepted,
                Some(reason) => BindingState::Refused {
                    reason: reason.clone(),
                    at: now,
                },
            };
            let absent = Duration::from_secs(result.absent_seconds.into());
            said.push(Said {
                service,
                refused,
                absent: (!absent.is_zero()).then_some(absent),
            });
        }
        said
    }

    /// Without a path by then, it needs relayed addresses of this end.
    pub(crate) fn expect_path_by(&mut self, due: Instant) {
        self.relay_due = self.may_relay.then_some(due);
    }

    /// Whether nothing gets through: not yet, or not any more.
    pub(crate) fn has_no_path(&self) -> bool {
        self.may_relay
            && self.answer_deadline.is_none()
            && (self.link.path().is_none() || self.link.is_silent())
    }

    /// Whether it goes over an allocation of this end.
    pub(crate) fn uses(&self, relays: &OwnRelays) -> bool {
        let local = self.link.pair().map(|(local, _)| local);
        local.is_some_and(|local| relays.leg_of(local).is_some())
    }

    /// Tells the link how the relay of its present path is reached.
    pub(crate) fn set_leg(&mut self, relays: &OwnRelays, now: Instant) {
        let local = self.link.pair().map(|(local, _)| local);
        let leg = local.and_then(|local| relays.leg_of(local));
        self.link.set_leg(leg.unwrap_or(Path::RelayUdp), now);
    }

    /// As `/status` shows it.
    pub(crate) fn status(&self, key: u64) -> LinkStatus {
        let link = &self.link;
        LinkStatus {
            link: key,
            peer: self.node.clone(),
            open: link.is_open(),
            path: link.path(),
            carrier: link.is_open().then(|| link.carrier()),
            rtt: link.rtt(),
            wanted_at: self.wanted_at,
            steps: self.steps.clone(),
            stats: link.stats(),
        }
    }

    /// Whether a packet from the activator may carry this source: the virtual IP of an accepted service.
    pub(crate) fn may_speak_for(&self, destination: &Destination) -> bool {
        destination.network == self.node.network
            && self.binding(&destination.service) == Some(&BindingState::Accepted)
    }
}
