use std::io::IoSliceMut;
use std::net::SocketAddr;

use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta};

/// As much as the kernel may join into one buffer (GRO), rounded up.
const BUFFER_LEN: usize = 65_536;

/// Where a datagram came from and where it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Who sent it.
    pub source: SocketAddr,
    /// The local address and port it was sent to; exact also when the socket is bound to the wildcard.
    pub local: SocketAddr,
    /// The ECN field of the IP header, 0 to 3
    /// ([RFC 3168 section 5](https://www.rfc-editor.org/rfc/rfc3168#section-5)).
    pub ecn: u8,
}

/// Room for one `recvmmsg`: 32 buffers of 64 KB (2 MiB), allocated once and reused for ever. One per loop is
/// enough: it is empty between two calls of [`UdpSocket::try_recv_batch`](crate::UdpSocket::try_recv_batch).
pub struct RecvBatch {
    memory: Box<[u8]>,
    meta: [RecvMeta; BATCH_SIZE],
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch")
            .field("bytes", &self.memory.len())
            .finish_non_exhaustive()
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RecvBatch {
    /// Reserves the memory.
    pub fn new() -> Self {
        Self {
            memory: vec![0; BUFFER_LEN * BATCH_SIZE].into_boxed_slice(),
            meta: [RecvMeta::default(); BATCH_SIZE],
        }
    }

    /// Runs `recv` over the buffers; it returns how many were filled.
    pub(crate) fn fill(
        &mut self,
        recv: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        let mut rest = &mut self.memory[..];
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| {
            let (buffer, tail) = std::mem::take(&mut rest).split_at_mut(BUFFER_LEN);
            rest = tail;
            IoSliceMut::new(buffer)
        });
        recv(&mut slices, &mut self.meta)
    }

    /// Hands out the datagrams of the first `filled` buffers, in the order of their arrival.
    pub(crate) fn for_each(
        &mut self,
        filled: usize,
        bound: SocketAddr,
        mut each: impl FnMut(&mut [u8], Meta),
    ) -> usize {
        let mut datagrams = 0;
        let buffers = self.memory.chunks_exact_mut(BUFFER_LEN);
        for (buffer, meta) in buffers.zip(&self.meta).take(filled) {
            let to = Meta {
                source: meta.addr,
                local: SocketAddr::new(meta.dst_ip.unwrap_or(bound.ip()), bound.port()),
                ecn: meta.ecn.map_or(0, |ecn: EcnCodepoint| ecn as u8),
            };
            // An empty datagram has stride 0 and is a datagram all the same.
            let stride = meta.stride.max(1);
            let contents = &mut buffer[..meta.len];
            if contents.is_empty() {
                each(contents, to);
                datagrams += 1;
                continue;
            }
            for segment in contents.chunks_mut(stride) {
                each(segment, to);
                datagrams += 1;
            }
        }
        datagrams
    }
}
