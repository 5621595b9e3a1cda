use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::udp::UdpSocket;
use crate::{MAX_GSO_BYTES, MAX_GSO_SEGMENTS};

/// The batch holds as many bytes as it may: flush it, or drop the datagram and count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the send batch is full")]
pub struct SendBatchFull;

/// What [`SendBatch::flush`] did.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Datagrams that the kernel took.
    pub sent: usize,
    /// Datagrams that the kernel refused; they are gone.
    pub refused: usize,
    /// The last refusal, for a log line.
    pub error: Option<io::Error>,
    /// The kernel's buffer is full: what is left stays in the batch; wait for `writable` and flush again.
    pub blocked: bool,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    source: Option<SocketAddr>,
    destination: SocketAddr,
    start: usize,
    len: usize,
    segment: usize,
}

impl Group {
    /// A group takes on a datagram while all before it had one length, and none exceeds that length.
    fn takes(&self, source: Option<SocketAddr>, destination: SocketAddr, len: usize) -> bool {
        let whole = self.segment > 0 && self.len.is_multiple_of(self.segment);
        self.destination == destination
            && self.source == source
            && whole
            && len > 0
            && len <= self.segment
            && self.len + len <= MAX_GSO_BYTES
            && self.len / self.segment < MAX_GSO_SEGMENTS
    }

    /// The last datagram as a group of its own, where it has others before it and is shorter than they are.
    fn shorter_last(&self) -> Option<Self> {
        let len = self.len.checked_rem(self.segment)?;
        (0 < len && len < self.len).then_some(Self {
            start: self.start + self.len - len,
            len,
            segment: len,
            ..*self
        })
    }

    fn datagrams(&self) -> usize {
        if self.len == 0 {
            1
        } else {
            self.len.div_ceil(self.segment)
        }
    }
}

/// Collects datagrams and sends neighbors that share destination and length with one system call. The order
/// is kept. Bounded in bytes; its memory is reused.
#[derive(Debug)]
pub struct SendBatch {
    memory: Vec<u8>,
    groups: Vec<Group>,
    limit: usize,
}

impl Default for SendBatch {
    fn default() -> Self {
        Self::new(1 << 20)
    }
}

impl SendBatch {
    /// A batch that holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            memory: Vec::with_capacity(limit.min(256 * 1024)),
            groups: Vec::new(),
            limit,
        }
    }

    /// Adds one datagram, given in `parts` that are put together here (a header and its payload, say).
    /// `source` as in [`UdpSocket::try_send_from`].
    ///
    /// # Errors
    ///
    /// [`SendBatchFull`] when the limit is reached; nothing was added.
    pub fn push(
        &mut self,
        source: Option<SocketAddr>,
        destination: SocketAddr,
        parts: &[&[u8]],
    ) -> Result<(), SendBatchFull> {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        if self.memory.len() + len > self.limit || self.groups.len() >= self.limit {
            return Err(SendBatchFull);
        }
        let start = self.memory.len();
        for part in parts {
            self.memory.extend_from_slice(part);
        }
        match self.groups.last_mut() {
            Some(group) if group.takes(source, destination, len) => group.len += len,
            _ => self.groups.push(Group {
                source,
                destination,
                start,
                len,
                segment: len,
            }),
        }
        Ok(())
    }

    /// Whether nothing waits to be sent.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Bytes that wait to be sent.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.len).sum()
    }

    /// Datagrams that wait to be sent, and the system calls they will take with GSO.
    pub fn shape(&self) -> (usize, usize) {
        (
            self.groups.iter().map(Group::datagrams).sum(),
            self.groups.len(),
        )
    }

    /// Sends until the batch is empty or the kernel's buffer is full. A refusal concerns its own destination
    /// only and is counted.
    pub fn flush(&mut self, socket: &UdpSocket) -> Flushed {
        let mut flushed = Flushed::default();
        let mut done = 0;
        while let Some(group) = self.groups.get_mut(done) {
            let contents = &self.memory[group.start..group.start + group.len];
            let cut = (group.len > group.segment).then_some(group.segment);
            match socket.try_send_from(group.source, group.destination, contents, cut) {
                Ok(bytes) if bytes < group.len => {
                    flushed.sent += bytes / group.segment;
                    group.start += bytes;
                    group.len -= bytes;
                    flushed.blocked = true;
                    break;
                }
                Ok(_) => flushed.sent += group.datagrams(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    flushed.blocked = true;
                    break;
                }
                Err(error) => {
                    let too_long = error.raw_os_error() == Some(libc::EMSGSIZE);
                    flushed.error = Some(error);
                    // All are of one length but the last, which the path may well take.
                    if let Some(shorter) = group.shorter_last().filter(|_| too_long) {
                        flushed.refused += group.datagrams() - 1;
                        *group = shorter;
                        continue;
                    }
                    flushed.refused += group.datagrams();
                }
            }
            done += 1;
        }
        self.groups.drain(..done);
        if self.groups.is_empty() {
            self.memory.clear();
        } else {
            self.compact();
        }
        flushed
    }

    /// Moves what is left to the front, so that a batch which is never quite empty does not grow.
    fn compact(&mut self) {
        let Some(first) = self.groups.first().map(|group| group.start) else {
            return;
        };
        self.memory.drain(..first);
        for group in &mut self.groups {
            group.start -= first;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn to(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn equal_neighbors_to_one_destination_become_one_group() {
        let mut batch = SendBatch::new(10_000);
        for len in [100, 100, 100, 40] {
            batch.push(None, to(1), &[&[7; 4], &vec![1; len]]).unwrap();
        }
        assert_eq!(batch.shape(), (4, 1));
        // The short one closed the group, a longer one cannot join, another destination cannot join.
        batch.push(None, to(1), &[&[1; 44]]).unwrap();
        batch.push(None, to(1), &[&[1; 45]]).unwrap();
        batch.push(None, to(2), &[&[1; 45]]).unwrap();
        assert_eq!(batch.shape(), (7, 4));
    }

    #[test]
    fn a_group_ends_at_64_datagrams_and_at_64_000_bytes() {
        let mut batch = SendBatch::new(1 << 20);
        for _ in 0..65 {
            batch.push(None, to(1), &[&[0; 10]]).unwrap();
        }
        assert_eq!(batch.shape(), (65, 2));
        let mut batch = SendBatch::new(1 << 20);
        for _ in 0..8 {
            batch.push(None, to(1), &[&[0; 9_000]]).unwrap();
        }
        assert_eq!(batch.shape(), (8, 2));
    }

    #[test]
    fn a_full_batch_refuses() {
        let mut batch = SendBatch::new(100);
        batch.push(None, to(1), &[&[0; 90]]).unwrap();
        assert_eq!(batch.push(None, to(1), &[&[0; 11]]), Err(SendBatchFull));
        assert_eq!(batch.len(), 90);
    }

    #[test]
    fn empty_datagrams_are_sent_alone() {
        let mut batch = SendBatch::new(100);
        batch.push(None, to(1), &[]).unwrap();
        batch.push(None, to(1), &[]).unwrap();
        assert_eq!(batch.shape(), (2, 2));
    }
}
