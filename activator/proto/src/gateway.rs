//! The activator's core: a switchboard over reservations, registration, links and the forwarder.
//!
//! After every `handle_*` of this type call [`Gateway::poll_output`] until `None`, then
//! [`Gateway::poll_timeout`].

use std::{collections::VecDeque, time::Instant};

use identity::Serial;
use model::{MAX_SERVICE_NAME, NetworkName, NodeId, RelayName, RelayedAddr};
use protocol::document;
use turn_client::{Reservations, Reserve};

use crate::{
    answer::{self, MAX_BINDINGS, MAX_FOOTHOLDS},
    forward::Forwarder,
    input::Input,
    links::{LinkKey, LinkLimits, LinkRecord, Links},
    names::{Names, User},
    output::Output,
    policy::{ExportTable, Exported},
    registration::RegistrationState,
    stats::GatewayStats,
};

/// Results in one message of a link: it has at most 16 KiB.
const RESULTS_IN_ONE: usize = 32;

/// What a gateway is made from.
#[derive(Debug)]
pub struct GatewayConfig {
    /// This activator.
    pub node: NodeId,
    /// Random; new at each start.
    pub instance: u64,
    /// Random; drives the jitter of retries.
    pub seed: u64,
    /// What it offers.
    pub exports: ExportTable,
    /// How many links it takes.
    pub limits: LinkLimits,
}

/// What became of a binding.
enum Bound {
    /// By the exports alone.
    Now(document::BindingResult),
    /// By what DNS says of the name; `None`: that will be known later.
    ByDns(Option<document::BindingResult>),
}

/// Decides everything but the way of packets, which its [`Forwarder`] does.
#[derive(Debug)]
pub struct Gateway {
    /// The packet path; the shell calls it directly.
    pub forwarder: Forwarder,
    reservations: Reservations,
    registration: RegistrationState,
    links: Links,
    exports: ExportTable,
    names: Names,
    limits: LinkLimits,
    outputs: VecDeque<Output>,
    stats: GatewayStats,
    closing: bool,
}

impl Gateway {
    /// A gateway that holds nothing yet.
    #[must_use]
    pub fn new(config: GatewayConfig, forwarder: Forwarder) -> Self {
        let GatewayConfig {
            node,
            instance,
            seed,
            exports,
            limits,
        } = config;
        let mut gateway = Self {
            forwarder,
            reservations: Reservations::new(seed),
            registration: RegistrationState::new(&node, instance, exports.announced()),
            links: Links::default(),
            exports,
            names: Names::default(),
            limits,
            outputs: VecDeque::new(),
            stats: GatewayStats::default(),
            closing: false,
        };
        gateway.on_footholds_changed();
        gateway
    }

    /// Something happened.
    pub fn handle_input(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::View { relays, revoked } => {
                if self.closing {
                    return;
                }
                let lost = self
                    .reservations
                    .handle_relays(relays.iter(), now, &mut self.outputs);
                for (relay, relayed) in lost {
                    self.on_foothold_lost(&relay, &relayed);
                }
                self.close_where("the node's certificate is revoked", |link| {
                    revoked.contains(&link.serial)
                });
            }
            Input::Access { relay, access } => {
                if !self.closing {
                    let moved =
                        self.reservations
                            .handle_access(&relay, access, now, &mut self.outputs);
                    self.on_foothold_lost(&relay, &moved);
                }
                self.on_footholds_changed();
            }
            Input::NotStarted { relay } => self.reservations.handle_not_started(&relay, now),
            Input::Allocated { relay, relayed } => {
                if self.reservations.handle_allocated(&relay, relayed) {
                    self.on_footholds_changed();
                    self.extend_links(&relay);
                }
            }
            Input::AllocationEnding { relay } => {
                self.reservations.handle_ending(&relay, now);
                self.extend_links(&relay);
            }
            Input::Left { relay } => self.reservations.give_back(&relay, &mut self.outputs),
            Input::AllocationLost { relay, trouble } => {
                let relayed = self.reservations.handle_lost(&relay, trouble);
                self.on_footholds_changed();
                self.on_foothold_lost(&relay, &relayed);
            }
            Input::CredentialRefused { relay } => {
                if !self.closing {
                    self.reservations
                        .handle_credential_refused(&relay, now, &mut self.outputs);
                    self.on_footholds_changed();
                }
            }
            Input::Offer {
                from,
                serial,
                offer,
            } => self.on_offer(from, serial, offer, now),
            Input::Bye { from, bye } => {
                if let Some(link) = self.links.by_offer(&from, bye.link) {
                    let reason: String = bye.reason.chars().take(200).collect();
                    let reason = format!("the other side gave it up: {reason}");
                    self.outputs.push_back(Output::Close { link, reason });
                }
            }
            Input::Bind { link, bindings } => self.on_bind(link, &bindings, now),
            Input::Resolved {
                name,
                resolved,
                own,
            } => {
                let results = self.names.handle_resolved(
                    &name,
                    resolved,
                    own,
                    &mut self.forwarder,
                    now,
                    &mut self.outputs,
                );
                for (link, result) in results {
                    self.say(link, vec![result]);
                }
            }
            Input::LinkOpened { link } => self.on_opened(link),
            Input::LinkClosed { link } => self.forget(link, now),
            Input::Shutdown => self.on_shutdown(),
        }
    }

    fn forget(&mut self, link: LinkKey, now: Instant) {
        self.links.remove(link);
        self.names.remove_link(link);
        self.forwarder.remove_link(link, now);
    }

    /// Tells a link what became of bindings, as soon as it can be told.
    fn say(&mut self, link: LinkKey, results: Vec<document::BindingResult>) {
        let Some(record) = self.links.get_mut(link).filter(|_| !results.is_empty()) else {
            return;
        };
        match &mut record.unsaid {
            Some(unsaid) => unsaid.extend(results),
            None => self.push_bound(link, &results),
        }
    }

    fn push_bound(&mut self, link: LinkKey, results: &[document::BindingResult]) {
        for results in results.chunks(RESULTS_IN_ONE) {
            let results = results.to_vec();
            self.outputs.push_back(Output::Bound { link, results });
        }
    }

    /// A node has one link to an activator: earlier ones belonged to a process of it that is no more, or were given up.
    fn on_opened(&mut self, opened: LinkKey) {
        let Some(record) = self.links.get_mut(opened) else {
            return;
        };
        let node = record.node.clone();
        let unsaid = record.unsaid.take().unwrap_or_default();
        self.push_bound(opened, &unsaid);
        let earlier = self.links.select(|record| record.node == node);
        for link in earlier.into_iter().filter(|link| *link < opened) {
            let reason = "the node opened another one".to_owned();
            self.outputs.push_back(Output::Close { link, reason });
        }
    }

    /// The next thing to do outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closing {
            return None;
        }
        let names = self.names.poll_timeout();
        self.reservations
            .poll_timeout()
            .into_iter()
            .chain(names)
            .min()
    }

    /// A deadline passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.closing {
            self.reservations.handle_timeout(now, &mut self.outputs);
            for (relay, relayed) in self.reservations.poll_leave(now) {
                self.outputs.push_back(Output::Leave { relay, relayed });
            }
            self.on_footholds_changed();
            self.names.handle_timeout(now, &mut self.outputs);
        }
    }

    /// The allocations that should be, for people.
    #[must_use]
    pub const fn reservations(&self) -> &Reservations {
        &self.reservations
    }

    /// The links that are.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// The names below wildcards that are known.
    #[must_use]
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// What was published last.
    #[must_use]
    pub const fn registration(&self) -> &document::Registration {
        self.registration.current()
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> &GatewayStats {
        &self.stats
    }

    /// Whether a link from this network would have a way now.
    #[must_use]
    pub fn has_foothold_in(&self, network: &NetworkName) -> bool {
        self.reservations.footholds_in(network).next().is_some()
    }

    fn on_offer(&mut self, from: NodeId, serial: Serial, offer: document::Offer, now: Instant) {
        if self.links.by_offer(&from, offer.link).is_some() {
            self.stats.offers_repeated += 1;
            return;
        }
        let offered_as = offer.link;
        let decision = if self.closing {
            Err(answer::RefuseReason::ShuttingDown)
        } else {
            answer::resolve(
                &from,
                &offer,
                self.registration.instance(),
                self.limits,
                &self.links,
                &self.reservations,
            )
        };
        let refused = match decision {
            Ok(acceptance) => {
                let record = LinkRecord {
                    node: from.clone(),
                    offered_as,
                    serial,
                    relays: acceptance.relays.clone(),
                    unsaid: Some(Vec::new()),
                };
                let link = self.links.insert(record);
                let (bindings, of_names) = self.bind(link, &from, &offer.bindings, now);
                // What DNS says of a name is told by the link, and may be something else in a moment.
                let checked = match of_names {
                    true => Ok(()),
                    false => answer::check_results(&bindings),
                };
                match checked {
                    Ok(()) => {
                        self.stats.offers_accepted += 1;
                        let relays = acceptance.relays;
                        self.outputs.push_back(Output::Answer {
                            link,
                            to: from,
                            offer,
                            relays,
                            bindings,
                        });
                        return;
                    }
                    Err(reason) => {
                        self.forget(link, now);
                        reason
                    }
                }
            }
            Err(reason) => reason,
        };
        self.stats.offers_refused += 1;
        self.outputs.push_back(Output::Refuse {
            to: from,
            offered_as,
            reason: refused,
        });
    }

    fn on_bind(&mut self, link: LinkKey, bindings: &[document::Binding], now: Instant) {
        let Some(node) = self.links.get(link).map(|record| record.node.clone()) else {
            return;
        };
        if bindings.len() > MAX_BINDINGS {
            let reason = "it sent more bindings than one message may carry".to_owned();
            self.outputs.push_back(Output::Close { link, reason });
            return;
        }
        let (results, _) = self.bind(link, &node, bindings, now);
        self.push_bound(link, &results);
    }

    /// What becomes of each binding, but for those of names that this network's DNS is asked for first; and whether it is, or
    /// was, asked for any.
    fn bind(
        &mut self,
        link: LinkKey,
        node: &NodeId,
        bindings: &[document::Binding],
        now: Instant,
    ) -> (Vec<document::BindingResult>, bool) {
        let (mut results, mut of_names) = (Vec::new(), false);
        for binding in bindings {
            let result = match self.try_bind(link, node, binding, now) {
                Ok(Bound::Now(result)) => result,
                Ok(Bound::ByDns(result)) => {
                    of_names = true;
                    match result {
                        Some(result) => result,
                        None => continue,
                    }
                }
                Err(reason) => document::BindingResult {
                    service: binding.service.chars().take(MAX_SERVICE_NAME).collect(),
                    reason,
                    ..document::BindingResult::default()
                },
            };
            if !result.accepted && result.absent_seconds == 0 {
                self.forwarder
                    .refused(link, node, &result.service, &result.reason);
            }
            results.push(result);
        }
        (results, of_names)
    }

    fn try_bind(
        &mut self,
        link: LinkKey,
        node: &NodeId,
        binding: &document::Binding,
        now: Instant,
    ) -> Result<Bound, String> {
        let virtual_ips = answer::decode_binding(binding)
            .map_err(|problem| format!("malformed binding: {problem}"))?;
        let (name, exported) = self
            .exports
            .resolve(&binding.service, node)
            .map_err(|error| error.to_string())?;
        match exported {
            Exported::Service(export) => {
                answer::check_families(export, virtual_ips)?;
                self.forwarder
                    .bind(link, node, export, virtual_ips, now)
                    .map_err(|error| error.to_string())?;
                Ok(Bound::Now(document::BindingResult {
                    service: name.to_string(),
                    accepted: true,
                    ..document::BindingResult::default()
                }))
            }
            Exported::Wildcard(wildcard) => {
                let user = User {
                    link,
                    node: node.clone(),
                    virtual_ips,
                };
                Ok(Bound::ByDns(self.names.bind(
                    &name,
                    wildcard,
                    user,
                    &mut self.forwarder,
                    now,
                    &mut self.outputs,
                )))
            }
        }
    }

    fn on_footholds_changed(&mut self) {
        if self.closing {
            return;
        }
        if let Some(registration) = self
            .registration
            .handle_footholds(self.reservations.footholds(), self.reservations.troubles())
        {
            self.stats.registrations += 1;
            self.outputs.push_back(Output::Publish(Some(registration)));
        }
    }

    /// Links lose a way, and look for another by themselves.
    fn on_foothold_lost(&mut self, relay: &RelayName, relayed: &[RelayedAddr]) {
        if relayed.is_empty() {
            return;
        }
        self.on_footholds_changed();
        for link in self.links.select(|link| link.relays.contains(relay)) {
            self.links.remove_relay(link, relay);
            self.outputs.push_back(Output::Retire {
                link,
                relay: relay.clone(),
                relayed: relayed.to_vec(),
            });
        }
    }

    /// Links of nodes beside this relay get further ways, up to as many as they may have; those over relays that drain do
    /// not count.
    fn extend_links(&mut self, relay: &RelayName) {
        let Some(network) = self.reservations.network_of(relay).cloned() else {
            return;
        };
        let footholds: Vec<(RelayName, Vec<RelayedAddr>)> = self
            .reservations
            .footholds_in(&network)
            .map(|(relay, relayed)| (relay.clone(), relayed.to_vec()))
            .collect();
        for link in self.links.select(|link| link.node.network == network) {
            let Some(record) = self.links.get(link) else {
                continue;
            };
            let (to, offered_as) = (record.node.clone(), record.offered_as);
            let (has, lacks): (Vec<_>, Vec<_>) = footholds
                .iter()
                .partition(|(relay, _)| record.relays.contains(relay));
            for (relay, relayed) in lacks
                .into_iter()
                .take(MAX_FOOTHOLDS.saturating_sub(has.len()))
            {
                self.links.add_relay(link, relay);
                self.outputs.push_back(Output::Extend {
                    link,
                    to: to.clone(),
                    offered_as,
                    relay: relay.clone(),
                    relayed: relayed.clone(),
                });
            }
        }
    }

    fn close_where(&mut self, reason: &str, condition: impl Fn(&LinkRecord) -> bool) {
        for link in self.links.select(condition) {
            self.outputs.push_back(Output::Close {
                link,
                reason: reason.to_owned(),
            });
        }
    }

    fn on_shutdown(&mut self) {
        if std::mem::replace(&mut self.closing, true) {
            return;
        }
        self.outputs.push_back(Output::Publish(None));
        self.close_where("this activator is shutting down", |_| true);
        let relays: Vec<RelayName> = self
            .reservations
            .status()
            .filter(|status| !status.ways.is_empty())
            .map(|status| status.relay.clone())
            .collect();
        for relay in relays {
            self.outputs
                .push_back(Output::Reserve(Reserve::Release { relay }));
        }
    }
}
