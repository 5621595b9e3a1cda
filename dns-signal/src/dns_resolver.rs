//! The handle between DNS and the rest: answers from the last published view of the directory, and says which link
//! an answer will need. Shared by all tasks; never waits.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwapOption, Guard};
use dns_signal_proto::absent::Absent;
use dns_signal_proto::agent::{Destination, NameVerdict};
use dns_signal_proto::alias::{Aliases, Meaning};
use dns_signal_proto::answer::{Authority, Reply};
use dns_signal_proto::intercept::{self, Decision, Suffix};
use dns_signal_proto::service::ServiceId;
use dns_signal_proto::services::{Families, Services};
use dns_signal_proto::stats::DnsStats;
use dns_signal_proto::virtual_ip::{NotLent, Pools, VirtualIpPair, VirtualIps, Wildcard};
use explain::facts::Known;
use hickory_proto::op::Query as Question;
use hickory_proto::rr::{DNSClass, Name, RecordType};
use model::Match;
use tokio::sync::{Notify, mpsc};

/// Triggers kept for an event loop that is busy; beyond, they are lost, which the next query or packet repairs.
const WANTED_QUEUE: usize = 256;

/// Somebody asked for a service: a link to its network will be needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The service and its virtual IPs.
    pub destination: Destination,
    /// When it was asked for.
    pub at: Instant,
}

/// What to do with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Ours to answer.
    Reply(Reply),
    /// For an upstream.
    Forward,
}

/// See the module.
#[derive(Debug)]
pub struct Resolver {
    suffix: Suffix,
    aliases: Option<Aliases>,
    /// Where the answers of round-robin aliases begin: for IPv4, for IPv6, so that both families of one lookup agree.
    turns: [AtomicUsize; 2],
    pools: Pools,
    services: ArcSwapOption<Services>,
    assigned: Mutex<VirtualIps>,
    absent: Mutex<Absent>,
    unsaved: Notify,
    wanted: mpsc::Sender<Wanted>,
    stats: DnsStats,
}

impl Resolver {
    /// `assigned` is what an earlier process left. What services are wanted comes out of the receiver.
    pub fn new(suffix: Suffix, assigned: VirtualIps) -> (Arc<Self>, mpsc::Receiver<Wanted>) {
        Self::with_aliases(suffix, None, assigned)
    }

    /// The same, with further names.
    pub fn with_aliases(
        suffix: Suffix,
        aliases: Option<Aliases>,
        assigned: VirtualIps,
    ) -> (Arc<Self>, mpsc::Receiver<Wanted>) {
        let (wanted, receiver) = mpsc::channel(WANTED_QUEUE);
        let resolver = Self {
            suffix,
            aliases: aliases.filter(|aliases| !aliases.is_empty()),
            turns: Default::default(),
            pools: *assigned.pools(),
            services: ArcSwapOption::empty(),
            assigned: Mutex::new(assigned),
            absent: Mutex::default(),
            unsaved: Notify::new(),
            wanted,
            stats: DnsStats::default(),
        };
        (Arc::new(resolver), receiver)
    }

    /// Answers from this view from now on. Before the first call, names under the suffix give SERVFAIL.
    pub fn publish(&self, services: Services) {
        // Before the first of them can be asked for.
        self.assigned().expect(services.ids());
        self.services.store(Some(Arc::new(services)));
    }

    /// The counters.
    pub fn stats(&self) -> &DnsStats {
        &self.stats
    }

    /// How many services have a virtual IP.
    pub fn assigned_count(&self) -> usize {
        self.assigned().len()
    }

    /// How many of these are names below wildcards.
    pub fn lent_count(&self) -> usize {
        self.assigned().lent()
    }

    /// Decides about a question, assigns a virtual IP if needed, and triggers the link. Does not block.
    pub fn resolve(&self, question: &Question, now: Instant) -> Resolution {
        if let Some(aliases) = &self.aliases
            && let Some(reply) = self.resolve_alias(aliases, question, now)
        {
            return Resolution::Reply(reply);
        }
        let services = self.services.load();
        let is_absent = services
            .as_deref()
            .is_some_and(|services| self.is_absent(question.name(), services, now));
        let decision = intercept::decide(
            question.name(),
            question.query_type(),
            question.query_class(),
            services.as_deref(),
            &self.suffix,
            &self.pools,
        );
        let stats = &self.stats;
        let authority = |zone| Authority {
            zone,
            // Serial numbers wrap (RFC 1982); only that it changes matters here.
            serial: services
                .as_ref()
                .map_or(0, |services| services.revision() as u32),
        };
        let reply = match decision {
            Decision::Remote { .. }
            | Decision::Ports { .. }
            | Decision::Text { .. }
            | Decision::NoData { .. }
                if is_absent =>
            {
                stats.no_such_name.count();
                Reply::NoSuchName(authority(self.suffix.name().clone()))
            }
            Decision::Forward => return Resolution::Forward,
            Decision::Remote { id, ipv4, ipv6 } => {
                let families = services
                    .as_ref()
                    .and_then(|services| services.families(&id));
                self.remote(&id, ipv4, ipv6, families.unwrap_or_default(), now)
            }
            Decision::Ports { id, ports } => {
                let families = services
                    .as_ref()
                    .and_then(|services| services.families(&id))
                    .unwrap_or_default();
                match self.remote(&id, families.ipv4, families.ipv6, families, now) {
                    Reply::Addresses(addresses) => {
                        Reply::Ports(self.suffix.name_of(&id), ports, addresses)
                    }
                    failed => failed,
                }
            }
            Decision::Text { texts, .. } => {
                stats.remote.count();
                Reply::Text(texts)
            }
            Decision::Pointer { address, zone } => match self.name_of(address) {
                Some(name) => {
                    stats.pointer.count();
                    Reply::Pointer(name)
                }
                None => {
                    stats.no_such_name.count();
                    Reply::NoSuchName(authority(zone))
                }
            },
            Decision::Authority => {
                stats.no_data.count();
                Reply::Authority(authority(self.suffix.name().clone()))
            }
            Decision::NoData { zone } => {
                stats.no_data.count();
                Reply::NoData(authority(zone))
            }
            Decision::NoSuchName { zone } => {
                stats.no_such_name.count();
                Reply::NoSuchName(authority(zone))
            }
            Decision::Unknown => {
                stats.directory_unknown.count();
                Reply::Failed
            }
            Decision::Refuse => {
                stats.refused.count();
                Reply::Refused
            }
        };
        Resolution::Reply(reply)
    }

    /// `None`: no alias's to answer.
    fn resolve_alias(&self, aliases: &Aliases, question: &Question, now: Instant) -> Option<Reply> {
        let (name, record_type) = (question.name(), question.query_type());
        if question.query_class() != DNSClass::IN || !aliases.covers(name, record_type) {
            return None;
        }
        let services = self.services.load();
        let Some(services) = services.as_deref() else {
            self.stats.directory_unknown.count();
            return Some(Reply::Failed);
        };
        let Meaning {
            services: mut meant,
            zone,
        } = aliases.meaning(name, services)?;
        // As if nobody exported them.
        meant.retain(|(id, _)| self.why_absent(id, now).is_none());
        if meant.is_empty() {
            return None;
        }
        let any = record_type == RecordType::ANY;
        let ipv4 = any || record_type == RecordType::A;
        let ipv6 = any || record_type == RecordType::AAAA;
        if (ipv4 || ipv6) && meant.len() > 1 {
            let turn = self.turns[usize::from(ipv6)].fetch_add(1, Ordering::Relaxed);
            let first = turn % meant.len();
            meant.rotate_left(first);
        }
        let mut addresses = Vec::new();
        for (id, families) in meant {
            let (ipv4, ipv6) = (ipv4 && families.ipv4, ipv6 && families.ipv6);
            if ipv4 || ipv6 {
                match self.remote(&id, ipv4, ipv6, families, now) {
                    Reply::Addresses(more) => addresses.extend(more),
                    failed => return Some(failed),
                }
            }
        }
        if addresses.is_empty() {
            self.stats.no_data.count();
            let serial = services.revision() as u32;
            return Some(Reply::NoData(Authority { zone, serial }));
        }
        Some(Reply::Addresses(addresses))
    }

    fn remote(
        &self,
        id: &ServiceId,
        ipv4: bool,
        ipv6: bool,
        families: Families,
        now: Instant,
    ) -> Reply {
        let Some(pair) = self.give(id, now) else {
            return Reply::Failed;
        };
        self.stats.remote.count();
        self.trigger(destination(id, pair, families), now);
        let ipv4 = ipv4.then_some(IpAddr::V4(pair.ipv4));
        let ipv6 = ipv6.then_some(IpAddr::V6(pair.ipv6));
        Reply::Addresses(ipv4.into_iter().chain(ipv6).collect())
    }

    /// The addresses of a service for good, or those lent to a name below a wildcard; `None`: there are none left, which is
    /// counted.
    fn give(&self, id: &ServiceId, now: Instant) -> Option<VirtualIpPair> {
        let services = self.services.load();
        let found = services.as_deref().map(|services| services.find(id));
        let not_lent = if let Some(Match::Wildcard(name, _)) = found {
            let network = id.network.clone();
            let wildcard = Wildcard { name, network };
            match self.assigned().lend(id, &wildcard, now) {
                Ok(pair) => return Some(pair),
                Err(NotLent::PoolExhausted) => None,
                Err(full) => Some((wildcard, full)),
            }
        } else {
            let assigned = self.assigned().assign(id);
            if let Ok((pair, is_new)) = assigned {
                if is_new {
                    self.unsaved.notify_one();
                }
                return Some(pair);
            }
            None
        };
        match not_lent {
            Some((wildcard, full)) => {
                if self.stats.wildcard_full.add(1) == 0 {
                    tracing::error!(
                        %wildcard, %full,
                        "further names of the wildcard are answered SERVFAIL until others were not asked for in a while"
                    );
                }
            }
            None => {
                if self.stats.pool_exhausted.add(1) == 0 {
                    tracing::error!(
                        ipv4 = %self.pools.ipv4(), ipv6 = %self.pools.ipv6(), places = self.pools.places(),
                        "no virtual IP is free: new names are answered SERVFAIL until tunnel.pool-ipv4 or pool-ipv6, whichever is smaller, is larger"
                    );
                }
            }
        }
        None
    }

    /// What an activator said of a service or of a name below a wildcard.
    pub fn handle_verdict(&self, id: ServiceId, verdict: &NameVerdict, now: Instant) {
        match verdict {
            NameVerdict::Found => {
                self.absent().forget(&id);
                if self.assigned().found(&id) {
                    self.unsaved.notify_one();
                }
            }
            NameVerdict::Absent { lasts, reason } => {
                self.assigned().take_back(&id);
                self.absent().note(id, *lasts, reason, now);
            }
        }
    }

    /// Why there is nothing behind a name below a wildcard.
    pub(crate) fn why_absent(&self, id: &ServiceId, now: Instant) -> Option<String> {
        let services = self.services.load();
        let is_below = matches!(services.as_deref()?.find(id), Match::Wildcard(..));
        is_below
            .then(|| self.absent().reason(id, now).map(str::to_owned))
            .flatten()
    }

    /// Whether a question is about a name below a wildcard behind which there is nothing.
    fn is_absent(&self, name: &Name, services: &Services, now: Instant) -> bool {
        if !services.have_wildcards() {
            return false;
        }
        let id = self.suffix.service_in(name);
        id.is_some_and(|id| self.why_absent(&id, now).is_some())
    }

    /// The link to a service will be needed.
    pub(crate) fn trigger(&self, destination: Destination, at: Instant) {
        if self.wanted.try_send(Wanted { destination, at }).is_err() {
            self.stats.wanted_lost.count();
        }
    }

    /// The view that answers come from now.
    pub(crate) fn view(&self) -> Guard<Option<Arc<Services>>> {
        self.services.load()
    }

    /// The one service that a reply is about, if that and the reply stay as they are as long as the view does.
    pub(crate) fn standing(&self, question: &Question, reply: &Reply) -> Option<Destination> {
        let Reply::Addresses(addresses) = reply else {
            return None;
        };
        let destination = self.destination_of(*addresses.first()?)?;
        let id = ServiceId {
            service: destination.service.clone(),
            network: destination.network.clone(),
        };
        // A name below a wildcard may turn out not to be there.
        let services = self.services.load();
        if !services.as_deref()?.has_service(&id) {
            return None;
        }
        // Not one of several that take turns.
        let is_one = addresses
            .iter()
            .all(|address| destination.addresses().any(|own| own == *address));
        (is_one && *question.name() == self.suffix.name_of(&id)).then_some(destination)
    }

    fn name_of(&self, address: IpAddr) -> Option<Name> {
        self.assigned()
            .service_of(address)
            .map(|id| self.suffix.name_of(id))
    }

    /// The service behind a virtual IP, for a packet that came without a query: the workload remembers an answer of an
    /// earlier process, or of another sidecar. `None`: no service's.
    pub fn destination_of(&self, address: IpAddr) -> Option<Destination> {
        let (id, pair) = {
            let mut assigned = self.assigned();
            let id = assigned.expected_at(address)?.clone();
            let pair = match assigned.get(&id) {
                Some(pair) => pair,
                None => {
                    let (pair, _) = assigned.assign(&id).ok()?;
                    self.unsaved.notify_one();
                    pair
                }
            };
            (id, pair)
        };
        // Unknown to the directory now: both, as it may come back with either.
        let families = self
            .services
            .load()
            .as_ref()
            .and_then(|services| services.families(&id));
        Some(destination(
            &id,
            pair,
            families.unwrap_or(Families {
                ipv4: true,
                ipv6: true,
            }),
        ))
    }

    /// The service that an alias stands for now, the first of several.
    pub(crate) fn alias_of(&self, name: &str) -> Option<ServiceId> {
        let services = self.services.load();
        let name = Name::from_utf8(name).ok()?;
        let meaning = self
            .aliases
            .as_ref()?
            .meaning(&name, services.as_deref()?)?;
        meaning.services.into_iter().next().map(|(id, _)| id)
    }

    /// What the directory says of a service, and of a name below a wildcard its activator.
    pub(crate) fn known(&self, id: &ServiceId, now: Instant) -> Known {
        match &*self.services.load() {
            None => Known::NothingYet,
            Some(_) if self.why_absent(id, now).is_some() => Known::Absent,
            Some(services) if services.families(id).is_some() => Known::Exported,
            Some(services) if services.has_network(&id.network) => Known::NoSuchService,
            Some(_) => Known::NoSuchNetwork,
        }
    }

    /// The link to a service is wanted, as by a query for its addresses.
    pub(crate) fn want(&self, id: &ServiceId, now: Instant) {
        let families = self
            .services
            .load()
            .as_ref()
            .and_then(|all| all.families(id));
        let Families { ipv4, ipv6 } = families.unwrap_or_default();
        self.remote(id, ipv4, ipv6, Families { ipv4, ipv6 }, now);
    }

    /// The virtual IPs of a service, if it was ever given any, in the families that it has.
    pub(crate) fn addresses(&self, id: &ServiceId) -> Vec<IpAddr> {
        let pair = self.assigned().get(id);
        let address = pair.and_then(|pair| self.destination_of(IpAddr::V4(pair.ipv4)));
        address.map_or_else(Vec::new, |found| found.addresses().collect())
    }

    /// Returns when there are assignments that were not saved.
    pub(crate) async fn unsaved(&self) {
        self.unsaved.notified().await;
    }

    /// The assignments as text, see [`VirtualIps::encode`].
    pub(crate) fn encode_assignments(&self) -> String {
        // Cloned, so that queries do not wait while a long text is written.
        let assigned = self.assigned().clone();
        assigned.encode()
    }

    fn absent(&self) -> MutexGuard<'_, Absent> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn assigned(&self) -> MutexGuard<'_, VirtualIps> {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn destination(id: &ServiceId, pair: VirtualIpPair, families: Families) -> Destination {
    Destination {
        network: id.network.clone(),
        service: id.service.clone(),
        ipv4: families.ipv4.then_some(pair.ipv4),
        ipv6: families.ipv6.then_some(pair.ipv6),
    }
}
