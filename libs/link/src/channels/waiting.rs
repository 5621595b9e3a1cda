//! What waits for room in the window: a queue for each flow, served in turns, those first that have little to say
//! (FQ-CoDel, [RFC 8290](https://www.rfc-editor.org/rfc/rfc8290)).
//!
//! A flow that had nothing waiting, as that of a ping, a SYN, an acknowledgement or a DNS query, comes before those that
//! fill the queue. Within a flow nothing is overtaken. A flow whose messages wait too long for too long is told by one
//! that is marked, if its transport understands that, or else dropped (CoDel,
//! [RFC 8289 section 5](https://www.rfc-editor.org/rfc/rfc8289#section-5)). When there is no room at all, the flow that has
//! taken most of it loses its oldest.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use wire::frame::{Frame, HEADER_LEN};
use wire::ip::mark_congestion;

/// Queues. Flows that are told apart by nothing, or by a hash that is the same, share one.
const FLOWS: usize = 128;
/// Bytes that a flow sends in its turn, and the least that may always wait.
const QUANTUM: usize = 1_514;
/// CoDel's interval is a round trip, but at least this; its target is a twentieth of it.
const INTERVAL: Duration = Duration::from_millis(100);

/// Counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Messages that went as marked.
    pub(crate) marked: u64,
    /// Messages that did not go.
    pub(crate) dropped: u64,
}

/// See the module.
#[derive(Default)]
pub(super) struct Waiting {
    /// Empty as long as nothing has waited.
    flows: Vec<Flow>,
    /// Flows that have just begun to wait, and the others that wait, by index.
    new: VecDeque<usize>,
    old: VecDeque<usize>,
    bytes: usize,
    pub(super) told: Told,
}

#[derive(Default)]
struct Flow {
    messages: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// Bytes that are left of its turn.
    deficit: isize,
    is_listed: bool,
    codel: Codel,
}

/// RFC 8289 section 5.1, but for the queue.
#[derive(Default)]
struct Codel {
    /// When messages will have waited too long for too long, if they do now.
    first_above: Option<Instant>,
    is_dropping: bool,
    drop_next: Option<Instant>,
    count: u32,
    last_count: u32,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The queue of a frame's flow.
    pub(super) fn flow(frame: &[u8]) -> usize {
        let Ok(frame) = Frame::decode(frame) else {
            return 0;
        };
        let packet = &frame.packet;
        let mut hasher = DefaultHasher::new();
        (packet.source(), packet.destination(), packet.protocol()).hash(&mut hasher);
        (packet.ports(), packet.echo_identifier()).hash(&mut hasher);
        hasher.finish() as usize % FLOWS
    }

    /// Makes room for `bytes` of a flow where `most` may wait; whether there is. The flow that has most of it gives it,
    /// but none gives room to itself.
    pub(super) fn make_room(&mut self, flow: usize, bytes: usize, most: usize) -> bool {
        while self.bytes + bytes > most {
            let sizes = self.flows.iter().map(|flow| flow.bytes).enumerate();
            let Some((fattest, held)) = sizes.max_by_key(|(_, bytes)| *bytes) else {
                return false;
            };
            if fattest == flow || held == 0 {
                return false;
            }
            let excess = self.bytes + bytes - most;
            let mut freed = 0;
            while freed < excess
                && let Some((_, message)) = self.flows[fattest].pop()
            {
                freed += message.len();
                self.told.dropped += 1;
            }
            self.bytes -= freed;
        }
        true
    }

    pub(super) fn push(&mut self, flow: usize, message: Bytes, now: Instant) {
        if self.flows.is_empty() {
            self.flows.resize_with(FLOWS, Flow::default);
        }
        let Some(to) = self.flows.get_mut(flow) else {
            return;
        };
        self.bytes += message.len();
        to.bytes += message.len();
        to.messages.push_back((now, message));
        if !to.is_listed {
            to.is_listed = true;
            to.deficit = QUANTUM as isize;
            self.new.push_back(flow);
        }
    }

    /// What goes next, when a round trip takes so long.
    pub(super) fn pop(&mut self, round_trip: Duration, now: Instant) -> Option<Bytes> {
        let interval = round_trip.max(INTERVAL);
        loop {
            let is_new = !self.new.is_empty();
            let list = if is_new { &mut self.new } else { &mut self.old };
            let index = *list.front()?;
            let flow = self.flows.get_mut(index)?;
            if flow.deficit <= 0 {
                flow.deficit += QUANTUM as isize;
                list.pop_front();
                self.old.push_back(index);
                continue;
            }
            let before = flow.bytes;
            let message = flow.next(interval, now, &mut self.told);
            self.bytes -= before - flow.bytes;
            if message.is_some() {
                return message;
            }
            list.pop_front();
            // Whoever speaks again at once does not come before the others again.
            if is_new && !self.old.is_empty() {
                self.old.push_back(index);
            } else {
                flow.is_listed = false;
            }
        }
    }

    /// Gives memory back, if nothing waits.
    pub(super) fn trim(&mut self) {
        if self.is_empty() {
            *self = Self {
                told: self.told,
                ..Self::default()
            };
        }
    }
}

impl Flow {
    fn pop(&mut self) -> Option<(Instant, Bytes)> {
        let (since, message) = self.messages.pop_front()?;
        self.bytes -= message.len();
        Some((since, message))
    }

    /// The next that goes. Its bytes are taken off the flow's turn.
    fn next(&mut self, interval: Duration, now: Instant, told: &mut Told) -> Option<Bytes> {
        let mut message = self.judged(interval, now);
        while let Some((over, bytes)) = message {
            if over && self.codel.is_due(interval, now) {
                let Some(marked) = marked(&bytes) else {
                    told.dropped += 1;
                    message = self.judged(interval, now);
                    continue;
                };
                told.marked += 1;
                self.deficit -= marked.len() as isize;
                return Some(marked);
            }
            self.deficit -= bytes.len() as isize;
            return Some(bytes);
        }
        None
    }

    /// The oldest, and whether the flow is over what may wait.
    fn judged(&mut self, interval: Duration, now: Instant) -> Option<(bool, Bytes)> {
        let Some((since, message)) = self.pop() else {
            self.codel.first_above = None;
            self.codel.is_dropping = false;
            return None;
        };
        let waited = now.saturating_duration_since(since);
        let over = if waited < interval / 20 || self.bytes <= QUANTUM {
            self.codel.first_above = None;
            false
        } else {
            let due = *self.codel.first_above.get_or_insert(now + interval);
            due <= now
        };
        if !over {
            self.codel.is_dropping = false;
        }
        Some((over, message))
    }
}

impl Codel {
    /// Whether it is time to tell, while the flow is over what may wait.
    fn is_due(&mut self, interval: Duration, now: Instant) -> bool {
        let next = |from: Instant, count: u32| from + interval.div_f64(f64::from(count).sqrt());
        if self.is_dropping {
            let Some(due) = self.drop_next.filter(|due| *due <= now) else {
                return false;
            };
            self.count += 1;
            self.drop_next = Some(next(due, self.count));
            return true;
        }
        self.is_dropping = true;
        let is_recent = |last: Instant| now.saturating_duration_since(last) < 16 * interval;
        let more = self.count - self.last_count;
        self.count = match more > 1 && self.drop_next.is_some_and(is_recent) {
            true => more,
            false => 1,
        };
        self.last_count = self.count;
        self.drop_next = Some(next(now, self.count));
        true
    }
}

/// The same message, marked; `None` if its transport would not understand that.
fn marked(message: &Bytes) -> Option<Bytes> {
    let mut message = BytesMut::from(&message[..]);
    mark_congestion(message.get_mut(HEADER_LEN..)?).then(|| message.freeze())
}

#[cfg(test)]
pub(super) mod tests;
