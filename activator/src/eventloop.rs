//! The one loop of the activator: sockets, device, directory and timers meet the gateway, the allocations and the
//! links here.
//!
//! Priorities of a turn: 1. stop; 2. what the directory and the background tasks say, and questions; 3. datagrams of
//! relays and host sockets, then frames from the device, a bounded batch of each, so that none starves the others;
//! 4. timers; 5. what the gateway wants done and what allocations and links have to say, until nothing is left;
//! 6. sending.

mod drive;
mod offers;
mod events;
mod picture;

pub(crate) use drive::random;

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use activator_proto::{Gateway, Input, forward::FromTun, stats::DropReason};
use bytes::BytesMut;
use discovery_client::{Directory, Event};
use link::{DtlsCertificate, LinkConfig};
use net::{Clock, HostSockets};
use service_kit::{
    Task,
    status::{Question, Questions},
};
use tokio::sync::mpsc;
use tun::Device;
use wire::frame::MAX_FRAME_LEN;

use crate::{
    access::{AccessFetcher, AccessResult},
    allocations::Allocations,
    links::ActiveLinks,
    metrics::{Board, ShellStats},
    registration::Publisher,
    signaling::Signaling,
    status::Status,
};

/// Frames read from the device in one turn.
const TUN_BATCH: usize = 64;

/// The numbers for `/metrics` are renewed this often at most.
const PICTURE_INTERVAL: Duration = Duration::from_millis(250);

/// How long the end may take: deleting allocations and withdrawing. Whoever told us to stop waits 2 s.
const CLOSING_DEADLINE: Duration = Duration::from_millis(400);

/// Everything the loop holds.
#[derive(Debug)]
pub(crate) struct EventLoop {
    pub(crate) gateway: Gateway,
    pub(crate) allocations: Allocations,
    pub(crate) links: ActiveLinks,
    pub(crate) sockets: HostSockets,
    pub(crate) hosts: Vec<SocketAddr>,
    pub(crate) device: Device,
    pub(crate) directory: Directory,
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) fetcher: AccessFetcher,
    pub(crate) access: mpsc::Receiver<AccessResult>,
    pub(crate) signaling: Signaling,
    pub(crate) publisher: Publisher,
    pub(crate) questions: Questions<Status>,
    pub(crate) certificate: Arc<DtlsCertificate>,
    pub(crate) link_config: LinkConfig,
    pub(crate) board: Board,
    pub(crate) stats: ShellStats,
    /// Done once discovery was reached.
    pub(crate) discovered: Option<Task>,
    /// Done once the first allocation is up.
    pub(crate) allocated: Option<Task>,
    /// Datagrams are copied out of the receive batch into pieces of this.
    pub(crate) memory: BytesMut,
}

/// What ended a wait.
enum Wake {
    Stop,
    Event(Option<Event>),
    Access(AccessResult),
    Question(Question<Status>),
    Packets,
    Timeout,
}

impl EventLoop {
    /// Runs until `stop`, then withdraws, closes and releases everything.
    ///
    /// # Errors
    /// When something ended that should not.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut stop = pin!(stop);
        let mut frame = vec![0; MAX_FRAME_LEN];
        let mut picture_due = Some(Clock.now());
        self.carry_out(Clock.now());
        loop {
            let timeout = [self.poll_timeout(), picture_due]
                .into_iter()
                .flatten()
                .min();
            match self.wait(stop.as_mut(), timeout).await {
                Wake::Stop => break,
                Wake::Event(Some(event)) => self.on_event(event),
                Wake::Event(None) => anyhow::bail!("the directory task ended unexpectedly"),
                Wake::Access(AccessResult { relay, access }) => {
                    self.gateway
                        .handle_input(Input::Access { relay, access }, Clock.now());
                }
                Wake::Question(question) => drop(question.send(self.status())),
                Wake::Packets | Wake::Timeout => {}
            }
            let now = Clock.now();
            self.receive_datagrams(now);
            self.receive_frames(&mut frame, now)?;
            self.handle_timeouts(now);
            self.carry_out(now);
            if picture_due.is_some_and(|due| due <= now) {
                self.publish_picture();
                picture_due = None;
            } else {
                picture_due.get_or_insert(now + PICTURE_INTERVAL);
            }
        }
        self.close().await;
        Ok(())
    }

    async fn wait(
        &mut self,
        stop: Pin<&mut impl Future<Output = ()>>,
        timeout: Option<Instant>,
    ) -> Wake {
        let Self {
            allocations,
            sockets,
            device,
            events,
            access,
            questions,
            ..
        } = self;
        let packets = poll_fn(|context| {
            // All three, each time: whichever is ready later has to wake us too.
            let relayed = allocations.poll_ready(context).is_ready();
            let direct = sockets.poll_ready(context).is_ready();
            let frames = device.poll_readable(context).is_ready();
            if relayed || direct || frames {
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
            Some(result) = access.recv() => Wake::Access(result),
            Some(question) = questions.recv() => Wake::Question(question),
            () = packets => Wake::Packets,
            () = timeout => Wake::Timeout,
        }
    }

    fn receive_datagrams(&mut self, now: Instant) {
        let Self {
            allocations,
            sockets,
            links,
            memory,
            stats,
            ..
        } = self;
        let mut deliver = |local: SocketAddr, remote: SocketAddr, payload: &[u8]| {
            let Some(active) = links.route(local, remote, payload) else {
                stats.stray_datagrams += 1;
                return 0;
            };
            // One allocation for many datagrams; each piece frees it when the last one is gone.
            memory.extend_from_slice(payload);
            active
                .link
                .handle_datagram(local, remote, memory.split(), now);
            payload.len()
        };
        let mut relayed_bytes = 0;
        allocations.receive(now, |local, remote, payload| {
            relayed_bytes += deliver(local, remote, payload);
        });
        sockets.receive(|payload, meta| {
            deliver(meta.local, meta.source, payload);
        });
        stats.relayed_bytes_received += relayed_bytes as u64;
    }

    /// # Errors
    /// When the device is gone.
    fn receive_frames(&mut self, buffer: &mut [u8], now: Instant) -> anyhow::Result<()> {
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
            let Some(frame) = buffer.get_mut(..length) else {
                continue;
            };
            if let FromTun::ToLink(key) = self.gateway.forwarder.to_link(frame) {
                let sent = self
                    .links
                    .touch(key)
                    .is_some_and(|active| active.link.send_frame(frame, now).is_ok());
                if !sent {
                    self.gateway.forwarder.count_drop(DropReason::LinkCongested);
                }
            }
        }
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        [
            self.gateway.poll_timeout(),
            self.allocations.poll_timeout(),
            self.links.poll_timeout(),
            self.publisher.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn handle_timeouts(&mut self, now: Instant) {
        self.allocations.handle_timeout(now);
        self.allocations.renew_ports(random, now);
        self.links.handle_timeout(now);
        if self.gateway.poll_timeout().is_some_and(|due| due <= now) {
            self.gateway.handle_timeout(now);
        }
        self.publisher.handle_timeout(now);
    }

    /// Withdraws, says good-bye on links, deletes allocations.
    async fn close(&mut self) {
        self.gateway.handle_input(Input::Shutdown, Clock.now());
        self.carry_out(Clock.now());
        let directory = self.directory.clone();
        let relays = async {
            // Mostly sent already; a full socket takes the last words a moment later.
            let deadline = Clock.now() + CLOSING_DEADLINE;
            while !self.allocations.is_empty() && Clock.now() < deadline {
                let Self { allocations, .. } = self;
                let ready = poll_fn(|context| allocations.poll_ready(context));
                let _ = tokio::time::timeout_at(deadline.into(), ready).await;
                self.carry_out(Clock.now());
            }
        };
        tokio::join!(relays, directory.shutdown());
    }
}
