use std::io::{self, IoSliceMut};
use std::net::SocketAddr;

use bytes::BytesMut;
use quinn_udp::RecvMeta;

use crate::recv_batch::Meta;
use crate::udp::UdpSocket;

/// As much as the kernel may join into one buffer (GRO), rounded up.
const BUFFER_LEN: usize = 65_536;

/// Buffers filled by one call. Few: what is taken at once should still be in the cache when it is worked on, and
/// nobody else has a turn meanwhile.
const BUFFERS: usize = 8;

/// What is shorter is copied out, so that whoever keeps it does not keep 64 KiB.
const COPIED_BELOW: usize = 4_096;

/// Datagrams that arrived together from one sender, one after the other.
#[derive(Debug)]
pub struct Burst {
    /// Their payloads; may be empty, which is one empty datagram.
    pub payload: BytesMut,
    /// Bytes of each but the last, which may be shorter; at least 1.
    pub segment: usize,
    /// Of all of them.
    pub meta: Meta,
}

/// Room for one [`UdpSocket::try_recv_bursts`]: 8 buffers of 64 KiB, given away as they are filled and reused once
/// whoever got them is done.
#[derive(Debug)]
pub struct BurstBatch {
    buffers: [BytesMut; BUFFERS],
}

impl Default for BurstBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl BurstBatch {
    /// Reserves the memory.
    pub fn new() -> Self {
        Self {
            buffers: std::array::from_fn(|_| BytesMut::zeroed(BUFFER_LEN)),
        }
    }
}

impl UdpSocket {
    /// Takes what has arrived, at most 8 buffers of up to 64 datagrams, and gives `each` whole buffers. Returns
    /// whether there may be more.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing was waiting; otherwise what the kernel reports. Neither makes the socket
    /// unusable.
    pub fn try_recv_bursts(
        &self,
        batch: &mut BurstBatch,
        mut each: impl FnMut(Burst),
    ) -> io::Result<bool> {
        let mut meta = [RecvMeta::default(); BUFFERS];
        let filled = {
            let mut slices = batch
                .buffers
                .each_mut()
                .map(|buffer| IoSliceMut::new(buffer));
            self.receive(&mut slices, &mut meta)?
        };
        let bound = self.local_addr();
        for (buffer, meta) in batch.buffers.iter_mut().zip(&meta).take(filled) {
            let to = Meta {
                source: meta.addr,
                local: SocketAddr::new(meta.dst_ip.unwrap_or(bound.ip()), bound.port()),
                ecn: meta.ecn.map_or(0, |ecn| ecn as u8),
            };
            let payload = take(buffer, meta.len);
            each(Burst {
                payload,
                segment: meta.stride.max(1),
                meta: to,
            });
            refill(buffer);
        }
        Ok(filled == BUFFERS)
    }
}

fn take(buffer: &mut BytesMut, len: usize) -> BytesMut {
    if len < COPIED_BELOW {
        return BytesMut::from(&buffer[..len]);
    }
    buffer.split_to(len)
}

/// The whole buffer again if nobody holds a part of it any more, or another.
#[allow(unsafe_code)]
fn refill(buffer: &mut BytesMut) {
    if buffer.len() == BUFFER_LEN {
        return;
    }
    buffer.clear();
    if buffer.try_reclaim(BUFFER_LEN) {
        // SAFETY: the memory was zeroed when it was allocated and only written to since; reclaiming does not allocate,
        // and the capacity is at least this.
        unsafe { buffer.set_len(BUFFER_LEN) };
    } else {
        *buffer = BytesMut::zeroed(BUFFER_LEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_nobody_holds_it() {
        let mut buffer = BytesMut::zeroed(BUFFER_LEN);
        let at = buffer.as_ptr();
        drop(take(&mut buffer, 20_000));
        refill(&mut buffer);
        assert_eq!((buffer.len(), buffer.as_ptr()), (BUFFER_LEN, at));

        let held = take(&mut buffer, 20_000);
        refill(&mut buffer);
        assert_eq!(buffer.len(), BUFFER_LEN);
        assert_eq!(held.as_ptr(), at, "what is held stays where it is");
        assert_ne!(buffer.as_ptr(), at);
    }

    #[test]
    fn a_short_datagram_does_not_hold_a_buffer() {
        let mut buffer = BytesMut::zeroed(BUFFER_LEN);
        let held = take(&mut buffer, 1_200);
        assert_eq!((held.len(), buffer.len()), (1_200, BUFFER_LEN));
        assert!(held.capacity() < 2_000);
    }
}
