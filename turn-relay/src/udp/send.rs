//! Sending: what a batch leads to is collected, datagrams of equal size from one socket to one destination are joined
//! (GSO), and leave together, straight from where they were received: nothing is copied here.

use crate::udp::Io;
use crate::udp::sendmmsg::Scratch;
use crate::udp::socket::DontFragment;
use crate::udp::uring::{self, Uring};
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use turn_relay_proto::{Direction, Payloads, Traffic};

/// `UDP_MAX_SEGMENTS` of Linux before 6.x is 64.
const MAX_SEGMENTS: u16 = 64;
/// Below 65 535 less the headers of UDP and IPv6.
const MAX_BYTES: usize = 65_000;
/// Messages per system call.
const MESSAGES: usize = 64;
/// Groups that are remembered as open: flows that arrive interleaved are still joined.
const OPEN: usize = 64;
pub(super) const NONE: u32 = u32::MAX;

/// Datagrams that were received one after the other, each to leave as prefix, payload, padding.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) prefix: u32,
    pub(super) prefix_len: u8,
    pub(super) padding: u8,
    pub(super) count: u16,
    pub(super) len: u32,
    /// From one payload to the next.
    pub(super) stride: u32,
    /// The first payload; the others follow within the same borrowed bytes.
    pub(super) payload: *const u8,
    pub(super) next: u32,
}

/// Datagrams that can leave as one: all of `size` bytes, the last perhaps shorter.
#[derive(Debug)]
pub(super) struct Group {
    socket: RawFd,
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    direction: Direction,
    pub(super) size: usize,
    bytes: usize,
    payload_bytes: u64,
    pub(super) count: u16,
    closed: bool,
    /// A single datagram, which must not be fragmented.
    whole: bool,
    pub(super) first: u32,
    last: u32,
}

/// What the kernel did not take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unsent {
    /// Its buffer was full.
    pub(crate) blocked: [Traffic; 2],
    /// It refused: no route, too large, forbidden.
    pub(crate) refused: [Traffic; 2],
    /// The last refusal.
    pub(crate) error: Option<i32>,
}

/// The memory of a plan, used again for each.
pub(crate) struct SendPlan {
    runs: Vec<Run>,
    groups: Vec<Group>,
    prefixes: Vec<u8>,
    open: [u32; OPEN],
    order: Vec<u32>,
    scratch: Scratch,
    io: Io,
    /// Of [`Io::Uring`], while it works.
    uring: Option<Uring>,
    /// What it sends at a time.
    messages: Vec<(RawFd, *const libc::msghdr)>,
    /// The device turned out to know no GSO.
    without_gso: bool,
}

impl std::fmt::Debug for SendPlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendPlan")
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

impl SendPlan {
    pub(crate) fn new(io: Io) -> Self {
        Self {
            runs: Vec::new(),
            groups: Vec::new(),
            prefixes: Vec::new(),
            open: [NONE; OPEN],
            order: Vec::new(),
            scratch: Scratch::default(),
            io,
            messages: Vec::new(),
            uring: (io == Io::Uring).then(Uring::new).and_then(Result::ok),
            without_gso: false,
        }
    }

    /// Begins a plan whose payloads and sockets live for `'b`.
    pub(crate) fn start<'b>(&mut self) -> Outgoing<'_, 'b> {
        self.runs.clear();
        self.groups.clear();
        self.prefixes.clear();
        self.open = [NONE; OPEN];
        Outgoing {
            most: self.most_segments(),
            plan: self,
            borrows: PhantomData,
        }
    }

    /// The same, and no datagrams are joined: for what a client may want to receive one by one.
    pub(crate) fn start_apart<'b>(&mut self) -> Outgoing<'_, 'b> {
        Outgoing {
            most: 1,
            ..self.start()
        }
    }

    /// Whether joined datagrams were refused, so that none are joined any more.
    pub(crate) fn gave_up_joining(&self) -> bool {
        self.without_gso
    }

    fn most_segments(&self) -> u16 {
        if self.io.joins() && !self.without_gso {
            MAX_SEGMENTS
        } else {
            1
        }
    }
}

/// A plan under construction. Its pointers are followed only by [`Outgoing::flush`], while what they lead to is borrowed.
#[derive(Debug)]
pub(crate) struct Outgoing<'p, 'b> {
    plan: &'p mut SendPlan,
    /// Datagrams that are joined at most.
    most: u16,
    borrows: PhantomData<(&'b [u8], BorrowedFd<'b>)>,
}

impl<'b> Outgoing<'_, 'b> {
    /// Adds datagrams of `prefix`, each of `payloads`, and `padding` (0 to 3) zero bytes. `from` where the socket has no
    /// address of its own.
    #[inline]
    pub(crate) fn push(
        &mut self,
        socket: BorrowedFd<'b>,
        to: SocketAddr,
        from: Option<IpAddr>,
        direction: Direction,
        (prefix, payloads, padding): (&[u8], Payloads<'b>, u8),
    ) {
        let most = self.most;
        let plan = &mut *self.plan;
        let socket = socket.as_raw_fd();
        let len = payloads.payload_len();
        let size = prefix.len() + len + usize::from(padding);
        let prefix_at = plan.prefixes.len() as u32;
        plan.prefixes.extend_from_slice(prefix);
        let slot = (socket as usize ^ usize::from(to.port())) % OPEN;
        let mut done = 0;
        while done < payloads.count() {
            let rest = payloads.count() - done;
            let index = plan.open[slot];
            let room = plan
                .groups
                .get(index as usize)
                .filter(|group| {
                    group.socket == socket
                        && group.to == to
                        && group.from == from
                        && group.direction == direction
                })
                .map_or(0, |group| group.room(size, rest, most));
            let begins = room == 0;
            let count = if begins {
                // Empty ones add nothing to a joined message: each leaves alone.
                let by_bytes = MAX_BYTES.checked_div(size).unwrap_or(1);
                by_bytes.clamp(1, rest.min(usize::from(most)))
            } else {
                room
            };
            let run = plan.runs.len() as u32;
            plan.runs.push(Run {
                prefix: prefix_at,
                prefix_len: prefix.len() as u8,
                padding,
                count: count as u16,
                len: len as u32,
                stride: payloads.stride() as u32,
                payload: payloads.bytes()[done * payloads.stride()..].as_ptr(),
                next: NONE,
            });
            done += count;
            if begins {
                plan.open[slot] = plan.groups.len() as u32;
                plan.groups.push(Group {
                    socket,
                    to,
                    from,
                    direction,
                    size,
                    bytes: 0,
                    payload_bytes: 0,
                    count: 0,
                    closed: false,
                    whole: false,
                    first: run,
                    last: run,
                });
            }
            let index = plan.open[slot] as usize;
            let group = &mut plan.groups[index];
            if !begins {
                plan.runs[group.last as usize].next = run;
                group.last = run;
            }
            group.count += count as u16;
            group.bytes += count * size;
            group.payload_bytes += (count * len) as u64;
            // Nothing is joined to an empty datagram.
            group.closed = size < group.size || size == 0 || group.count >= most;
        }
    }

    /// Adds a single datagram that must not be fragmented on its way.
    pub(crate) fn push_whole(
        &mut self,
        socket: BorrowedFd<'b>,
        to: SocketAddr,
        from: Option<IpAddr>,
        payload: &'b [u8],
    ) {
        // Joined to none before it, and none is joined to it.
        self.plan.open = [NONE; OPEN];
        let parts = (&[][..], Payloads::one(payload), 0);
        self.push(socket, to, from, Direction::ToPeer, parts);
        if let Some(group) = self.plan.groups.last_mut() {
            group.whole = true;
            group.closed = true;
        }
    }

    /// Sends all of it. What the kernel does not take is lost, as it would be on any full link.
    pub(crate) fn flush(self) -> Unsent {
        let plan = self.plan;
        let mut unsent = Unsent::default();
        let mut order = std::mem::take(&mut plan.order);
        order.clear();
        order.extend(0..plan.groups.len() as u32);
        let groups = &plan.groups;
        // What one socket sends stays in order.
        order.sort_unstable_by_key(|index| (groups[*index as usize].socket, *index));
        send_by_ring(plan, &mut order);
        let groups = &plan.groups;
        let messages = if plan.io == Io::Plain { 1 } else { MESSAGES };
        let together = |a: &u32, b: &u32| {
            let (a, b) = (&groups[*a as usize], &groups[*b as usize]);
            a.socket == b.socket && a.whole == b.whole
        };
        for same_socket in order.chunk_by(together) {
            let first = &groups[same_socket[0] as usize];
            let _whole = first
                .whole
                .then(|| DontFragment::on(first.socket, first.to.is_ipv4()));
            for some in same_socket.chunks(messages) {
                plan.without_gso |= Sending {
                    groups,
                    runs: &plan.runs,
                    prefixes: &plan.prefixes,
                    scratch: &mut plan.scratch,
                    joined: !plan.without_gso,
                    unsent: &mut unsent,
                }
                .send(some);
            }
        }
        plan.order = order;
        unsent
    }
}

/// Sends groups of several sockets with one system call, where there is a ring. What remains of `order` was not sent.
fn send_by_ring(plan: &mut SendPlan, order: &mut Vec<u32>) {
    let Some(ring) = &mut plan.uring else {
        return;
    };
    let groups = &plan.groups;
    let socket = |index: &u32| groups[*index as usize].socket;
    let several = order.first().map(socket) != order.last().map(socket);
    if !several || plan.without_gso || groups.iter().any(|group| group.whole) {
        return;
    }
    let mut unsent = Vec::new();
    let mut broken = None;
    for some in order.chunks(uring::MESSAGES) {
        plan.scratch.clear();
        for index in some {
            let group = &groups[*index as usize];
            plan.scratch.add(group, &plan.runs, &plan.prefixes);
        }
        let headers = plan.scratch.headers().iter();
        plan.messages.clear();
        let messages = some.iter().zip(headers);
        plan.messages
            .extend(messages.map(|(index, header)| (socket(index), &raw const header.msg_hdr)));
        match ring.send(&plan.messages) {
            Ok(results) => {
                let failed = some.iter().zip(results).filter(|(_, result)| **result < 0);
                unsent.extend(failed.map(|(index, _)| *index));
            }
            Err(error) => {
                unsent.extend(some);
                broken = Some(error);
            }
        }
    }
    if let Some(error) = broken {
        tracing::warn!(%error, "io_uring fails: sending without it");
        plan.uring = None;
    }
    *order = unsent;
}

impl Group {
    /// How many of `rest` datagrams of this size may join.
    fn room(&self, size: usize, rest: usize, most: u16) -> usize {
        if self.closed || size == 0 || size > self.size || (size < self.size && rest > 1) {
            return 0;
        }
        let by_count = usize::from(most.saturating_sub(self.count));
        let by_bytes = MAX_BYTES.saturating_sub(self.bytes) / size;
        rest.min(by_count).min(by_bytes)
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            packets: u64::from(self.count),
            bytes: self.payload_bytes,
        }
    }
}

/// A plan on its way out.
struct Sending<'s> {
    groups: &'s [Group],
    runs: &'s [Run],
    prefixes: &'s [u8],
    scratch: &'s mut Scratch,
    joined: bool,
    unsent: &'s mut Unsent,
}

impl Sending<'_> {
    /// Sends groups of one socket. Returns whether the device turned out to know no GSO.
    fn send(&mut self, indexes: &[u32]) -> bool {
        let groups = self.groups;
        let mut rest = indexes;
        let mut no_gso = false;
        let mut again = false;
        while let Some(first) = rest.first() {
            let group = &groups[*first as usize];
            if group.count > 1 && !self.joined {
                self.send_apart(group);
                rest = &rest[1..];
                continue;
            }
            let run = rest
                .iter()
                .take_while(|index| self.joined || groups[**index as usize].count == 1)
                .count();
            self.scratch.clear();
            for index in &rest[..run] {
                let group = &groups[*index as usize];
                self.scratch.add(group, self.runs, self.prefixes);
            }
            match self.scratch.send(group.socket) {
                Ok(sent) => {
                    again = false;
                    rest = &rest[sent.clamp(1, run)..];
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // An ICMP error about an earlier datagram, perhaps to someone else: saying it once has cleared it.
                    Some(code) if is_pending(code) && !again => {
                        again = true;
                    }
                    // A queue on the way out dropped this one.
                    Some(libc::ENOBUFS) => {
                        self.unsent.blocked(group);
                        rest = &rest[1..];
                    }
                    Some(libc::EAGAIN) => {
                        // The rest would fare no better.
                        for index in rest {
                            self.unsent.blocked(&groups[*index as usize]);
                        }
                        return no_gso;
                    }
                    // Segments that exceed the path's MTU, or a device that cannot: one by one they may still pass.
                    Some(code @ (libc::EINVAL | libc::EMSGSIZE | libc::EIO)) if group.count > 1 => {
                        no_gso |= code == libc::EIO;
                        self.joined &= !no_gso;
                        self.send_apart(group);
                        rest = &rest[1..];
                    }
                    code => {
                        self.unsent.refused(group, code);
                        rest = &rest[1..];
                    }
                },
            }
        }
        no_gso
    }

    /// Sends the datagrams of one group one by one.
    fn send_apart(&mut self, group: &Group) {
        let mut at = group.first;
        while at != NONE {
            let run = &self.runs[at as usize];
            at = run.next;
            for number in 0..run.count {
                let mut again = false;
                let sent = loop {
                    self.scratch.clear();
                    self.scratch.add_one(group, run, number, self.prefixes);
                    match self.scratch.send(group.socket) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) if !again && error.raw_os_error().is_some_and(is_pending) => {
                            again = true;
                        }
                        result => break result,
                    }
                };
                if let Err(error) = sent {
                    let one = Traffic {
                        packets: 1,
                        bytes: u64::from(run.len),
                    };
                    self.unsent.one(group.direction, one, &error);
                }
            }
        }
    }
}

/// What ICMP errors become (`icmp(7)`, net/ipv4/icmp.c), and refusals without one do as well.
fn is_pending(code: i32) -> bool {
    matches!(
        code,
        libc::ECONNREFUSED
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ENOPROTOOPT
            | libc::EOPNOTSUPP
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EPROTO
            | libc::EACCES
            | libc::EMSGSIZE
    )
}

impl Unsent {
    fn blocked(&mut self, group: &Group) {
        add(&mut self.blocked[group.direction as usize], group.traffic());
    }

    fn refused(&mut self, group: &Group, code: Option<i32>) {
        add(&mut self.refused[group.direction as usize], group.traffic());
        self.error = code;
    }

    fn one(&mut self, direction: Direction, traffic: Traffic, error: &io::Error) {
        let blocked = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS));
        let of = if blocked {
            &mut self.blocked
        } else {
            self.error = error.raw_os_error();
            &mut self.refused
        };
        add(&mut of[direction as usize], traffic);
    }
}

fn add(to: &mut Traffic, more: Traffic) {
    to.packets += more.packets;
    to.bytes += more.bytes;
}
