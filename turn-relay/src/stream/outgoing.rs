//! What goes to clients of streams because of one batch: gathered first, so that each connection is written to once.

use turn_relay_proto::ConnectionId;

/// What a prefix takes at most: `turn_relay_proto::Prefix::MAX`.
const MAX_PREFIX: usize = turn_relay_proto::Prefix::MAX;

/// One frame: prefix, payload, and padding to a multiple of four bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'b> {
    pub(super) connection: ConnectionId,
    prefix: [u8; MAX_PREFIX],
    prefix_len: u8,
    pub(super) payload: &'b [u8],
}

static ZEROS: [u8; 3] = [0; 3];

impl Frame<'_> {
    /// Its parts, in order. The padding may be empty.
    pub(super) fn parts(&self) -> [&[u8]; 3] {
        let prefix = &self.prefix[..usize::from(self.prefix_len)];
        let len = prefix.len() + self.payload.len();
        let padding = &ZEROS[..wire::stream::padding(len)];
        [prefix, self.payload, padding]
    }

    /// Its bytes on the wire.
    pub(super) fn len(&self) -> usize {
        (usize::from(self.prefix_len) + self.payload.len()).next_multiple_of(4)
    }
}

/// The memory of a plan, used again for each.
#[derive(Debug, Default)]
pub(crate) struct StreamPlan(Vec<Frame<'static>>);

impl StreamPlan {
    /// Begins a plan whose payloads live for `'b`.
    pub(crate) fn start<'b>(&mut self) -> StreamOut<'b> {
        StreamOut {
            frames: emptied(std::mem::take(&mut self.0)),
        }
    }

    pub(super) fn give_back(&mut self, out: StreamOut<'_>) {
        self.0 = emptied(out.frames);
    }
}

/// An empty vector for something that lives differently, in the same memory.
fn emptied<'a>(mut frames: Vec<Frame<'_>>) -> Vec<Frame<'a>> {
    frames.clear();
    let same_memory = frames.into_iter().map(|_| unreachable!("it is empty"));
    same_memory.collect()
}

/// A plan under construction.
#[derive(Debug)]
pub(crate) struct StreamOut<'b> {
    pub(super) frames: Vec<Frame<'b>>,
}

impl<'b> StreamOut<'b> {
    /// Adds a frame. Its padding is seen to here.
    #[inline]
    pub(crate) fn push(&mut self, connection: ConnectionId, prefix: &[u8], payload: &'b [u8]) {
        let mut bytes = [0; MAX_PREFIX];
        let len = prefix.len().min(MAX_PREFIX);
        bytes[..len].copy_from_slice(&prefix[..len]);
        self.frames.push(Frame {
            connection,
            prefix: bytes,
            prefix_len: len as u8,
            payload,
        });
    }

    /// Brings the frames of a connection together, in their order.
    pub(super) fn group(&mut self) {
        if !self.frames.is_sorted_by_key(|frame| frame.connection) {
            self.frames.sort_by_key(|frame| frame.connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_keeps_its_memory_and_the_order_of_each_connection() {
        let mut plan = StreamPlan::default();
        let payloads: Vec<[u8; 2]> = (0..100u8).map(|at| [at, at % 3]).collect();
        let mut out = plan.start();
        for payload in &payloads {
            out.push(ConnectionId(u32::from(payload[1])), &[1, 2, 3, 4], payload);
        }
        out.group();
        assert!(
            out.frames
                .is_sorted_by_key(|f| (f.connection, f.payload[0]))
        );
        assert_eq!(out.frames[0].parts().concat(), [1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(out.frames[0].len(), 8);
        let held = out.frames.capacity();
        plan.give_back(out);
        assert_eq!(plan.start().frames.capacity(), held);
    }
}
