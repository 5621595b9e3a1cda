//! One event loop: sockets and clock on one side, the mind on the other, and batches between them.
//!
//! Priorities of a turn, in this order:
//! 0. what it is told: new settings, what the site says about a user, a drain, a successor;
//! 1. what has expired, so that no packet meets a dead allocation; and ICMP errors, where there are some;
//! 2. what clients sent: one batch per listener, then the answers;
//! 3. what clients of TCP and TLS sent: one read per connection;
//! 4. TCP with peers: who connects, who is connected to, and what joined connections bring;
//! 5. what peers sent: one batch per relayed address that has something;
//! 6. connections that are over;
//! 7. the numbers for the metrics, at most every 20 ms;
//! 8. a rest, when packets come one at a time and fast ([`Moderation`]).
//!
//! Sockets are watched for edges: one that was not emptied is looked at in the next turn without being reported again.

mod control;
mod dtls;
mod handover;
mod icmp;
mod shards;
mod streams;
mod tcp;

use crate::carrying::Carrying;
use crate::control::{ControlReceiver, ControlSender};
use crate::handover::Then;
use crate::hook::Asks;
use crate::listener::Listener;
use crate::metrics::{Published, ShellStats};
use crate::moderation::Moderation;
use crate::relay_sockets::RelaySockets;
use crate::stream::{StreamSetup, Streams};
use crate::tcp_relay::{self, TcpRelays};
use crate::udp::{Io, RecvBatch, SendPlan, Unsent};
use crate::usage::UsageSender;
pub(crate) use handover::Adoption;
use net::Clock;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use streams::StreamTurn;
use turn_relay_proto::{
    Direction, FiveTuple, Now, OpenError, Output, Payloads, RelayId, Server, Traffic,
};

const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);
/// Sockets that one turn looks at.
const EVENTS: usize = 256;
/// Batches that are received before what they lead to is sent: several sockets of a turn share system calls.
const BATCHES: usize = 4;
/// Received bytes after which it is sent at once, while they are in the cache.
const ENOUGH: usize = 256 * 1024;
const WATCHED: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);
/// Tokens below are listeners, from here on the sockets that relayed addresses share, then relayed addresses by slot, and
/// then what is of [`Streams`].
const SHARED: u64 = 1 << 31;
const RELAYS: u64 = 1 << 32;
const STOP: u64 = u64::MAX;
const CONTROL: u64 = u64::MAX - 1;

/// One thread's share of the service.
pub(crate) struct EventLoop {
    clock: Clock,
    epoll: Epoll,
    control: ControlReceiver,
    /// All event loops by number, for what they say to each other.
    shards: Vec<ControlSender>,
    asks: Asks,
    listeners: Vec<Listener>,
    relays: RelaySockets,
    streams: Streams,
    tcp: TcpRelays,
    server: Server,
    shell: ShellStats,
    published: Arc<Published>,
    publish_at: Option<Instant>,
    /// Room for answers that are sent together.
    answers: Vec<(FiveTuple, Vec<u8>)>,
    io: Io,
    moderation: Moderation,
    /// Where records of usage go, if they are wanted.
    usage: Option<UsageSender>,
}

/// Sockets to look at.
#[derive(Debug, Default)]
struct Tokens {
    now: Vec<u64>,
    /// Those that were not emptied, until then.
    next_turn: Vec<u64>,
}

impl EventLoop {
    /// Watches the listeners, and what the loop is told.
    ///
    /// # Errors
    /// When the kernel has no room for it.
    pub(crate) fn new(
        server: Server,
        listeners: Vec<Listener>,
        streams: StreamSetup,
        (control, asks): (ControlReceiver, Asks),
        published: Arc<Published>,
        shared: Vec<UdpSocket>,
        io: Io,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        for (index, listener) in listeners.iter().enumerate() {
            epoll.add(&listener.socket, EpollEvent::new(WATCHED, index as u64))?;
        }
        for (index, socket) in shared.iter().enumerate() {
            epoll.add(socket, EpollEvent::new(WATCHED, SHARED + index as u64))?;
        }
        let readable = EpollFlags::EPOLLIN;
        epoll.add(control.wake(), EpollEvent::new(readable, CONTROL))?;
        epoll.add(control.stop(), EpollEvent::new(readable, STOP))?;
        let tcp = TcpRelays::new(streams.peers.clone());
        let streams = Streams::new(streams, &epoll, Clock.now())?;
        Ok(Self {
            clock: Clock,
            epoll,
            control,
            shards: Vec::new(),
            asks,
            listeners,
            relays: RelaySockets::new(io, shared),
            streams,
            tcp,
            server,
            shell: ShellStats::default(),
            published,
            publish_at: None,
            answers: Vec::new(),
            io,
            moderation: Moderation::default(),
            usage: None,
        })
    }

    /// From now on, where records of usage go.
    pub(crate) fn record_usage(&mut self, to: UsageSender) {
        self.usage = Some(to);
    }

    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub(crate) fn run(mut self) -> io::Result<()> {
        // The kernel rounds a rest up by this; its own choice is 50 us.
        let _ = nix::sys::prctl::set_timerslack(1_000);
        let mut recv: Vec<_> = (0..BATCHES).map(|_| RecvBatch::new(self.io)).collect();
        let mut plan = SendPlan::new(self.io);
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let (mut clients, mut peers) = (Tokens::default(), Tokens::default());
        let mut errors = Tokens::default();
        let mut streams = StreamTurn::new();
        loop {
            let is_idle = [&clients, &peers, &errors]
                .iter()
                .all(|t| t.next_turn.is_empty())
                && !self.streams.has_more_to_carry();
            let timeout = if is_idle {
                self.timeout()
            } else {
                EpollTimeout::ZERO
            };
            let ready = match self.wait(&mut events, timeout) {
                Ok(ready) => &events[..ready],
                Err(nix::Error::EINTR) => &[],
                Err(error) => return Err(error.into()),
            };
            let now = Now {
                instant: self.clock.now(),
                unix: self.clock.unix_time(),
            };
            clients.begin_turn();
            peers.begin_turn();
            let mut told = false;
            errors.begin_turn();
            for event in ready {
                match event.data() {
                    STOP => {
                        // It is left as it is, for the other loops to see.
                        self.store();
                        self.server.tell_stopped(now.instant);
                        self.drain_outputs(now, &mut plan);
                        self.end_dtls(&mut plan);
                        return Ok(());
                    }
                    CONTROL => told = true,
                    token if Streams::event(token).is_some() => streams.ready.push(*event),
                    token if tcp_relay::event(token).is_some() => streams.tcp_ready.push(*event),
                    token if token < SHARED => clients.now.push(token),
                    token => {
                        if event.events().contains(EpollFlags::EPOLLERR) {
                            errors.now.push(token);
                        }
                        peers.now.push(token);
                    }
                }
            }
            let worked = told
                || !clients.now.is_empty()
                || !peers.now.is_empty()
                || !streams.ready.is_empty()
                || !streams.tcp_ready.is_empty()
                || self.streams.has_more_to_carry();
            if told && self.handle_control(now) == Then::End {
                self.end_dtls(&mut plan);
                return Ok(());
            }
            self.server.handle_timeout(now.instant);
            self.handle_icmp_errors(now, &mut errors);
            self.drain_outputs(now, &mut plan);
            self.receive(now, &mut clients, &mut recv, &mut plan);
            self.drain_outputs(now, &mut plan);
            self.handle_stream_events(now, &mut streams, &mut plan);
            self.handle_tcp_events(now, &mut streams, &mut plan);
            self.receive(now, &mut peers, &mut recv, &mut plan);
            self.end_stream_turn(now, &mut streams, &mut plan);
            self.publish(now.instant, worked);
            if let Some(rest) = self.moderation.after_turn(now.instant) {
                std::thread::sleep(rest);
            }
        }
    }

    /// How many events there are. Asks again for a moment, before it sleeps, if the next packet must be near.
    fn wait(&self, events: &mut [EpollEvent], timeout: EpollTimeout) -> nix::Result<usize> {
        let awake = self.moderation.awake_until();
        let awake = awake.filter(|_| timeout != EpollTimeout::ZERO);
        while awake.is_some_and(|until| self.clock.now() < until) {
            let ready = self.epoll.wait(events, EpollTimeout::ZERO);
            if ready != Ok(0) {
                return ready;
            }
            std::thread::yield_now();
        }
        self.epoll.wait(events, timeout)
    }

    fn timeout(&self) -> EpollTimeout {
        let next = [
            self.server.poll_timeout(),
            self.publish_at,
            self.streams.poll_timeout(),
            self.tcp.poll_timeout(),
        ];
        let Some(next) = next.into_iter().flatten().min() else {
            return EpollTimeout::NONE;
        };
        let wait = next.saturating_duration_since(self.clock.now());
        // Rounded up, not to wake a moment too early again and again.
        let millis = wait.as_micros().div_ceil(1_000);
        let millis = u16::try_from(millis).unwrap_or(u16::MAX);
        EpollTimeout::from(millis)
    }

    /// One batch from each socket, and what it leads to out again.
    fn receive(
        &mut self,
        now: Now,
        tokens: &mut Tokens,
        recv: &mut [RecvBatch],
        plan: &mut SendPlan,
    ) {
        let mut todo = tokens.now.iter().copied().peekable();
        while todo.peek().is_some() {
            let mut carrying = Carrying {
                now,
                server: &mut self.server,
                listeners: &self.listeners,
                relays: &self.relays,
                out: plan.start(),
                streams: self.streams.start_plan(),
            };
            let mut bytes = 0;
            for (batch, token) in recv.iter_mut().zip(&mut todo) {
                let taken = if token < SHARED {
                    carrying.carry_clients(token as usize, batch)
                } else if token < RELAYS {
                    carrying.carry_shared((token - SHARED) as usize, batch)
                } else {
                    carrying.carry_peers((token - RELAYS) as usize, batch)
                };
                if taken.more {
                    tokens.next_turn.push(token);
                }
                bytes += taken.bytes;
                self.moderation.taken(&taken, now.instant);
                if bytes > ENOUGH {
                    break;
                }
            }
            let Carrying { out, streams, .. } = carrying;
            let unsent = out.flush();
            self.account(&unsent);
            self.send_streams(streams);
        }
    }

    fn drain_outputs(&mut self, now: Now, plan: &mut SendPlan) {
        let mut answers = std::mem::take(&mut self.answers);
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::Answer { path, bytes } => match path.transport.connection() {
                    None => answers.push((path, bytes)),
                    Some(connection) => {
                        let room = self.streams.answer(connection, &bytes);
                        self.shell.answers_unsent += u64::from(!room);
                    }
                },
                Output::OpenRelay { relay, address } => {
                    let opened = self.relays.open(relay, address).and_then(|socket| {
                        let watched = socket.map(|s| watch_relay(&self.epoll, relay, s));
                        watched.unwrap_or(Ok(())).map_err(|_| OpenError::Other)
                    });
                    if opened.is_err() {
                        self.relays.close(relay);
                    }
                    self.server.handle_relay_opened(now, relay, opened);
                }
                Output::LookUp { user } => self.asks.ask(user),
                Output::OpenTcpRelay { relay, address } => {
                    let opened = self.tcp.open(relay, address, &self.epoll);
                    self.server.handle_relay_opened(now, relay, opened);
                }
                Output::Connect {
                    connection,
                    relay,
                    from,
                    peer,
                } => {
                    let begun = self.tcp.connect(relay, connection, from, peer, &self.epoll);
                    if !begun {
                        self.server
                            .handle_peer_connected(now, relay, connection, false);
                    }
                }
                Output::ClosePeer { connection } => self.tcp.close_peer(connection),
                Output::Join {
                    path,
                    connection,
                    meter,
                } => {
                    if let Some(client) = path.transport.connection() {
                        let peer = self.tcp.sockets().get(connection);
                        self.streams
                            .join(client, peer, (connection, meter), &self.epoll);
                    }
                }
                Output::CloseRelay { relay } => {
                    self.relays.close(relay);
                    self.tcp.close(relay);
                }
                Output::ToShard {
                    shard,
                    message,
                    relays,
                } => self.tell_shard(shard, message, &relays),
                Output::Ended(ended) => {
                    if let Some(usage) = &self.usage {
                        usage.ended(ended);
                    }
                }
            }
        }
        if !answers.is_empty() {
            self.send_answers(&answers, plan);
            answers.clear();
        }
        self.answers = answers;
    }

    /// Answers over UDP, as many as there are with one system call. Others go to their connections at once.
    fn send_answers(&mut self, answers: &[(FiveTuple, Vec<u8>)], plan: &mut SendPlan) {
        let unsent = send_apart(&self.listeners, answers, plan);
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

    fn store(&mut self) {
        self.shell.streams.clone_from(self.streams.stats());
        self.published.store(self.server.stats(), &self.shell);
    }

    fn publish(&mut self, now: Instant, worked: bool) {
        match self.publish_at {
            Some(at) if at <= now => {
                self.store();
                self.publish_at = None;
            }
            None if worked => self.publish_at = Some(now + PUBLISH_INTERVAL),
            _ => {}
        }
    }
}

impl Tokens {
    fn begin_turn(&mut self) {
        self.now.clear();
        self.now.append(&mut self.next_turn);
    }
}

/// Has the kernel tell once each time that something arrives at a relayed address with a socket of its own.
fn watch_relay(epoll: &Epoll, relay: RelayId, socket: impl AsFd) -> nix::Result<()> {
    let event = EpollEvent::new(WATCHED, RELAYS + relay.slot() as u64);
    epoll.add(socket, event).inspect_err(|error| {
        tracing::warn!(%error, "cannot watch the socket of a relayed address");
    })
}

/// Sends datagrams that are the relay's own, as many as there are with one system call.
fn send_apart(
    listeners: &[Listener],
    datagrams: &[(FiveTuple, Vec<u8>)],
    plan: &mut SendPlan,
) -> Unsent {
    // The kernel would hand joined answers to a client with GRO in one piece, whether it expects that or not.
    let mut out = plan.start_apart();
    for (path, bytes) in datagrams {
        let Some(listener) = listeners.iter().find(|l| l.serves(path.server)) else {
            continue;
        };
        let parts = (&[][..], Payloads::one(bytes), 0);
        let from = listener.source(path.server);
        let socket = listener.socket.as_fd();
        out.push(socket, path.client.0, from, Direction::ToClient, parts);
    }
    out.flush()
}
