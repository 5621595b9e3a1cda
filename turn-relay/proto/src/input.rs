//! Everything that can enter the core, apart from the datagrams themselves.

use crate::Transport;
use model::{ClientAddr, ServerAddr, UnixTime};
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

/// The time at which something enters. The core has no clock.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For lifetimes: never goes back.
    pub instant: Instant,
    /// For credentials that expire at a date.
    pub unix: UnixTime,
}

/// How a client reaches the server: client address, server address, and transport
/// ([RFC 8656 section 3](https://www.rfc-editor.org/rfc/rfc8656#section-3)). An allocation belongs to exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiveTuple {
    pub client: ClientAddr,
    pub server: ServerAddr,
    pub transport: Transport,
}

impl FiveTuple {
    /// To whom a nonce is given. A client of TCP has several connections, which share it: that spares each ConnectionBind
    /// (RFC 6062) a challenge.
    pub(crate) fn nonce_client(&self) -> ClientAddr {
        if self.transport.is_stream() {
            ClientAddr(SocketAddr::new(self.client.0.ip(), 0))
        } else {
            self.client
        }
    }
}

impl Hash for FiveTuple {
    // Clients differ; the server's addresses are few and only compared.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let port = self.client.0.port();
        match self.client.0.ip() {
            IpAddr::V4(ip) => state.write_u64(u64::from(ip.to_bits()) << 16 | u64::from(port)),
            IpAddr::V6(ip) => {
                state.write_u128(ip.to_bits());
                state.write_u16(port);
            }
        }
    }
}

/// Datagrams of one length that came the same way, one after the other, as GRO hands them over; the last may be shorter.
#[derive(Clone, Copy, Debug)]
pub struct Burst<'a> {
    bytes: &'a [u8],
    segment: usize,
}

impl<'a> Burst<'a> {
    /// Datagrams of `segment` bytes each; `bytes.len()` for a single one. No bytes are one empty datagram.
    pub fn new(bytes: &'a [u8], segment: usize) -> Self {
        let segment = segment.clamp(1, bytes.len().max(1));
        Self { bytes, segment }
    }

    /// A single datagram.
    pub fn one(datagram: &'a [u8]) -> Self {
        Self::new(datagram, datagram.len())
    }

    /// The first datagram.
    pub fn first(&self) -> &'a [u8] {
        &self.bytes[..self.segment.min(self.bytes.len())]
    }

    /// How many there are of the first one's length, at least 1: all, or all but the last.
    pub fn of_equal_length(&self) -> usize {
        (self.bytes.len() / self.segment).max(1)
    }

    /// How many, at least 1 and from the first on, have its length and its first `N` bytes.
    pub(crate) fn alike<const N: usize>(&self) -> usize {
        let Some(head) = self.first().first_chunk::<N>() else {
            return 1;
        };
        let same = |datagram: &&[u8]| datagram.first_chunk::<N>() == Some(head);
        self.bytes
            .chunks_exact(self.segment)
            .take_while(same)
            .count()
            .max(1)
    }

    /// What follows the first `count` datagrams, if anything does.
    pub fn after(&self, count: usize) -> Option<Self> {
        let rest = self.bytes.get(count * self.segment..)?;
        (!rest.is_empty()).then(|| Self::new(rest, self.segment))
    }

    /// The payloads of the first `count` datagrams, of which `payload` is the first one's, and each of the others lies
    /// in its datagram where this one does. `None` if that leaves the burst.
    pub fn payloads(&self, payload: &'a [u8], count: usize) -> Option<Payloads<'a>> {
        let offset = (payload.as_ptr() as usize).checked_sub(self.bytes.as_ptr() as usize)?;
        let last = offset + count.checked_sub(1)? * self.segment;
        Some(Payloads {
            bytes: self.bytes.get(offset..last + payload.len())?,
            stride: self.segment,
            len: payload.len(),
            count,
        })
    }
}

/// Payloads of one length at equal distances.
#[derive(Clone, Copy, Debug)]
pub struct Payloads<'a> {
    bytes: &'a [u8],
    stride: usize,
    len: usize,
    count: usize,
}

impl<'a> Payloads<'a> {
    /// A single one.
    pub fn one(payload: &'a [u8]) -> Self {
        Self {
            bytes: payload,
            stride: payload.len(),
            len: payload.len(),
            count: 1,
        }
    }

    /// From the beginning of the first to the end of the last.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes from the beginning of one to that of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// The length of each.
    pub fn payload_len(&self) -> usize {
        self.len
    }

    /// How many there are, at least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        let (bytes, stride, len) = (self.bytes, self.stride, self.len);
        (0..self.count).map(move |at| &bytes[at * stride..][..len])
    }
}

/// An address family; the discriminant is the index in arrays of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4 = 0,
    V6 = 1,
}

impl Family {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: SocketAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }
}

/// Names one allocation for ever: the index is used again, the pair is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// Names one relayed transport address, and so one socket of the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayId {
    pub(crate) allocation: AllocationId,
    pub(crate) family: Family,
}

impl RelayId {
    /// A small number that no other living relay has: an index for the shell's table of sockets. Used again after
    /// [`Output::CloseRelay`](crate::Output::CloseRelay).
    pub fn slot(self) -> usize {
        self.allocation.index as usize * 2 + self.family as usize
    }
}

/// Why the shell could not open a socket for a relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Another program has the port: another one is tried.
    PortInUse,
    /// No descriptor, no such address, no permission: trying again would not help.
    Other,
}
