//! Names below wildcards that somebody asked for: what this network's DNS said of each, for as long as it may be believed.
//!
//! ```text
//!   bound by a link ──▶ asked ──▶ found: a service like any other ──▶ asked again while a link is bound to it
//!                          └────▶ not there, or not where it may be: refused, and remembered for a while
//! ```
//!
//! Whoever asks waits for nothing: what became of a binding is told when it is known. Everything is bounded, for each node
//! and in all, so that a node that asks for names at random takes nothing from others.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use model::{NodeId, ServiceName};
use protocol::document::BindingResult;
use rustc_hash::FxHashMap;

use crate::{
    answer::VirtualIps, forward::Forwarder, links::LinkKey, output::Output, policy::Export,
    stats::NameStats, wildcard::Wildcard,
};

/// Names remembered, of all nodes.
pub const MAX_NAMES: usize = 4_096;

/// Names of which one node's links can be bound, or wait to be.
pub const MAX_NAMES_OF_NODE: usize = 512;

/// Names that DNS is asked for at once.
pub const MAX_ASKED: usize = 256;

/// Of these, how many one node waits for.
pub const MAX_ASKED_OF_NODE: usize = 32;

/// An answer is believed for at least and at most so long, whatever its TTL is.
const FOUND: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// The same for an answer that there is nothing.
const ABSENT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// After an answer that leads where the export does not allow.
const OUTSIDE: Duration = Duration::from_secs(30);

/// After no answer.
const RETRY: Duration = Duration::from_secs(5);

/// Says nothing of the address: where it leads inside is not the other side's business. The activator's log says it.
const OUTSIDE_REASON: &str =
    "this network's DNS leads to addresses that are not `within` what the export allows";

const ABSENT_REASON: &str = "this network's DNS has no address for it";

/// How often it is looked for names to be asked for again, or forgotten.
const LOOK: Duration = Duration::from_secs(1);

/// What DNS said of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Its addresses, at least one, and for how long they are its.
    Addresses(Vec<IpAddr>, Duration),
    /// It has none (NXDOMAIN, NODATA), for so long.
    Absent(Duration),
    /// Nothing that could be believed: why.
    Failed(String),
}

/// What is known of a name, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameStatus {
    /// Below its network.
    pub name: ServiceName,
    /// The addresses that are used of those DNS gave.
    pub addresses: Vec<IpAddr>,
    /// Why there are none.
    pub problem: Option<String>,
    /// Links that are bound to it.
    pub links: usize,
}

/// Who wants to be bound, or is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) link: LinkKey,
    pub(crate) node: NodeId,
    pub(crate) virtual_ips: VirtualIps,
}

#[derive(Debug)]
struct Name {
    wildcard: Arc<Wildcard>,
    /// DNS has been asked and has not answered.
    asked: bool,
    known: Known,
    /// How long that is believed.
    until: Instant,
    waiting: Vec<User>,
    bound: Vec<User>,
}

#[derive(Debug, Clone)]
enum Known {
    Nothing,
    Service(Arc<Export>),
    /// `absent`: DNS said so, rather than nothing.
    Not {
        reason: String,
        absent: bool,
    },
}

#[derive(Debug, Default)]
struct OfNode {
    waiting: usize,
    bound: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Names {
    by_name: FxHashMap<ServiceName, Name>,
    of_nodes: FxHashMap<NodeId, OfNode>,
    asked: usize,
    look_at: Option<Instant>,
    stats: NameStats,
}

impl Names {
    /// A link of this node wants virtual IPs to stand for a name below a wildcard. What becomes of it, if that can be said
    /// at once; else it comes out of [`Names::handle_resolved`].
    pub(crate) fn bind(
        &mut self,
        name: &ServiceName,
        wildcard: &Arc<Wildcard>,
        user: User,
        forwarder: &mut Forwarder,
        now: Instant,
        outputs: &mut VecDeque<Output>,
    ) -> Option<BindingResult> {
        if !self.by_name.contains_key(name) && !self.make_room() {
            self.stats.limited += 1;
            let reason = "this activator knows as many names as it may";
            return Some(refused(name, reason, Duration::ZERO));
        }
        self.look_at.get_or_insert(now + LOOK);
        let entry = self
            .by_name
            .entry(name.clone())
            .or_insert_with(|| Name::of(wildcard, now));
        // A name in use is asked for again by itself.
        if entry.until > now || !entry.bound.is_empty() {
            return Some(settle(
                name,
                entry,
                user,
                forwarder,
                &mut self.of_nodes,
                now,
            ));
        }
        if entry.waiting.contains(&user) {
            return None;
        }
        let of_node = self.of_nodes.entry(user.node.clone()).or_default();
        let limit = if of_node.waiting >= MAX_ASKED_OF_NODE {
            Some("this node waits for as many names as it may")
        } else if !entry.asked && self.asked >= MAX_ASKED {
            Some("this activator asks for as many names as it may")
        } else {
            None
        };
        if let Some(limit) = limit {
            self.stats.limited += 1;
            return Some(refused(name, limit, Duration::ZERO));
        }
        let Some(wish) = wish(name, entry) else {
            let reason = "it is too long for this network's DNS";
            return Some(refused(name, reason, ABSENT.1));
        };
        of_node.waiting += 1;
        entry.waiting.push(user);
        if !entry.asked {
            entry.asked = true;
            self.asked += 1;
            outputs.push_back(wish);
        }
        None
    }

    /// DNS answered. `own` are the addresses of this host. What became of bindings that waited, or that end.
    pub(crate) fn handle_resolved(
        &mut self,
        name: &ServiceName,
        resolved: Resolved,
        own: &[IpAddr],
        forwarder: &mut Forwarder,
        now: Instant,
        outputs: &mut VecDeque<Output>,
    ) -> Vec<(LinkKey, BindingResult)> {
        let Some(entry) = self.by_name.get_mut(name).filter(|entry| entry.asked) else {
            return Vec::new();
        };
        entry.asked = false;
        self.asked -= 1;
        match resolved {
            Resolved::Addresses(addresses, ttl) => {
                let (ipv4, ipv6) = forwarder.nat().pool().prefixes();
                let clients = [IpNet::V4(ipv4), IpNet::V6(ipv6)];
                let is_ours = |address: IpAddr| {
                    own.contains(&address) || clients.iter().any(|pool| pool.contains(&address))
                };
                match entry.wildcard.service(name, &addresses, is_ours) {
                    Some(service) => {
                        self.stats.found += 1;
                        entry.until = now + ttl.clamp(FOUND.0, FOUND.1);
                        // The same as before stays the same, for all that is bound to it.
                        if !matches!(&entry.known, Known::Service(known) if **known == service) {
                            entry.known = Known::Service(Arc::new(service));
                        }
                    }
                    None => {
                        self.stats.outside += 1;
                        entry.be_absent(OUTSIDE_REASON, OUTSIDE, now);
                        outputs.push_back(Output::Outside {
                            name: name.clone(),
                            addresses,
                        });
                    }
                }
            }
            Resolved::Absent(ttl) => {
                self.stats.absent += 1;
                entry.be_absent(ABSENT_REASON, ttl.clamp(ABSENT.0, ABSENT.1), now);
            }
            Resolved::Failed(why) => {
                self.stats.failed += 1;
                entry.until = now + RETRY;
                // What was true a moment ago is better than nothing (RFC 8767).
                if entry.bound.is_empty() || !matches!(entry.known, Known::Service(_)) {
                    entry.known = Known::Not {
                        reason: format!("this network's DNS does not say what it is: {why}"),
                        absent: false,
                    };
                }
            }
        }
        let mut results = Vec::new();
        renew(
            name,
            entry,
            forwarder,
            &mut self.of_nodes,
            now,
            &mut results,
        );
        for user in std::mem::take(&mut entry.waiting) {
            if let Some(of_node) = self.of_nodes.get_mut(&user.node) {
                of_node.waiting -= 1;
            }
            let link = user.link;
            let result = settle(name, entry, user, forwarder, &mut self.of_nodes, now);
            results.push((link, result));
        }
        results
    }

    /// A link is over.
    pub(crate) fn remove_link(&mut self, link: LinkKey) {
        let of_nodes = &mut self.of_nodes;
        for entry in self.by_name.values_mut() {
            entry.waiting.retain(|user| {
                let stays = user.link != link;
                if let Some(of_node) = of_nodes.get_mut(&user.node).filter(|_| !stays) {
                    of_node.waiting -= 1;
                }
                stays
            });
            entry.bound.retain(|user| {
                let stays = user.link != link;
                if let Some(of_node) = of_nodes.get_mut(&user.node).filter(|_| !stays) {
                    of_node.bound -= 1;
                }
                stays
            });
        }
        of_nodes.retain(|_, of_node| of_node.waiting + of_node.bound > 0);
    }

    pub(crate) const fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// Asks again for names in use whose answer has ended, and forgets the others.
    pub(crate) fn handle_timeout(&mut self, now: Instant, outputs: &mut VecDeque<Output>) {
        if self.look_at.take_if(|due| *due <= now).is_none() {
            return;
        }
        for (name, entry) in &mut self.by_name {
            if entry.until <= now && !entry.asked && !entry.bound.is_empty() {
                if self.asked >= MAX_ASKED {
                    break;
                }
                if let Some(wish) = wish(name, entry) {
                    entry.asked = true;
                    self.asked += 1;
                    outputs.push_back(wish);
                }
            }
        }
        self.by_name
            .retain(|_, entry| entry.until > now || !entry.is_unused());
        if !self.by_name.is_empty() {
            self.look_at = Some(now + LOOK);
        }
    }

    /// What is known, in no order.
    pub fn status(&self) -> impl Iterator<Item = NameStatus> + '_ {
        self.by_name.iter().map(|(name, entry)| {
            let (addresses, problem) = match &entry.known {
                Known::Nothing => (Vec::new(), None),
                Known::Not { reason, .. } => (Vec::new(), Some(reason.clone())),
                Known::Service(export) => {
                    let ipv4 = export.ipv4.iter().copied().map(IpAddr::V4);
                    let ipv6 = export.ipv6.iter().copied().map(IpAddr::V6);
                    (ipv4.chain(ipv6).collect(), None)
                }
            };
            NameStatus {
                name: name.clone(),
                addresses,
                problem,
                links: entry.bound.len(),
            }
        })
    }

    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> &NameStats {
        &self.stats
    }

    /// Whether there is room for another name, after one that nobody uses was forgotten if need be: the one whose answer
    /// ends first.
    fn make_room(&mut self) -> bool {
        if self.by_name.len() < MAX_NAMES {
            return true;
        }
        let unused = self.by_name.iter().filter(|(_, entry)| entry.is_unused());
        let first = unused.min_by_key(|(_, entry)| entry.until);
        let first = first.map(|(name, _)| name.clone());
        first.is_some_and(|name| self.by_name.remove(&name).is_some())
    }
}

impl Name {
    fn of(wildcard: &Arc<Wildcard>, now: Instant) -> Self {
        Self {
            wildcard: Arc::clone(wildcard),
            asked: false,
            known: Known::Nothing,
            until: now,
            waiting: Vec::new(),
            bound: Vec::new(),
        }
    }

    fn be_absent(&mut self, reason: &str, absent: Duration, now: Instant) {
        self.until = now + absent;
        self.known = Known::Not {
            reason: reason.to_owned(),
            absent: true,
        };
    }

    fn is_unused(&self) -> bool {
        !self.asked && self.waiting.is_empty() && self.bound.is_empty()
    }
}

/// What to ask DNS for; `None`: it cannot be asked for that.
fn wish(name: &ServiceName, entry: &Name) -> Option<Output> {
    let (ipv4, ipv6) = entry.wildcard.families();
    Some(Output::Resolve {
        name: name.clone(),
        domain: entry.wildcard.domain_of(name)?,
        ipv4,
        ipv6,
    })
}

/// Binds a user to what is known, or says why not.
fn settle(
    name: &ServiceName,
    entry: &mut Name,
    user: User,
    forwarder: &mut Forwarder,
    of_nodes: &mut FxHashMap<NodeId, OfNode>,
    now: Instant,
) -> BindingResult {
    let export = match &entry.known {
        Known::Service(export) => export,
        Known::Nothing => return refused(name, "it is being asked for", Duration::ZERO),
        Known::Not { reason, absent } => {
            let rest = entry.until.saturating_duration_since(now);
            return refused(name, reason, if *absent { rest } else { Duration::ZERO });
        }
    };
    let of_node = of_nodes.entry(user.node.clone()).or_default();
    let is_bound = entry.bound.contains(&user);
    if !is_bound && of_node.bound >= MAX_NAMES_OF_NODE {
        let reason = "this node uses as many names as it may";
        return refused(name, reason, Duration::ZERO);
    }
    let bound = forwarder.bind(user.link, &user.node, export, user.virtual_ips, now);
    match bound {
        Err(error) => refused(name, &error.to_string(), Duration::ZERO),
        Ok(()) => {
            if !is_bound {
                of_node.bound += 1;
                entry.bound.push(user);
            }
            BindingResult {
                service: name.to_string(),
                accepted: true,
                ..BindingResult::default()
            }
        }
    }
}

/// Takes what is bound along to the name's addresses of now. One that still hears from its old address stays with it.
fn renew(
    name: &ServiceName,
    entry: &mut Name,
    forwarder: &mut Forwarder,
    of_nodes: &mut FxHashMap<NodeId, OfNode>,
    now: Instant,
    results: &mut Vec<(LinkKey, BindingResult)>,
) {
    let (export, reason) = match &entry.known {
        Known::Service(export) => (Some(export), ""),
        Known::Not { reason, .. } => (None, reason.as_str()),
        Known::Nothing => return,
    };
    let rest = entry.until.saturating_duration_since(now);
    entry.bound.retain(|user| {
        let stays = forwarder.readdress(user.link, name, user.virtual_ips, export, now);
        if !stays {
            if export.is_none() {
                results.push((user.link, refused(name, reason, rest)));
            }
            if let Some(of_node) = of_nodes.get_mut(&user.node) {
                of_node.bound -= 1;
            }
        }
        stays
    });
}

/// `absent`: there is nothing behind the name, for so long.
fn refused(name: &ServiceName, reason: &str, absent: Duration) -> BindingResult {
    BindingResult {
        service: name.to_string(),
        accepted: false,
        reason: format!("name: `{name}`: {reason}"),
        // Rounded up: what is asked for at its end is not answered by what was known before.
        absent_seconds: u32::try_from(absent.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX),
    }
}
