//! One event loop: sockets and clock on one side, the mind on the other, and batches between them.
//!
//! Priorities of a turn, in this order:
//! 1. what has expired, so that no packet meets a dead allocation;
//! 2. what clients sent: one batch per listener, then the answers;
//! 3. what peers sent: one batch per relayed address that has something;
//! 4. the numbers for the metrics, at most every 20 ms.

use crate::listener::Listener;
use crate::metrics::{Published, ShellStats};
use crate::relay_sockets::RelaySockets;
use crate::udp::{Outgoing, Received, RecvBatch, SendPlan, Unsent};
use model::{ClientAddr, PeerAddr, ServerAddr};
use net::Clock;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use turn_relay_proto::{Direction, FiveTuple, Now, Output, Server, Traffic, Verdict};

const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);
/// Sockets that one turn looks at.
const EVENTS: usize = 256;
/// Tokens below are listeners, from here on relayed addresses by slot.
const RELAYS: u64 = 1 << 32;
const STOP: u64 = u64::MAX;

/// One thread's share of the service.
pub(crate) struct EventLoop {
    clock: Clock,
    epoll: Epoll,
    /// Kept open for epoll.
    _stop: Arc<EventFd>,
    listeners: Vec<Listener>,
    relays: RelaySockets,
    server: Server,
    shell: ShellStats,
    published: Arc<Published>,
    publish_at: Option<Instant>,
}

impl EventLoop {
    /// Watches the listeners. `stop` ends the loop when it is written to.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub(crate) fn new(
        server: Server,
        listeners: Vec<Listener>,
        stop: Arc<EventFd>,
        published: Arc<Published>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, listener) in listeners.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, index as u64);
            epoll.add(&listener.socket, event)?;
        }
        epoll.add(&*stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP))?;
        Ok(Self {
            clock: Clock,
            epoll,
            _stop: stop,
            listeners,
            relays: RelaySockets::default(),
            server,
            shell: ShellStats::default(),
            published,
            publish_at: None,
        })
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut recv = RecvBatch::new();
        let mut plan = SendPlan::default();
        let mut events = vec![EpollEvent::empty(); EVENTS];
        loop {
            let ready = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(ready) => &events[..ready],
                Err(nix::Error::EINTR) => &[],
                Err(error) => return Err(error.into()),
            };
            let now = Now {
                instant: self.clock.now(),
                unix: self.clock.unix_time(),
            };
            if ready.iter().any(|event| event.data() == STOP) {
                // It is left as it is, for the other loops to see.
                self.published.store(self.server.stats(), &self.shell);
                return Ok(());
            }
            self.server.handle_timeout(now.instant);
            self.drain_outputs(now, &mut plan);
            for event in ready.iter().filter(|event| event.data() < RELAYS) {
                self.receive_from_clients(now, event.data() as usize, &mut recv, &mut plan);
                self.drain_outputs(now, &mut plan);
            }
            for event in ready.iter().filter(|event| event.data() >= RELAYS) {
                self.receive_from_peers(
                    now,
                    (event.data() - RELAYS) as usize,
                    &mut recv,
                    &mut plan,
                );
            }
            self.publish(now.instant, !ready.is_empty());
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let next = [self.server.poll_timeout(), self.publish_at];
        let Some(next) = next.into_iter().flatten().min() else {
            return EpollTimeout::NONE;
        };
        let wait = next.saturating_duration_since(self.clock.now());
        // Rounded up, not to wake a moment too early again and again.
        let millis = wait.as_micros().div_ceil(1_000);
        let millis = u16::try_from(millis).unwrap_or(u16::MAX);
        EpollTimeout::from(millis)
    }

    fn receive_from_clients(
        &mut self,
        now: Now,
        index: usize,
        recv: &mut RecvBatch,
        plan: &mut SendPlan,
    ) {
        let Some(listener) = self.listeners.get(index) else {
            return;
        };
        let filled = fill(recv, listener.socket.as_fd());
        let mut out = plan.start();
        for received in (0..filled).filter_map(|at| recv.get(at)) {
            let path = FiveTuple {
                client: ClientAddr(received.source),
                server: server_address(listener, &received),
            };
            for datagram in received.datagrams() {
                let verdict = self.server.handle_client_datagram(now, path, datagram);
                carry_out(&mut out, &self.relays, &self.listeners, verdict);
            }
        }
        let unsent = out.flush();
        self.account(&unsent);
    }

    fn receive_from_peers(
        &mut self,
        now: Now,
        slot: usize,
        recv: &mut RecvBatch,
        plan: &mut SendPlan,
    ) {
        // It may have been closed since it was found ready.
        let Some(relay) = self.relays.at(slot) else {
            return;
        };
        let filled = fill(recv, relay.socket.as_fd());
        let mut out = plan.start();
        for received in (0..filled).filter_map(|at| recv.get(at)) {
            let peer = PeerAddr(received.source);
            for datagram in received.datagrams() {
                let verdict = self
                    .server
                    .handle_peer_datagram(now, relay.id, peer, datagram);
                carry_out(&mut out, &self.relays, &self.listeners, verdict);
            }
        }
        let unsent = out.flush();
        self.account(&unsent);
    }

    fn drain_outputs(&mut self, now: Now, plan: &mut SendPlan) {
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Answer { path, bytes } => self.answer(path, &bytes, plan),
                Output::OpenRelay { relay, address } => {
                    let opened = self.relays.open(relay, address).and_then(|open| {
                        let token = RELAYS + relay.slot() as u64;
                        let event = EpollEvent::new(EpollFlags::EPOLLIN, token);
                        self.epoll.add(&open.socket, event).map_err(|error| {
                            tracing::warn!(%error, "cannot watch the socket of a relayed address");
                            turn_relay_proto::OpenError::Other
                        })
                    });
                    if opened.is_err() {
                        self.relays.close(relay);
                    }
                    self.server.handle_relay_opened(now, relay, opened);
                }
                Output::CloseRelay { relay } => self.relays.close(relay),
            }
        }
    }

    fn answer(&mut self, path: FiveTuple, bytes: &[u8], plan: &mut SendPlan) {
        let Some(listener) = listener_of(&self.listeners, path.server) else {
            return;
        };
        let mut out = plan.start();
        let parts = (&[][..], bytes, 0);
        let from = listener.source(path.server);
        let socket = listener.socket.as_fd();
        out.push(socket, path.client.0, from, Direction::ToClient, parts);
        let unsent = out.flush();
        let lost = unsent.blocked.iter().chain(&unsent.refused);
        self.shell.answers_unsent += lost.map(|lost| lost.packets).sum::<u64>();
    }

    fn account(&mut self, unsent: &Unsent) {
        for direction in [Direction::ToPeer, Direction::ToClient] {
            let (blocked, refused) = (
                unsent.blocked[direction as usize],
                unsent.refused[direction as usize],
            );
            if blocked.packets + refused.packets == 0 {
                continue;
            }
            self.shell.send_buffer_full += blocked.packets;
            self.shell.send_refused += refused.packets;
            let lost = Traffic {
                packets: blocked.packets + refused.packets,
                bytes: blocked.bytes + refused.bytes,
            };
            self.server.stats_mut().unsent(direction, lost);
        }
        if let Some(code) = unsent.error {
            let error = io::Error::from_raw_os_error(code);
            tracing::trace!(%error, "the kernel refused a datagram");
        }
    }

    fn publish(&mut self, now: Instant, worked: bool) {
        match self.publish_at {
            Some(at) if at <= now => {
                self.published.store(self.server.stats(), &self.shell);
                self.publish_at = None;
            }
            None if worked => self.publish_at = Some(now + PUBLISH_INTERVAL),
            _ => {}
        }
    }
}

fn fill(recv: &mut RecvBatch, socket: std::os::fd::BorrowedFd<'_>) -> usize {
    recv.fill(socket).unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot receive");
        0
    })
}

fn server_address(listener: &Listener, received: &Received<'_>) -> ServerAddr {
    match received.local {
        Some(ip) => ServerAddr(SocketAddr::new(ip, listener.address.0.port())),
        None => listener.address,
    }
}

fn listener_of(listeners: &[Listener], server: ServerAddr) -> Option<&Listener> {
    listeners.iter().find(|listener| listener.serves(server))
}

/// Puts a verdict into the plan.
#[inline]
fn carry_out<'b>(
    out: &mut Outgoing<'_, 'b>,
    relays: &'b RelaySockets,
    listeners: &'b [Listener],
    verdict: Verdict<'b>,
) {
    match verdict {
        Verdict::ToPeer {
            relay,
            peer,
            payload,
        } => {
            if let Some(relay) = relays.get(relay) {
                let parts = (&[][..], payload, 0);
                let socket = relay.socket.as_fd();
                out.push(socket, peer.0, None, Direction::ToPeer, parts);
            }
        }
        Verdict::ToClient {
            path,
            prefix,
            payload,
            padding,
        } => {
            if let Some(listener) = listener_of(listeners, path.server) {
                let parts = (prefix.as_bytes(), payload, padding);
                let socket = listener.socket.as_fd();
                let from = listener.source(path.server);
                out.push(socket, path.client.0, from, Direction::ToClient, parts);
            }
        }
        Verdict::Handled | Verdict::Dropped(_) => {}
    }
}
