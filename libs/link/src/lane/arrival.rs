//! What came in: packets that are whole become frames, neighbours of one flow become one.

use std::collections::VecDeque;

use bytes::BytesMut;
use wire::frame::{HEADER_LEN, Header, MAX_FRAME_LEN, PartialChecksum};
use wire::ip::{Join, Layout};

/// Taken at once for what will come; frames are pieces of it, and it is used again when they are gone.
const MEMORY: usize = 2 * MAX_FRAME_LEN;

/// Frames being made.
#[derive(Default)]
pub(crate) struct Arrival {
    /// The frame being made: header, first packet, payloads of those that were joined to it.
    memory: BytesMut,
    join: Option<Join>,
    frames: VecDeque<BytesMut>,
    /// Packets that were joined to one before them.
    pub(crate) joined: u64,
}

impl Arrival {
    /// Takes in a packet. `false`: it is none, or none that can have a partial checksum.
    pub(crate) fn push(&mut self, packet: &[u8], partial: bool) -> bool {
        if let Some(join) = self.join.as_mut().filter(|_| partial)
            && let Some(payload) = join.take(&self.memory[HEADER_LEN..], packet)
        {
            self.memory.extend_from_slice(&packet[payload..]);
            self.joined += 1;
            return true;
        }
        self.finish();
        let Ok(layout) = Layout::parse(packet) else {
            return false;
        };
        let mut header = Header::PLAIN;
        if partial {
            let Some(field) = layout.checksum_field() else {
                return false;
            };
            header.partial_checksum = Some(PartialChecksum {
                start: layout.l4 as u16,
                offset: (field - layout.l4) as u16,
            });
        }
        if layout.end != packet.len() {
            return false;
        }
        self.join = partial.then(|| Join::begin(packet, &layout)).flatten();
        let (room, memory) = match self.join {
            Some(_) => (MAX_FRAME_LEN, MEMORY),
            None => (HEADER_LEN + packet.len(), HEADER_LEN + packet.len()),
        };
        if self.memory.capacity() < room {
            self.memory.reserve(memory);
        }
        self.memory.extend_from_slice(&header.encode());
        self.memory.extend_from_slice(packet);
        if self.join.is_none() {
            self.finish();
        }
        true
    }

    /// The next frame that is complete.
    pub(crate) fn pop(&mut self) -> Option<BytesMut> {
        self.frames.pop_front()
    }

    /// Nothing follows for now: what is being made is complete.
    pub(crate) fn finish(&mut self) {
        if self.memory.is_empty() {
            return;
        }
        if let Some(join) = self.join.take() {
            let (header, packet) = self.memory.split_at_mut(HEADER_LEN);
            header.copy_from_slice(&join.finish(packet).encode());
        }
        self.frames.push_back(self.memory.split());
    }

    /// Gives the memory back that waits for more to come.
    pub(crate) fn trim(&mut self) {
        if self.memory.is_empty() {
            self.memory = BytesMut::new();
        }
    }
}
