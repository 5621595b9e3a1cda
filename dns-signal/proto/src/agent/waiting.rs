//! Frames that wait for their link, bounded in number, bytes and age: a kernel would keep a SYN about as long.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::route::Destination;

/// Frames kept per network.
const MAX_FRAMES: usize = 256;
/// Bytes kept per network.
const MAX_BYTES: usize = 1 << 20;
/// How long a frame is kept.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct WaitingFrame {
    pub(crate) since: Instant,
    pub(crate) destination: Arc<Destination>,
    pub(crate) frame: Vec<u8>,
}

/// The frames of one network, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    frames: VecDeque<WaitingFrame>,
    bytes: usize,
}

impl Waiting {
    /// Keeps a copy of a frame that has waited since then; gives the frames that were too old, and how many others had to
    /// go.
    pub(crate) fn push(
        &mut self,
        destination: &Arc<Destination>,
        frame: &[u8],
        since: Instant,
        now: Instant,
    ) -> (Vec<WaitingFrame>, u64) {
        let aged = self.expire(now);
        let mut dropped = 0;
        while self.frames.len() >= MAX_FRAMES || self.bytes + frame.len() > MAX_BYTES {
            if self.pop().is_none() {
                break;
            }
            dropped += 1;
        }
        self.bytes += frame.len();
        self.frames.push_back(WaitingFrame {
            since,
            destination: destination.clone(),
            frame: frame.to_vec(),
        });
        (aged, dropped)
    }

    pub(crate) fn pop(&mut self) -> Option<WaitingFrame> {
        let waiting = self.frames.pop_front()?;
        self.bytes -= waiting.frame.len();
        Some(waiting)
    }

    /// Takes all frames out, to be offered again to a link that is there now.
    pub(crate) fn take(&mut self) -> VecDeque<WaitingFrame> {
        self.bytes = 0;
        std::mem::take(&mut self.frames)
    }

    /// Takes out what is too old.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<WaitingFrame> {
        let mut aged = Vec::new();
        while self
            .frames
            .front()
            .is_some_and(|oldest| now.saturating_duration_since(oldest.since) >= MAX_AGE)
        {
            aged.extend(self.pop());
        }
        aged
    }

    pub(crate) fn front(&self) -> Option<&WaitingFrame> {
        self.frames.front()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &WaitingFrame> {
        self.frames.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination() -> Arc<Destination> {
        Arc::new(Destination {
            network: "east".parse().expect("a name"),
            service: "orders".parse().expect("a name"),
            ipv4: None,
            ipv6: None,
        })
    }

    #[test]
    fn the_oldest_frames_go_when_there_are_too_many() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        let dropped: u64 = (0..300_u16)
            .map(|n| waiting.push(&destination(), &n.to_be_bytes(), now, now).1)
            .sum();
        assert_eq!(dropped, 300 - MAX_FRAMES as u64);
        assert_eq!(
            waiting.front().expect("a frame").frame,
            44_u16.to_be_bytes()
        );
    }

    #[test]
    fn bytes_are_bounded_and_counted_back() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        for _ in 0..100 {
            waiting.push(&destination(), &[0; 60_000], now, now);
        }
        assert_eq!(waiting.frames.len(), MAX_BYTES / 60_000);
        waiting.take();
        assert_eq!(waiting.bytes, 0);
    }

    #[test]
    fn frames_age_out() {
        let (mut waiting, now) = (Waiting::default(), Instant::now());
        waiting.push(&destination(), &[1], now, now);
        let early = now + MAX_AGE - Duration::from_millis(1);
        assert!(waiting.expire(early).is_empty());
        assert_eq!(waiting.expire(now + MAX_AGE).len(), 1);
        assert!(waiting.is_empty());
    }
}
