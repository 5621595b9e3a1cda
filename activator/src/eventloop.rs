//! The one loop of the activator: sockets, device, directory and timers meet the gateway, the allocations and the
//! links here.
//!
//! Priorities of a turn: 1. stop; 2. what the directory and the background tasks say, and questions; 3. datagrams of
//! relays and host sockets, then frames from the device, a bounded batch of each, so that none starves the others,
//! and what each leads to goes out before the next is looked at; 4. timers; 5. what the gateway wants done and what
//! allocations and links have to say, until nothing is left; 6. sending.
//!
//! The loop runs on a thread of its own and asks a [`Poller`] what is ready: while there is work it never waits, and
//! nothing of a runtime is in a packet's way.

mod packets;
mod drive;
mod candidates;
mod offers;
mod openings;
mod events;
mod picture;

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use activator_proto::{Gateway, Input};
use allocations::{AccessFetcher, AccessResult, Allocations};
use bytes::BytesMut;
use discovery_client::{Directory, Event, StunServers};
use link::{DtlsCertificate, LinkConfig, PathChoice, Reflexive};
use model::NetworkName;
use net::{Clock, HostSockets, Poller};
use service_kit::{
    Task,
    status::{Question, Questions},
};
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use traces::Traces;
use tun::Device;

use crate::{
    flow_log::FlowLog,
    links::ActiveLinks,
    metrics::{Board, ShellStats},
    names::{Answered, NameServers},
    registration::Publisher,
    signaling::Signaling,
    status::Status,
};

/// The numbers for `/metrics` are renewed this often at most.
const PICTURE_INTERVAL: Duration = Duration::from_millis(250);

/// How long the end may take: deleting allocations and withdrawing. Whoever told us to stop waits 2 s.
const CLOSING_DEADLINE: Duration = Duration::from_millis(400);

/// Everything the loop holds.
#[derive(Debug)]
pub(crate) struct EventLoop {
    pub(crate) poller: Poller,
    pub(crate) gateway: Gateway,
    pub(crate) allocations: Allocations,
    pub(crate) links: ActiveLinks,
    pub(crate) sockets: HostSockets,
    pub(crate) hosts: Vec<SocketAddr>,
    /// What NATs make of `hosts`.
    pub(crate) reflexive: Reflexive,
    pub(crate) stun_servers: StunServers,
    pub(crate) servers: mpsc::Receiver<Vec<SocketAddr>>,
    pub(crate) device: Device,
    pub(crate) directory: Directory,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) fetcher: AccessFetcher,
    /// This network's own DNS, and what it answered.
    pub(crate) name_servers: NameServers,
    pub(crate) answered: mpsc::Receiver<Answered>,
    /// Of the rest of the service.
    pub(crate) runtime: Handle,
    pub(crate) access: mpsc::Receiver<AccessResult>,
    pub(crate) signaling: Signaling,
    pub(crate) publisher: Publisher,
    pub(crate) questions: Questions<Status>,
    pub(crate) certificate: Arc<DtlsCertificate>,
    pub(crate) link_config: LinkConfig,
    /// Networks to whose links other ways are open than `link_config` says.
    pub(crate) paths: BTreeMap<NetworkName, PathChoice>,
    pub(crate) board: Board,
    pub(crate) stats: ShellStats,
    pub(crate) flow_log: Option<FlowLog>,
    pub(crate) traces: Traces,
    /// Done once discovery was reached.
    pub(crate) discovered: Option<Task>,
    /// Done once the first allocation is up.
    pub(crate) allocated: Option<Task>,
    /// What was received and is not yet looked at; empty between turns.
    pub(crate) bursts: Vec<Received>,
    /// Where frames of the device are read into.
    pub(crate) frame: Vec<u8>,
}

/// A burst, with the local address it belongs to: a host socket's or a relayed one.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) payload: BytesMut,
    pub(crate) segment: usize,
}

/// What others said.
enum Heard {
    Stop,
    Event(Option<Event>),
    Access(AccessResult),
    Answered(Answered),
    StunServers(Vec<SocketAddr>),
    Question(Question<Status>),
}

impl EventLoop {
    /// Runs until `stop`, then withdraws, closes and releases everything; the task returned does the last of it.
    ///
    /// # Errors
    /// When something ended that should not.
    pub(crate) fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<JoinHandle<()>> {
        net::ask_for_short_slices();
        let mut stop = pin!(stop);
        let mut picture_due = Some(Clock.now());
        self.carry_out(Clock.now());
        loop {
            if !self.poller.poll()? {
                let timeout = self.poll_timeout().into_iter().chain(picture_due).min();
                self.poller.wait(timeout)?;
            }
            match self.hear(stop.as_mut()) {
                Some(Heard::Stop) => break,
                Some(Heard::Event(Some(event))) => self.on_event(event),
                Some(Heard::Event(None)) => {
                    anyhow::bail!("the directory task ended unexpectedly")
                }
                Some(Heard::Access(AccessResult { relay, access })) => {
                    self.gateway
                        .handle_input(Input::Access { relay, access }, Clock.now());
                }
                Some(Heard::Answered(answered)) => self.on_answered(answered, Clock.now()),
                Some(Heard::StunServers(servers)) => self.on_stun_servers(&servers, Clock.now()),
                Some(Heard::Question(question)) => drop(question.send(self.status())),
                None => {}
            }
            let now = Clock.now();
            self.receive_datagrams(now);
            self.receive_frames(now)?;
            self.handle_timeouts(now);
            self.carry_out(now);
            if picture_due.is_some_and(|due| due <= now) {
                self.publish_picture();
                picture_due = None;
            } else {
                picture_due.get_or_insert(now + PICTURE_INTERVAL);
            }
        }
        self.close()
    }

    fn hear(&mut self, stop: Pin<&mut impl Future<Output = ()>>) -> Option<Heard> {
        let Self {
            poller,
            events,
            access,
            answered,
            servers,
            questions,
            ..
        } = self;
        poller.hear(|| async {
            tokio::select! {
                biased;
                () = stop => Heard::Stop,
                event = events.recv() => Heard::Event(event),
                Some(result) = access.recv() => Heard::Access(result),
                Some(answered) = answered.recv() => Heard::Answered(answered),
                Some(servers) = servers.recv() => Heard::StunServers(servers),
                Some(question) = questions.recv() => Heard::Question(question),
            }
        })
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        [
            self.gateway.poll_timeout(),
            self.gateway.forwarder.poll_timeout(),
            self.allocations.poll_timeout(),
            self.links.poll_timeout(),
            self.publisher.poll_timeout(),
            self.reflexive.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_timeouts(&mut self, now: Instant) {
        self.allocations.handle_timeout(&self.poller, now);
        self.links.handle_timeout(now);
        if self.gateway.poll_timeout().is_some_and(|due| due <= now) {
            self.gateway.handle_timeout(now);
        }
        self.gateway.forwarder.handle_timeout(now);
        self.publisher.handle_timeout(now);
        self.ask_stun_servers(now);
    }

    /// Withdraws, says good-bye on links, deletes allocations. The task returned withdraws at discovery.
    fn close(&mut self) -> anyhow::Result<JoinHandle<()>> {
        self.gateway.handle_input(Input::Shutdown, Clock.now());
        self.carry_out(Clock.now());
        let directory = self.directory.clone();
        let shutdown = self
            .runtime
            .spawn(async move { directory.shutdown().await });
        // Mostly sent already; a full socket takes the last words a moment later.
        let deadline = Clock.now() + CLOSING_DEADLINE;
        while !self.allocations.is_empty() && Clock.now() < deadline {
            self.poller.wait(Some(deadline))?;
            self.receive_datagrams(Clock.now());
            self.carry_out(Clock.now());
        }
        self.gateway.forwarder.end_flows();
        self.tell_flows(None);
        Ok(shutdown)
    }
}
