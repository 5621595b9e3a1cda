//! The switchboard: wanted services, packets, documents and datagrams in; offers, datagrams and packets out.
//!
//! After every `handle_*` call [`Agent::poll_output`] until it gives `None`, then ask [`Agent::poll_timeout`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use link::{DtlsCertificate, LinkConfig, LinkTable, PathChoice, Reflexive, SendRefused};
use model::{NetworkName, NodeId};
use protocol::document::control::Body as ControlBody;
use protocol::document::document::Body;
use protocol::document::{Bind, Control};

mod candidates;
mod drain;
mod failover;
mod health;
mod opening;
mod output;
mod peers;
mod refusal;
mod relays;
mod route;
mod session;
mod stats;
mod waiting;
mod why;

pub use output::{
    AgentOutput, Failure, FailureKind, FrameDrop, LinkNotice, LinkStatus, NameVerdict, Verdict, Way,
};
pub use peers::Peers;
pub use route::Destination;
pub use session::TimedStep;
pub use stats::AgentStats;

use health::Health;
use peers::holds;
use relays::{OPENING_PATIENCE, OwnRelays};
use route::Routes;
use session::{BindingState, Session};
use waiting::Waiting;

/// Settings of the agent.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// The network this sidecar is in.
    pub network: NetworkName,
    /// The TUN device's own addresses: the only ones a packet from a link may be for.
    pub device_ipv4: Ipv4Addr,
    /// See `device_ipv4`.
    pub device_ipv6: Ipv6Addr,
    /// A link without a frame for this long is torn down.
    pub idle_timeout: Duration,
    /// How long an answer to an offer is waited for.
    pub answer_timeout: Duration,
    /// Whether a second link is kept open to another activator of a network whose first link is used.
    pub standby: bool,
    /// Settings of each link.
    pub link: LinkConfig,
    /// Networks to whose links other ways are open than `link` says.
    pub paths: BTreeMap<NetworkName, PathChoice>,
}

/// Links at once: one per remote network and a few that are ending.
const MAX_LINKS: usize = 1_024;
/// Pause before a network is tried again after a failure; doubled each time up to `MAX_BACKOFF`.
const MIN_BACKOFF: Duration = Duration::from_millis(250);
/// See `MIN_BACKOFF`.
const MAX_BACKOFF: Duration = Duration::from_secs(2);
/// Why a link is closed that was not used.
const IDLE: &str = "idle";
/// A refused or unanswered binding is asked for again after this.
const BIND_RETRY: Duration = Duration::from_secs(3);

/// What is known of one remote network.
#[derive(Debug, Default)]
struct Remote {
    link: Option<u64>,
    /// To another activator: takes over when `link` is silent or over.
    next: Option<u64>,
    waiting: Waiting,
    failures: u32,
    retry_at: Option<Instant>,
    last_failed: Option<NodeId>,
    /// For whoever asks: attempts that failed since the start, and the last of them unless a link opened since.
    attempts_failed: u64,
    failure: Option<Failure>,
}

/// The sidecar's core. See the module's documentation.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    certificate: Arc<DtlsCertificate>,
    hosts: Vec<SocketAddr>,
    reflexive: Reflexive,
    peers: Peers,
    routes: Routes,
    remotes: HashMap<NetworkName, Remote>,
    links: LinkTable<Session>,
    relays: OwnRelays,
    health: Health,
    next_link: u64,
    outputs: VecDeque<AgentOutput>,
    /// Links that got datagrams since the end of the last batch.
    touched: Vec<u64>,
    stats: AgentStats,
}

impl Agent {
    /// An agent without links. `seed` makes link ids unlike those of earlier runs.
    #[must_use]
    pub fn new(
        config: AgentConfig,
        certificate: Arc<DtlsCertificate>,
        hosts: Vec<SocketAddr>,
        seed: u64,
    ) -> Self {
        Self {
            relays: OwnRelays::new(config.network.clone(), seed),
            config,
            reflexive: Reflexive::new(Arc::clone(&certificate)),
            certificate,
            hosts,
            peers: Peers::default(),
            routes: Routes::default(),
            remotes: HashMap::new(),
            links: LinkTable::new(MAX_LINKS),
            health: Health::default(),
            next_link: seed,
            outputs: VecDeque::new(),
            touched: Vec::new(),
            stats: AgentStats::default(),
        }
    }

    /// The directory's view changed. Links of an activator that started anew are over; those of one that is merely
    /// absent live on. A link over a relayed address that its activator no longer holds looks for another way.
    pub fn handle_peers(&mut self, peers: Peers, now: Instant) {
        for node in peers.started_since(&self.peers) {
            self.health.on_started(node);
        }
        self.peers = peers;
        self.health.retain(|node| self.peers.get(node).is_some());
        let (mut stale, mut moved) = (Vec::new(), Vec::new());
        for (key, session) in self.links.iter_mut() {
            let Some(said) = self.peers.get(&session.node) else {
                continue;
            };
            let relayed = session
                .link
                .pair()
                .filter(|_| session.link.path().is_some_and(link::Path::is_relayed))
                // The relay may be ours, and the activator's address any.
                .filter(|(local, _)| self.relays.leg_of(*local).is_none())
                .map(|(_, relayed)| relayed);
            if said.instance != session.instance {
                stale.push((key, "the activator started anew"));
            } else if let Some(relayed) = relayed.filter(|relayed| !holds(said, *relayed)) {
                session.link.retire_address(relayed, now);
                moved.push(key);
            }
        }
        for key in moved {
            self.drain(key, now);
        }
        for (key, why) in stale {
            self.close_link(key, why, now);
        }
        let networks: Vec<NetworkName> = self.remotes.keys().cloned().collect();
        for network in networks {
            self.retry(&network, now);
            self.keep_standby(&network, now);
        }
    }

    /// A name was answered with virtual IPs at `at`: the link is opened in the background.
    pub fn handle_wanted(&mut self, destination: Destination, at: Instant, now: Instant) {
        let destination = Arc::new(destination);
        self.routes.insert(&destination);
        self.want(&destination, at, now);
    }

    /// Learns where a virtual IP leads without wanting it yet.
    pub fn learn_route(&mut self, destination: Destination) {
        self.routes.insert(&Arc::new(destination));
    }

    /// A frame from the TUN device for `to`. [`FrameDrop::UnknownDestination`] asks for
    /// [`Agent::learn_route`] and another try, or for [`Agent::refuse_frame`].
    ///
    /// # Errors
    /// Why the frame went no further; it is counted.
    pub fn handle_frame(
        &mut self,
        frame: &[u8],
        to: IpAddr,
        now: Instant,
    ) -> Result<(), FrameDrop> {
        let Some(destination) = self.routes.find(to).cloned() else {
            return Err(FrameDrop::UnknownDestination);
        };
        let result = self.send_or_wait(&destination, frame, now, now);
        match result {
            Ok(()) => {}
            Err(FrameDrop::ServiceRefused) => self.refuse_frame(frame, FrameDrop::ServiceRefused),
            Err(reason) => self.stats.count_drop(reason),
        }
        result
    }

    /// A datagram on a host socket.
    pub fn handle_datagram(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
        now: Instant,
    ) {
        let segment = payload.len().max(1);
        self.handle_datagrams(local, remote, payload, segment, now);
        self.handle_end_of_batch(now);
    }

    /// Datagrams of `segment` bytes, the last may be shorter, that arrived together on a host socket. What they lead
    /// to comes out after [`Agent::handle_end_of_batch`]: their link joins what belongs together.
    pub fn handle_datagrams(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: BytesMut,
        segment: usize,
        now: Instant,
    ) {
        if self.reflexive.handle_datagram(local, remote, &payload, now) {
            return self.ask_stun_servers(now);
        }
        let Some(key) = self.links.route(local, remote, &payload) else {
            self.stats.stray_datagrams += 1;
            return;
        };
        if let Some(session) = self.links.get_mut(key) {
            session
                .link
                .handle_datagrams(local, remote, payload, segment, now);
            if !self.touched.contains(&key) {
                self.touched.push(key);
            }
        }
    }

    /// No more datagrams for now.
    pub fn handle_end_of_batch(&mut self, now: Instant) {
        while let Some(key) = self.touched.pop() {
            self.drain(key, now);
        }
    }

    /// A document that `from` signed for this node, verified.
    pub fn handle_document(&mut self, from: &NodeId, body: Body, now: Instant) {
        let named = match &body {
            Body::Answer(answer) => answer.link,
            Body::Refusal(refusal) => refusal.link,
            Body::Candidates(candidates) => candidates.link,
            Body::Bye(bye) => bye.link,
            Body::Registration(_) | Body::Offer(_) => {
                self.stats.stray_documents += 1;
                return;
            }
        };
        if let Body::Refusal(refusal) = &body
            && refusal.link == 0
        {
            // The peer could not even read which link it was about.
            return self.on_refused_unread(from, &refusal.reason, now);
        }
        let Some(session) = self
            .links
            .get_mut(named)
            .filter(|session| session.node == *from)
        else {
            self.stats.stray_documents += 1;
            return;
        };
        match body {
            Body::Answer(answer) => {
                let Some(description) = answer
                    .description
                    .filter(|_| session.answer_deadline.is_some())
                else {
                    self.stats.stray_documents += 1;
                    return;
                };
                session.answer_deadline = None;
                session.record("answer_received", now);
                if let Err(error) = session.link.set_remote_description(&description, now) {
                    let why = format!("the answer is unusable: {error}");
                    return self.fail(named, FailureKind::NotBelieved, &why, now);
                }
                session.expect_path_by(now + OPENING_PATIENCE);
                let said = session.on_results(&answer.bindings, now);
                self.pass_on(named, said);
                self.permit(named);
            }
            Body::Refusal(refusal) => {
                let reason: String = refusal.reason.chars().take(256).collect();
                let why = format!("the activator refused: {reason}");
                return self.fail(named, FailureKind::Refused, &why, now);
            }
            Body::Candidates(candidates) => {
                for candidate in &candidates.candidates {
                    let _ = session.link.add_remote_candidate(candidate, now);
                }
                self.permit(named);
            }
            Body::Bye(bye) => {
                let reason: String = bye.reason.chars().take(256).collect();
                let why = format!("the activator ended it: {reason}");
                return self.fail(named, FailureKind::Ended, &why, now);
            }
            Body::Registration(_) | Body::Offer(_) => {}
        }
        self.drain(named, now);
    }

    /// A document that `from` is said to have sent was not believed. What waits for that node's answer waits no
    /// longer, and the node is told why.
    pub fn handle_rejected(&mut self, from: &NodeId, reason: &str, now: Instant) {
        for key in self.expecting_answer_of(from) {
            self.fail(
                key,
                FailureKind::NotBelieved,
                &format!("the peer's document was not believed: {reason}"),
                now,
            );
        }
    }

    /// A document of ours could not be delivered.
    pub fn handle_post_failed(&mut self, link: u64, why: &str, now: Instant) {
        if self
            .links
            .get(link)
            .is_some_and(|session| session.answer_deadline.is_some())
        {
            self.fail(
                link,
                FailureKind::NotDelivered,
                &format!("the offer could not be delivered: {why}"),
                now,
            );
        }
    }

    /// Lets everything happen that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (key, session) in self.links.iter_mut() {
            let idle_since = session.link.last_traffic();
            if session
                .answer_deadline
                .is_some_and(|deadline| deadline <= now)
            {
                due.push((key, Some("no answer to the offer in time")));
            } else if session.link.is_open()
                && !session.standby
                && now.saturating_duration_since(idle_since) >= self.config.idle_timeout
            {
                due.push((key, None));
            } else if session
                .link
                .poll_timeout()
                .is_some_and(|timeout| timeout <= now)
            {
                session.link.handle_timeout(now);
                due.push((key, Some("")));
            }
        }
        for (key, failure) in due {
            match failure {
                None => self.close_link(key, IDLE, now),
                Some("") => self.drain(key, now),
                Some(why) => self.fail(key, FailureKind::NoAnswer, why, now),
            }
        }
        let networks: Vec<NetworkName> = self
            .remotes
            .iter()
            .filter(|(_, remote)| !remote.waiting.is_empty())
            .map(|(network, _)| network.clone())
            .collect();
        for network in networks {
            self.retry(&network, now);
        }
        self.ask_stun_servers(now);
        self.look_after_relays(now);
    }

    /// When [`Agent::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        let idle_timeout = self.config.idle_timeout;
        let links = self.links.iter_mut().filter_map(|(_, session)| {
            let idle = (session.link.is_open() && !session.standby)
                .then(|| session.link.last_traffic() + idle_timeout);
            let due = [session.answer_deadline, session.relay_due, idle];
            due.into_iter()
                .chain([session.link.poll_timeout()])
                .flatten()
                .min()
        });
        let retries = self
            .remotes
            .values()
            .filter(|remote| !remote.waiting.is_empty() && remote.link.is_none())
            .filter_map(|remote| remote.retry_at);
        links
            .chain(retries)
            .chain(self.reflexive.poll_timeout())
            .chain(self.relays.until)
            .chain(self.relays.reservations.poll_timeout())
            .min()
    }

    /// The next thing to do for the shell.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<AgentOutput> {
        self.outputs.pop_front()
    }

    /// Ends all links, telling the peers.
    pub fn close(&mut self, reason: &str, now: Instant) {
        let keys: Vec<u64> = self.links.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.close_link(key, reason, now);
        }
        self.release_relays(now);
    }

    /// The links as they are, for `/status`.
    #[must_use]
    pub fn status(&self) -> Vec<LinkStatus> {
        let all = self.links.iter();
        all.map(|(key, session)| session.status(key)).collect()
    }

    /// Counts a frame that the shell dropped.
    pub const fn count_drop(&mut self, reason: FrameDrop) {
        self.stats.count_drop(reason);
    }

    /// The counters.
    #[must_use]
    pub const fn stats(&self) -> &AgentStats {
        &self.stats
    }

    fn want(&mut self, destination: &Arc<Destination>, since: Instant, now: Instant) {
        let remote = self.remotes.entry(destination.network.clone()).or_default();
        match remote.link {
            None => self.open_link(destination, since, now),
            Some(key) => {
                if let Some(session) = self.links.get_mut(key) {
                    bind_if_needed(session, destination, now);
                    self.drain(key, now);
                }
            }
        }
    }

    fn send_or_wait(
        &mut self,
        destination: &Arc<Destination>,
        frame: &[u8],
        since: Instant,
        now: Instant,
    ) -> Result<(), FrameDrop> {
        let link = self
            .remotes
            .get(&destination.network)
            .and_then(|remote| remote.link);
        if let Some(key) = link
            && let Some(session) = self.links.get_mut(key)
            && session.link.is_open()
        {
            match session.state_of(destination) {
                Some(BindingState::Accepted) => {
                    let sent = session.link.send_frame(frame, now);
                    self.drain(key, now);
                    return sent.map_err(|refused| match refused {
                        SendRefused::NotOpen => FrameDrop::LinkClosed,
                        SendRefused::QueueFull => FrameDrop::QueueFull,
                        SendRefused::TooLong => FrameDrop::TooLong,
                    });
                }
                Some(BindingState::Refused { at, .. })
                    if now.saturating_duration_since(*at) < BIND_RETRY =>
                {
                    return Err(FrameDrop::ServiceRefused);
                }
                _ => {}
            }
        }
        let remote = self.remotes.entry(destination.network.clone()).or_default();
        let (aged, too_many) = remote.waiting.push(destination, frame, since, now);
        self.stats.dropped_waiting += too_many;
        self.on_aged(&aged);
        self.want(destination, since, now);
        Ok(())
    }
}

fn bind_if_needed(session: &mut Session, destination: &Arc<Destination>, now: Instant) {
    let needed = match session.state_of(destination) {
        None => true,
        Some(BindingState::Accepted) => false,
        Some(BindingState::ExpectResult { since: at } | BindingState::Refused { at, .. }) => {
            now.saturating_duration_since(*at) >= BIND_RETRY
        }
    };
    if needed && session.link.is_open() {
        let bindings = vec![session.bind(destination, now)];
        let bind = Control {
            body: Some(ControlBody::Bind(Bind { bindings })),
        };
        let _ = session.link.send_control(&bind, now);
    }
}
