//! The one loop of dns-signal: sockets, device, directory and timers meet the agent here.
//!
//! Priorities of a turn: 1. stop; 2. what the directory, the DNS side and the mailer say, and questions; 3. datagrams, then frames
//! from the device, a bounded batch of each, so that neither starves the other; 4. timers; 5. what the agent wants
//! done; 6. the picture for `/metrics`.

use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use discovery_client::{Directory, Event, View};
use dns_signal_proto::agent::{Agent, AgentOutput, Destination, FrameDrop, LinkNotice, Peers};
use net::{Clock, HostSockets};
use service_kit::status::{Question, Questions};
use tokio::sync::mpsc;
use tun::Device;
use wire::frame::HEADER_LEN;
use wire::ip::Packet;

use crate::dns_resolver::Wanted;
use crate::signaling::{PostFailed, Signaling};
use crate::status::{self, Board, Picture, ShellStats, Status};

/// Frames read from the device in one turn.
const TUN_BATCH: usize = 32;
/// The picture is renewed this often at most.
const PICTURE_INTERVAL: Duration = Duration::from_millis(200);
/// A frame: its header and the largest IP packet.
const MAX_FRAME: usize = HEADER_LEN + 65_535;

/// Finds the service behind a virtual IP, by what the DNS side assigned.
pub(crate) type Lookup = Box<dyn Fn(IpAddr) -> Option<Destination>>;

/// Told of each new view, so that the DNS side answers from it.
pub(crate) type OnView = Box<dyn FnMut(&Arc<View>)>;

/// Everything the loop holds.
pub(crate) struct EventLoop {
    pub(crate) agent: Agent,
    pub(crate) sockets: HostSockets,
    pub(crate) device: Device,
    pub(crate) device_addresses: [IpAddr; 2],
    pub(crate) directory: Directory,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) wanted: mpsc::Receiver<Wanted>,
    pub(crate) signaling: Signaling,
    pub(crate) failed: mpsc::Receiver<PostFailed>,
    pub(crate) questions: Questions<Status>,
    pub(crate) lookup: Lookup,
    pub(crate) on_view: OnView,
    pub(crate) board: Board,
    pub(crate) stats: ShellStats,
}

/// What ended a wait.
enum Wake {
    Stop,
    Event(Option<Event>),
    Wanted(Wanted),
    PostFailed(PostFailed),
    Question(Question<Status>),
    Packets,
    Timeout,
}

impl EventLoop {
    /// Runs until `stop`, then closes the links.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut stop = pin!(stop);
        let mut frame = vec![0; MAX_FRAME];
        let mut picture_due = Some(Clock.now());
        loop {
            let timeout = [self.agent.poll_timeout(), picture_due]
                .into_iter()
                .flatten()
                .min();
            match self.wait(stop.as_mut(), timeout).await {
                Wake::Stop => break,
                Wake::Event(Some(event)) => self.on_event(event),
                Wake::Event(None) => anyhow::bail!("the directory task ended unexpectedly"),
                Wake::Wanted(wanted) => {
                    self.agent
                        .handle_wanted(wanted.destination, wanted.at, Clock.now());
                }
                Wake::PostFailed(failed) => {
                    self.agent
                        .handle_post_failed(failed.link, &failed.reason, Clock.now());
                }
                Wake::Question(question) => drop(question.send(self.status())),
                Wake::Packets | Wake::Timeout => {}
            }
            self.receive_datagrams();
            self.receive_frames(&mut frame);
            let now = Clock.now();
            if self.agent.poll_timeout().is_some_and(|due| due <= now) {
                self.agent.handle_timeout(now);
            }
            self.carry_out();
            if picture_due.is_some_and(|due| due <= now) {
                self.publish();
                picture_due = None;
            } else {
                picture_due.get_or_insert(now + PICTURE_INTERVAL);
            }
        }
        self.agent.close("dns-signal is stopping", Clock.now());
        self.carry_out();
        Ok(())
    }

    async fn wait(
        &mut self,
        stop: std::pin::Pin<&mut impl Future<Output = ()>>,
        timeout: Option<Instant>,
    ) -> Wake {
        let Self {
            sockets,
            device,
            events,
            wanted,
            failed,
            questions,
            ..
        } = self;
        let packets = poll_fn(|context| {
            let datagrams = sockets.poll_ready(context).is_ready();
            let frames = device.poll_readable(context).is_ready();
            if datagrams || frames {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let timeout = async {
            match timeout {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop => Wake::Stop,
            event = events.recv() => Wake::Event(event),
            Some(wanted) = wanted.recv() => Wake::Wanted(wanted),
            Some(failed) = failed.recv() => Wake::PostFailed(failed),
            Some(question) = questions.recv() => Wake::Question(question),
            () = packets => Wake::Packets,
            () = timeout => Wake::Timeout,
        }
    }

    fn on_event(&mut self, event: Event) {
        let now = Clock.now();
        match event {
            Event::ViewChanged(view) => {
                (self.on_view)(&view);
                let known = view
                    .registrations
                    .values()
                    .map(|known| (known.node.clone(), known.registration.clone()));
                self.agent.handle_peers(Peers::new(known), now);
            }
            Event::Message { from, document, .. } => {
                if let Some(body) = document.body {
                    self.agent.handle_document(&from, body, now);
                }
            }
            Event::Rejected { from, reason } => {
                tracing::warn!(%from, %reason, "a document was not believed");
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

    fn receive_datagrams(&mut self) {
        let now = Clock.now();
        let Self { sockets, agent, .. } = self;
        sockets.receive(|payload, meta| {
            agent.handle_datagram(meta.local, meta.source, BytesMut::from(&*payload), now);
        });
    }

    fn receive_frames(&mut self, buffer: &mut [u8]) {
        for _ in 0..TUN_BATCH {
            let length = match self.device.try_recv(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(%error, "reading from the TUN device failed");
                    return;
                }
            };
            self.on_frame(&buffer[..length]);
        }
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
                None => self.agent.count_drop(FrameDrop::UnknownDestination),
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                AgentOutput::Transmit(transmit) => {
                    for payload in transmit.datagrams() {
                        if !self.sockets.push(transmit.local, transmit.remote, payload) {
                            self.stats.datagrams_refused += 1;
                        }
                    }
                }
                AgentOutput::ToTun(frame) => {
                    if self.device.try_send(&frame).is_err() {
                        self.stats.tun_refused += 1;
                    }
                }
                AgentOutput::Document { to, link, body } => self.signaling.post(&to, link, body),
                AgentOutput::Notice(notice) => log(&notice),
            }
        }
        self.stats.datagrams_refused += self.sockets.flush().refused as u64;
    }

    fn status(&self) -> Status {
        Status {
            node: self.directory.identity().node_id().to_string(),
            discovery_connected: self.directory.view().connected,
            links: self.agent.status().iter().map(status::link).collect(),
        }
    }

    fn publish(&self) {
        let links = self.agent.status();
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
        } => {
            tracing::info!(link, %peer, reason, "link closed");
        }
        LinkNotice::Closed {
            link,
            peer,
            opened: false,
            reason,
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
