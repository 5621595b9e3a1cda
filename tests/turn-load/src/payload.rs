//! What is in a packet, so that the receiver knows whether it is one of ours, of which flow, in which order, and how old.
//!
//! ```text
//! | "TPLD" | flow (32) | sequence (64) | sent at (64), ns | pattern ...
//! ```

use anyhow::{Result, ensure};

/// What a packet needs at least.
pub(crate) const MIN_LEN: usize = 24;
const MAGIC: [u8; 4] = *b"TPLD";

/// What a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) flow: u32,
    /// Of this flow, from 0.
    pub(crate) sequence: u64,
    /// By the sender's clock; 0 when nobody asked.
    pub(crate) sent: u64,
}

/// Fills what does not change from packet to packet.
pub(crate) fn prepare(payload: &mut [u8]) {
    payload[..4].copy_from_slice(&MAGIC);
    for (index, byte) in payload.iter_mut().enumerate().skip(MIN_LEN) {
        *byte = pattern(index);
    }
}

const fn pattern(index: usize) -> u8 {
    (index as u8).wrapping_mul(31) ^ (index >> 8) as u8
}

/// Fills the rest.
pub(crate) fn stamp(payload: &mut [u8], stamp: Stamp) {
    payload[4..8].copy_from_slice(&stamp.flow.to_be_bytes());
    payload[8..16].copy_from_slice(&stamp.sequence.to_be_bytes());
    payload[16..24].copy_from_slice(&stamp.sent.to_be_bytes());
}

/// Reads a packet of exactly `len` bytes; `None` when it is not one of ours, or damaged at its end.
pub(crate) fn read(payload: &[u8], len: usize) -> Option<Stamp> {
    let (head, rest) = payload.split_first_chunk::<MIN_LEN>()?;
    let sound = payload.len() == len
        && head[..4] == MAGIC
        && rest.last().is_none_or(|&last| last == pattern(len - 1));
    if !sound {
        return None;
    }
    let long = |from: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[from..from + 8]);
        u64::from_be_bytes(bytes)
    };
    Some(Stamp {
        flow: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        sequence: long(8),
        sent: long(16),
    })
}

/// Every byte that `prepare` wrote is there. For samples: it costs as much as receiving the packet did.
pub(crate) fn is_whole(payload: &[u8]) -> bool {
    payload
        .iter()
        .enumerate()
        .skip(MIN_LEN)
        .all(|(index, &byte)| byte == pattern(index))
}

/// What a receiver knows of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// The next sequence number, if nothing is lost.
    next: u64,
}

impl Progress {
    /// Nothing came yet.
    pub(crate) const START: Self = Self { next: 0 };

    /// Whether a packet comes after all that came before it; else it overtook, or is a duplicate.
    pub(crate) const fn is_in_order(&mut self, sequence: u64) -> bool {
        let in_order = sequence >= self.next;
        if in_order {
            self.next = sequence + 1;
        }
        in_order
    }
}

/// What arrived.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Packets that are right in every respect.
    pub(crate) delivered: u64,
    /// Packets that are not what was sent.
    pub(crate) damaged: u64,
    /// Packets that came after a later one of their flow, or twice.
    pub(crate) disordered: u64,
}

impl Tally {
    /// An error unless all that came was right.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(
            self.damaged == 0,
            "{} packets are not what was sent",
            self.damaged
        );
        ensure!(
            self.disordered == 0,
            "{} packets came out of order or twice",
            self.disordered
        );
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_back_and_damage_is_seen() {
        let mut packet = vec![0; 300];
        prepare(&mut packet);
        let sent = Stamp {
            flow: 7,
            sequence: 1 << 40,
            sent: 99,
        };
        stamp(&mut packet, sent);
        assert_eq!(read(&packet, 300), Some(sent));
        assert!(is_whole(&packet));
        assert_eq!(read(&packet, 299), None);
        assert_eq!(read(&packet[..299], 300), None);
        packet[150] ^= 1;
        assert!(!is_whole(&packet));
        packet[0] ^= 1;
        assert_eq!(read(&packet, 300), None);
    }

    #[test]
    fn the_smallest_packet_has_no_pattern() {
        let mut packet = [0; MIN_LEN];
        prepare(&mut packet);
        assert!(read(&packet, MIN_LEN).is_some() && is_whole(&packet));
    }

    #[test]
    fn loss_is_no_disorder_but_overtaking_and_repetition_are() {
        let mut progress = Progress::START;
        let in_order = [0, 1, 5, 4, 5, 6].map(|sequence| progress.is_in_order(sequence));
        assert_eq!(in_order, [true, true, true, false, false, true]);
    }
}
