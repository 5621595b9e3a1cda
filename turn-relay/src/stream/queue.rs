//! Bytes that wait until the kernel takes them.

/// More than this is moved to the front when something is added.
const SPENT: usize = 64 << 10;
/// What an empty queue may keep of its memory.
const KEPT: usize = 4 << 10;

/// A queue of bytes. It holds no memory to speak of while it is empty.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    /// How many of them are gone already.
    spent: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.spent
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.spent..]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.spent > SPENT {
            self.bytes.drain(..self.spent);
            self.spent = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Removes bytes from the front; at most as many as there are.
    pub(super) fn consume(&mut self, count: usize) {
        self.spent += count.min(self.len());
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.spent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_and_the_memory_is_given_back() {
        let mut queue = Queue::default();
        let (mut sent, mut received) = (0u32, 0u32);
        for round in 0..200 {
            for _ in 0..(round * 37 % 1_000) {
                queue.push(&sent.to_be_bytes());
                sent += 1;
            }
            for _ in 0..(round * 53 % 1_000) {
                if queue.is_empty() {
                    break;
                }
                assert_eq!(queue.as_slice()[..4], received.to_be_bytes());
                queue.consume(4);
                received += 1;
            }
            assert_eq!(queue.len() as u32, (sent - received) * 4);
        }
        queue.consume(usize::MAX);
        assert!(queue.is_empty() && queue.bytes.capacity() <= KEPT);
    }
}
