//! The one loop of dns-signal: sockets, device, directory and timers meet the agent here.
//!
//! Priorities of a turn: 1. stop; 2. what the directory, the DNS side and the mailer say, and questions; 3. datagrams
//! of host sockets and relays, then frames from the device, a bounded batch of each, so that neither starves the other,
//! and what each leads to goes out before the next is looked at; 4. timers; 5. what else the agent and the allocations
//! want done, and sending; 6. the picture for `/metrics`.
//!
//! The loop runs on a thread of its own and asks a [`Poller`] what is ready: while there is work it never waits, and
//! nothing of a runtime is in a packet's way.

mod relays;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use allocations::{AccessFetcher, AccessResult, Allocations};
use discovery_client::{Directory, Event, StunServers, View};
use dns_signal_proto::agent::{
    Agent, AgentOutput, Destination, FrameDrop, LinkNotice, NameVerdict, Peers,
};
use dns_signal_proto::service::ServiceId;
use link::Transmit;
use net::{AddressChanges, Burst, Clock, HostSockets, Poller};
use service_kit::status::{Asked, Question, Questions};
use tokio::sync::mpsc;
use tun::Device;
use wire::frame::HEADER_LEN;
use wire::ip::Packet;

use crate::dns_resolver::Wanted;
use crate::explain::{Rejections, Told};
use crate::openings::Openings;
use crate::signaling::{PostFailed, Signaling};
use crate::status::{self, Board, Picture, ShellStats, Status};
use crate::upstream::Upstreams;

/// Frames read from the device in one turn, and their bytes: other work has to wait for that long.
const TUN_BATCH: usize = 32;
/// See [`TUN_BATCH`].
const TUN_BATCH_BYTES: usize = 256 << 10;
/// The picture is renewed this often at most.
const PICTURE_INTERVAL: Duration = Duration::from_millis(200);
/// A frame: its header and the largest IP packet.
const MAX_FRAME: usize = HEADER_LEN + 65_535;

/// Finds the service behind a virtual IP, by what the DNS side assigned.
pub(crate) type Lookup = Box<dyn Fn(IpAddr) -> Option<Destination> + Send>;

/// Told of each new view, so that the DNS side answers from it.
pub(crate) type OnView = Box<dyn FnMut(&Arc<View>) + Send>;

/// Told what activators say of names, so that the DNS side answers by it.
pub(crate) type OnVerdict = Box<dyn Fn(ServiceId, &NameVerdict) + Send>;

/// Everything the loop holds.
pub(crate) struct EventLoop {
    pub(crate) poller: Poller,
    pub(crate) agent: Agent,
    pub(crate) sockets: HostSockets,
    pub(crate) address_changes: AddressChanges,
    pub(crate) device: Device,
    pub(crate) device_addresses: [IpAddr; 2],
    pub(crate) directory: Directory,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) wanted: mpsc::Receiver<Wanted>,
    pub(crate) signaling: Signaling,
    pub(crate) failed: mpsc::Receiver<PostFailed>,
    pub(crate) stun_servers: StunServers,
    pub(crate) servers: mpsc::Receiver<Vec<SocketAddr>>,
    /// On relays, where links need them.
    pub(crate) allocations: Allocations,
    pub(crate) fetcher: AccessFetcher,
    pub(crate) access: mpsc::Receiver<AccessResult>,
    /// For [`Status::interception`].
    pub(crate) interception: String,
    /// For [`Status::upstreams`].
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) questions: Questions<Status>,
    /// Who asks why.
    pub(crate) asked: mpsc::Receiver<Asked<ServiceId, Told>>,
    pub(crate) rejections: Rejections,
    pub(crate) lookup: Lookup,
    pub(crate) on_view: OnView,
    pub(crate) on_verdict: OnVerdict,
    pub(crate) board: Board,
    pub(crate) openings: Openings,
    pub(crate) stats: ShellStats,
    /// What was received and is not yet looked at; empty between turns.
    pub(crate) bursts: Vec<Burst>,
}

/// What others said.
enum Heard {
    Stop,
    Event(Option<Event>),
    Wanted(Wanted),
    PostFailed(PostFailed),
    StunServers(Vec<SocketAddr>),
    Access(AccessResult),
    Question(Question<Status>),
    Explain(Asked<ServiceId, Told>),
}

impl EventLoop {
    /// Runs until `stop`, then closes the links.
    pub(crate) fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        net::ask_for_short_slices();
        let mut stop = pin!(stop);
        let mut frame = vec![0; MAX_FRAME];
        let mut picture_due = Some(Clock.now());
        loop {
            if !self.poller.poll()? {
                let timers = [self.agent.poll_timeout(), self.allocations.poll_timeout()];
                self.poller
                    .wait(timers.into_iter().chain([picture_due]).flatten().min())?;
            }
            match self.hear(stop.as_mut()) {
                Some(Heard::Stop) => break,
                Some(Heard::Event(Some(event))) => self.on_event(event),
                Some(Heard::Event(None)) => {
                    anyhow::bail!("the directory task ended unexpectedly")
                }
                Some(Heard::Wanted(wanted)) => {
                    self.agent
                        .handle_wanted(wanted.destination, wanted.at, Clock.now());
                }
                Some(Heard::PostFailed(failed)) => {
                    self.agent
                        .handle_post_failed(failed.link, &failed.reason, Clock.now());
                }
                Some(Heard::StunServers(servers)) => {
                    self.agent.handle_stun_servers(&servers, Clock.now());
                }
                Some(Heard::Access(AccessResult { relay, access })) => {
                    self.agent.handle_access(&relay, access, Clock.now());
                }
                Some(Heard::Question(question)) => drop(question.send(self.status())),
                Some(Heard::Explain(asked)) => self.tell(asked),
                None => {}
            }
            self.look_for_addresses()?;
            self.receive_datagrams();
            self.receive_frames(&mut frame)?;
            let now = Clock.now();
            if self.agent.poll_timeout().is_some_and(|due| due <= now) {
                self.agent.handle_timeout(now);
            }
            self.look_after_allocations(now);
            self.carry_out();
            self.flush();
            if picture_due.is_some_and(|due| due <= now) {
                self.publish();
                picture_due = None;
            } else {
                picture_due.get_or_insert(now + PICTURE_INTERVAL);
            }
        }
        self.agent.close("dns-signal is stopping", Clock.now());
        self.carry_out();
        self.flush();
        self.give_back_allocations()
    }

    fn hear(&mut self, stop: Pin<&mut impl Future<Output = ()>>) -> Option<Heard> {
        let Self {
            poller,
            events,
            wanted,
            failed,
            servers,
            access,
            questions,
            asked,
            ..
        } = self;
        poller.hear(|| async {
            tokio::select! {
                biased;
                () = stop => Heard::Stop,
                event = events.recv() => Heard::Event(event),
                Some(wanted) = wanted.recv() => Heard::Wanted(wanted),
                Some(failed) = failed.recv() => Heard::PostFailed(failed),
                Some(servers) = servers.recv() => Heard::StunServers(servers),
                Some(access) = access.recv() => Heard::Access(access),
                Some(question) = questions.recv() => Heard::Question(question),
                Some(asked) = asked.recv() => Heard::Explain(asked),
            }
        })
    }

    fn on_event(&mut self, event: Event) {
        let now = Clock.now();
        match event {
            Event::ViewChanged(view) => {
                (self.on_view)(&view);
                self.stun_servers.handle_view(&view);
                self.rejections.forget(&view);
                let known = view
                    .registrations
                    .values()
                    .map(|known| (known.node.clone(), known.registration.clone()));
                self.agent.handle_peers(Peers::new(known), now);
                self.agent.handle_relays(view.relays.clone(), now);
            }
            Event::Message { from, document, .. } => {
                self.rejections.believed(&from.to_string());
                if let Some(body) = document.body {
                    self.agent.handle_document(&from, body, now);
                }
            }
            Event::Rejected { from, reason } => {
                tracing::warn!(%from, %reason, "a document was not believed");
                self.rejections.note(&from, &reason);
                if let Ok(from) = from.parse() {
                    self.agent.handle_rejected(&from, &reason, now);
                }
            }
            Event::Connected => tracing::info!("discovery is reachable"),
            Event::Disconnected { reason } => {
                tracing::warn!(%reason, "discovery is not reachable; open links and the last view stay");
            }
        }
    }

    /// # Errors
    /// When this host's addresses cannot be listed.
    fn look_for_addresses(&mut self) -> anyhow::Result<()> {
        if self.poller.is_ready(&self.address_changes)
            && self.address_changes.take()
            && self.sockets.refresh(&self.poller)?
        {
            let hosts = self.sockets.addresses();
            tracing::info!(candidates = ?hosts, "this host's addresses changed");
            // Its connection may be of an address that is gone.
            self.directory.reconnect();
            self.agent.handle_hosts(hosts, Clock.now());
        }
        Ok(())
    }

    fn receive_datagrams(&mut self) {
        let now = Clock.now();
        let mut bursts = std::mem::take(&mut self.bursts);
        self.sockets
            .receive(&self.poller, |burst| bursts.push(burst));
        for burst in bursts.drain(..) {
            let Burst {
                payload,
                segment,
                meta,
            } = burst;
            self.agent
                .handle_datagrams(meta.local, meta.source, payload, segment, now);
        }
        self.bursts = bursts;
        self.receive_relayed(now);
        self.agent.handle_end_of_batch(now);
        self.carry_out();
    }

    /// # Errors
    /// When the device is gone.
    fn receive_frames(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        if !self.poller.is_ready(&self.device) {
            return Ok(());
        }
        let mut bytes = 0;
        for _ in 0..TUN_BATCH {
            let length = match self.device.try_recv(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    let name = self.device.name();
                    return Err(anyhow::Error::new(error)
                        .context(format!("the TUN interface `{name}` is gone")));
                }
            };
            self.on_frame(&buffer[..length]);
            self.carry_out();
            bytes += length;
            if bytes >= TUN_BATCH_BYTES {
                break;
            }
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: &[u8]) {
        let now = Clock.now();
        let Ok(packet) = Packet::parse(frame.get(HEADER_LEN..).unwrap_or_default()) else {
            return self.agent.count_drop(FrameDrop::Malformed);
        };
        let to = packet.destination();
        if to.is_multicast() || matches!(to, IpAddr::V4(ip) if ip.is_broadcast()) {
            // The kernel's own chatter on a new interface: router solicitations and the like.
            return;
        }
        if !self.device_addresses.contains(&packet.source()) {
            return self.agent.count_drop(FrameDrop::SpoofedSource);
        }
        if self.agent.handle_frame(frame, to, now) == Err(FrameDrop::UnknownDestination) {
            match (self.lookup)(to) {
                Some(destination) => {
                    self.agent.learn_route(destination);
                    let _ = self.agent.handle_frame(frame, to, now);
                }
                None => self
                    .agent
                    .refuse_frame(frame, FrameDrop::UnknownDestination),
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                AgentOutput::Transmit(Transmit {
                    local,
                    remote,
                    payload,
                    segment,
                }) => {
                    if !self.allocations.send(local, remote, &payload, segment)
                        && !self.sockets.send(local, remote, &payload, segment)
                    {
                        self.stats.datagrams_refused += payload.chunks(segment).len() as u64;
                    }
                }
                AgentOutput::ToTun(frame) => {
                    if self.device.try_send(&frame).is_err() {
                        self.stats.tun_refused += 1;
                    }
                }
                AgentOutput::Reserve(wish) => self.reserve(wish),
                AgentOutput::Permit { relay, peer } => {
                    self.allocations.permit(&relay, peer, Clock.now());
                }
                AgentOutput::Unpermit { relay, peer } => self.allocations.release(&relay, peer),
                AgentOutput::Document { to, link, mut body } => {
                    let traceparent = self.openings.on_document(link, &mut body);
                    self.signaling.post(&to, link, body, traceparent);
                }
                AgentOutput::Verdict {
                    network,
                    service,
                    verdict,
                } => (self.on_verdict)(ServiceId { service, network }, &verdict),
                AgentOutput::Notice(notice) => {
                    log(&notice);
                    self.openings.on_notice(notice, Clock.now());
                }
            }
        }
    }

    fn flush(&mut self) {
        self.allocations.flush(&self.poller);
        self.stats.datagrams_refused += self.sockets.flush(&self.poller).refused as u64;
    }

    fn status(&self) -> Status {
        Status {
            node: self.directory.identity().node_id().to_string(),
            discovery_connected: self.directory.view().connected,
            interception: self.interception.clone(),
            upstreams: self.upstreams.facts(),
            reflexive: self
                .agent
                .reflexive()
                .map(|seen| seen.to_string())
                .collect(),
            links: self.agent.status().iter().map(status::link).collect(),
        }
    }

    fn tell(&self, asked: Asked<ServiceId, Told>) {
        let ServiceId { service, network } = &asked.about;
        let told = Told {
            way: self.agent.way_to(network, service),
            rejected: self.rejections.of(network.as_str()),
        };
        let _ = asked.answer.send(told);
    }

    fn publish(&mut self) {
        let links = self.agent.status();
        self.openings.look_at(&links, Clock.now());
        self.board.store(Arc::new(Picture {
            links_open: links.iter().filter(|link| link.open).count(),
            discovery_connected: self.directory.view().connected,
            agent: self.agent.stats().clone(),
            shell: self.stats,
        }));
    }
}

fn log(notice: &LinkNotice) {
    match notice {
        LinkNotice::Opened {
            link,
            peer,
            path,
            after,
        } => {
            let path = path.map(|path| path.to_string()).unwrap_or_default();
            let ms = after.as_millis() as u64;
            tracing::info!(link, %peer, path, ms, "link open");
        }
        LinkNotice::Closed {
            link,
            peer,
            opened: true,
            reason,
            ..
        } => {
            tracing::info!(link, %peer, reason, "link closed");
        }
        LinkNotice::Closed {
            link,
            peer,
            opened: false,
            reason,
            ..
        } => {
            tracing::warn!(link, %peer, reason, "link could not be opened");
        }
        LinkNotice::OpenFailed { network, reason } => {
            tracing::debug!(%network, reason, "trying the network again later");
        }
        LinkNotice::ServiceRefused {
            peer,
            service,
            reason,
        } => {
            tracing::warn!(%peer, %service, reason, "the activator refuses the service");
        }
    }
}
