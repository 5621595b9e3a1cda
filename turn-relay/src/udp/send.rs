//! Sending: what a batch leads to is collected, datagrams of equal size from one socket to one destination are joined
//! (GSO), and leave together, straight from where they were received: nothing is copied here.

use crate::udp::sendmmsg::Scratch;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use turn_relay_proto::{Direction, Traffic};

/// `UDP_MAX_SEGMENTS` of Linux before 6.x is 64.
const MAX_SEGMENTS: u16 = 64;
/// Below 65 535 less the headers of UDP and IPv6.
const MAX_BYTES: usize = 65_000;
/// Joined datagrams per system call.
const MESSAGES: usize = 64;
/// Groups that are remembered as open: flows that arrive interleaved are still joined.
const OPEN: usize = 64;
const NONE: u32 = u32::MAX;

/// One datagram: prefix, payload, padding.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) prefix: u32,
    pub(super) prefix_len: u8,
    pub(super) padding: u8,
    pub(super) len: u32,
    pub(super) payload: *const u8,
    next: u32,
}

/// Datagrams that can leave as one: all of `size` bytes, the last perhaps shorter.
#[derive(Debug)]
pub(super) struct Group {
    socket: RawFd,
    pub(super) to: SocketAddr,
    pub(super) from: Option<IpAddr>,
    direction: Direction,
    size: usize,
    bytes: usize,
    payload_bytes: u64,
    count: u16,
    closed: bool,
    first: u32,
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
#[derive(Default)]
pub(crate) struct SendPlan {
    segments: Vec<Segment>,
    groups: Vec<Group>,
    prefixes: Vec<u8>,
    open: Vec<u32>,
    order: Vec<u32>,
    scratch: Scratch,
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
    /// Begins a plan whose payloads and sockets live for `'b`.
    pub(crate) fn start<'b>(&mut self) -> Outgoing<'_, 'b> {
        self.segments.clear();
        self.groups.clear();
        self.prefixes.clear();
        self.open.clear();
        self.open.resize(OPEN, NONE);
        Outgoing {
            plan: self,
            borrows: PhantomData,
        }
    }
}

/// A plan under construction. Its pointers are followed only by [`Outgoing::flush`], while what they lead to is borrowed.
#[derive(Debug)]
pub(crate) struct Outgoing<'p, 'b> {
    plan: &'p mut SendPlan,
    borrows: PhantomData<(&'b [u8], BorrowedFd<'b>)>,
}

impl<'b> Outgoing<'_, 'b> {
    /// Adds a datagram of `prefix`, `payload` and `padding` (0 to 3) zero bytes. `from` where the socket has no address
    /// of its own.
    #[inline]
    pub(crate) fn push(
        &mut self,
        socket: BorrowedFd<'b>,
        to: SocketAddr,
        from: Option<IpAddr>,
        direction: Direction,
        (prefix, payload, padding): (&[u8], &'b [u8], u8),
    ) {
        let plan = &mut *self.plan;
        let socket = socket.as_raw_fd();
        let size = prefix.len() + payload.len() + usize::from(padding);
        let slot = (socket as usize ^ usize::from(to.port())) % OPEN;
        let index = plan.open[slot];
        let group = plan.groups.get_mut(index as usize).filter(|group| {
            group.socket == socket
                && group.to == to
                && group.from == from
                && !group.closed
                // An empty datagram adds no bytes, so the kernel would not make one of it.
                && size > 0
                && size <= group.size
                && group.bytes + size <= MAX_BYTES
        });
        let same_prefix = group.as_ref().is_some_and(|group| {
            let last = &plan.segments[group.last as usize];
            let at = last.prefix as usize;
            plan.prefixes[at..at + usize::from(last.prefix_len)] == *prefix
        });
        let at = match &group {
            Some(group) if same_prefix => plan.segments[group.last as usize].prefix,
            _ => {
                plan.prefixes.extend_from_slice(prefix);
                (plan.prefixes.len() - prefix.len()) as u32
            }
        };
        let new = plan.segments.len() as u32;
        plan.segments.push(Segment {
            prefix: at,
            prefix_len: prefix.len() as u8,
            padding,
            len: payload.len() as u32,
            payload: payload.as_ptr(),
            next: NONE,
        });
        if let Some(group) = group {
            plan.segments[group.last as usize].next = new;
            group.last = new;
            group.count += 1;
            group.bytes += size;
            group.payload_bytes += payload.len() as u64;
            group.closed = size < group.size || group.count == MAX_SEGMENTS;
            return;
        }
        plan.open[slot] = plan.groups.len() as u32;
        plan.groups.push(Group {
            socket,
            to,
            from,
            direction,
            size,
            bytes: size,
            payload_bytes: payload.len() as u64,
            count: 1,
            // Nothing is joined to an empty datagram.
            closed: size == 0,
            first: new,
            last: new,
        });
    }

    /// Sends all of it. What the kernel does not take is lost, as it would be on any full link.
    pub(crate) fn flush(self) -> Unsent {
        let plan = self.plan;
        let mut unsent = Unsent::default();
        plan.order.clear();
        plan.order.extend(0..plan.groups.len() as u32);
        let groups = &plan.groups;
        // Stable: what one socket sends stays in order.
        plan.order
            .sort_by_key(|index| groups[*index as usize].socket);
        let order = std::mem::take(&mut plan.order);
        for same_socket in
            order.chunk_by(|a, b| groups[*a as usize].socket == groups[*b as usize].socket)
        {
            for some in same_socket.chunks(MESSAGES) {
                let joined = !plan.without_gso;
                let refused = send(
                    groups,
                    &plan.segments,
                    &plan.prefixes,
                    &mut plan.scratch,
                    some,
                    joined,
                    &mut unsent,
                );
                plan.without_gso |= refused;
            }
        }
        plan.order = order;
        unsent
    }
}

/// Sends groups of one socket. Returns whether the device turned out to know no GSO.
fn send(
    groups: &[Group],
    segments: &[Segment],
    prefixes: &[u8],
    scratch: &mut Scratch,
    indexes: &[u32],
    joined: bool,
    unsent: &mut Unsent,
) -> bool {
    let mut rest = indexes;
    let mut no_gso = false;
    while let Some(first) = rest.first() {
        let group = &groups[*first as usize];
        if group.count > 1 && (no_gso || !joined) {
            send_apart(group, segments, prefixes, scratch, unsent);
            rest = &rest[1..];
            continue;
        }
        let run = rest
            .iter()
            .take_while(|index| joined && !no_gso || groups[**index as usize].count == 1)
            .count();
        scratch.clear();
        for index in &rest[..run] {
            let group = &groups[*index as usize];
            let segment = (group.count > 1).then_some(group.size);
            scratch.begin(group, segment);
            let mut at = group.first;
            while at != NONE {
                let segment = &segments[at as usize];
                scratch.add(segment, prefixes);
                at = segment.next;
            }
        }
        match scratch.send(group.socket) {
            Ok(sent) => rest = &rest[sent.clamp(1, run)..],
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::ENOBUFS) => {
                    // The rest would fare no better.
                    for index in rest {
                        unsent.blocked(&groups[*index as usize]);
                    }
                    return no_gso;
                }
                // Segments that exceed the path's MTU, or a device that cannot: one by one they may still pass.
                Some(code @ (libc::EINVAL | libc::EMSGSIZE | libc::EIO)) if group.count > 1 => {
                    no_gso |= code == libc::EIO;
                    send_apart(group, segments, prefixes, scratch, unsent);
                    rest = &rest[1..];
                }
                code => {
                    unsent.refused(group, code);
                    rest = &rest[1..];
                }
            },
        }
    }
    no_gso
}

/// Sends the datagrams of one group one by one.
fn send_apart(
    group: &Group,
    segments: &[Segment],
    prefixes: &[u8],
    scratch: &mut Scratch,
    unsent: &mut Unsent,
) {
    let mut at = group.first;
    while at != NONE {
        let segment = &segments[at as usize];
        at = segment.next;
        let sent = loop {
            scratch.clear();
            scratch.begin(group, None);
            scratch.add(segment, prefixes);
            match scratch.send(group.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        if let Err(error) = sent {
            let one = Traffic {
                packets: 1,
                bytes: u64::from(segment.len),
            };
            unsent.one(group.direction, one, &error);
        }
    }
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

impl Group {
    fn traffic(&self) -> Traffic {
        Traffic {
            packets: u64::from(self.count),
            bytes: self.payload_bytes,
        }
    }
}

fn add(to: &mut Traffic, more: Traffic) {
    to.packets += more.packets;
    to.bytes += more.bytes;
}
