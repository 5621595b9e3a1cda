//! IP packets described, and written out by hand: the code under test does not write what it is checked against.

use std::net::IpAddr;

/// What is in an IP packet. The payload of each is its number and bytes that follow from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A segment; with `mss` a SYN (from a service a SYN ACK).
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// As in the header.
        flags: u8,
        /// The option's value.
        mss: Option<u16>,
    },
    /// A datagram.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// An echo, by ICMP or ICMPv6.
    Echo {
        /// The answer, not the question.
        reply: bool,
        /// Whose ping it is.
        identifier: u16,
    },
}

/// One IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// From.
    pub source: IpAddr,
    /// To; of the same family.
    pub destination: IpAddr,
    /// What is in it.
    pub transport: Transport,
    /// Begins with a number of 8 bytes that no other packet has.
    pub payload: Vec<u8>,
}

pub(crate) const SYN: u8 = 2;
pub(crate) const ACK: u8 = 16;
const PSH: u8 = 8;

impl Transport {
    /// A segment that opens a connection.
    #[must_use]
    pub const fn syn(source: u16, destination: u16) -> Self {
        Self::Tcp {
            source,
            destination,
            flags: SYN,
            mss: Some(8_960),
        }
    }

    /// A segment of an open connection.
    #[must_use]
    pub const fn data(source: u16, destination: u16) -> Self {
        Self::Tcp {
            source,
            destination,
            flags: ACK | PSH,
            mss: None,
        }
    }

    /// What a service that echoes everything answers.
    pub(crate) const fn reply(&self) -> Self {
        match *self {
            Self::Tcp {
                source,
                destination,
                flags,
                mss,
            } => Self::Tcp {
                source: destination,
                destination: source,
                flags: flags | ACK,
                mss,
            },
            Self::Udp {
                source,
                destination,
            } => Self::Udp {
                source: destination,
                destination: source,
            },
            Self::Echo { identifier, .. } => Self::Echo {
                reply: true,
                identifier,
            },
        }
    }
}

impl Packet {
    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let ipv6 = self.source.is_ipv6();
        let (protocol, checksum_at, mut segment) = match self.transport {
            Transport::Tcp {
                source,
                destination,
                flags,
                mss,
            } => {
                let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
                segment.extend([0, 0, 3, 232, 0, 0, 0, 0]);
                segment.extend([if mss.is_some() { 0x60 } else { 0x50 }, flags, 0xff, 0xff]);
                segment.extend([0; 4]);
                if let Some(mss) = mss {
                    segment.extend([2, 4]);
                    segment.extend(mss.to_be_bytes());
                }
                (6, 16, segment)
            }
            Transport::Udp {
                source,
                destination,
            } => {
                let length = (8 + self.payload.len()) as u16;
                let words = [source, destination, length, 0];
                (
                    17,
                    6,
                    words.iter().flat_map(|word| word.to_be_bytes()).collect(),
                )
            }
            Transport::Echo { reply, identifier } => {
                let (protocol, kind) = match (ipv6, reply) {
                    (false, false) => (1, 8),
                    (false, true) => (1, 0),
                    (true, false) => (58, 128),
                    (true, true) => (58, 129),
                };
                let mut message = vec![kind, 0, 0, 0];
                message.extend(identifier.to_be_bytes());
                message.extend([0, 1]);
                (protocol, 2, message)
            }
        };
        segment.extend(&self.payload);
        let pseudo = if protocol == 1 {
            Vec::new()
        } else {
            self.pseudo_header(protocol, segment.len())
        };
        let sum = match (protocol, !sum(&pseudo, &segment)) {
            (17, 0) => 0xffff,
            (_, sum) => sum,
        };
        segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut packet = self.ip_header(protocol, segment.len());
        packet.extend(segment);
        packet
    }

    fn ip_header(&self, protocol: u8, length: usize) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, 0];
                header.extend((20 + length as u16).to_be_bytes());
                header.extend([0, 7, 0x40, 0, 64, protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = !sum(&[], &header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((length as u16).to_be_bytes());
                header.extend([protocol, 64]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            _ => panic!("a packet between two families"),
        }
    }

    fn pseudo_header(&self, protocol: u8, length: usize) -> Vec<u8> {
        let mut pseudo = Vec::new();
        for address in [self.source, self.destination] {
            match address {
                IpAddr::V4(ip) => pseudo.extend(ip.octets()),
                IpAddr::V6(ip) => pseudo.extend(ip.octets()),
            }
        }
        pseudo.extend((length as u32).to_be_bytes());
        pseudo.extend([0, 0, 0, protocol]);
        pseudo
    }

    /// The addresses and the number of a packet that was made by [`Packet::encode`], whatever happened to it since.
    pub(crate) fn peek(bytes: &[u8]) -> Option<(IpAddr, IpAddr, u64)> {
        let v4 = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<4>()?));
        let v6 = |at: usize| Some(IpAddr::from(*bytes.get(at..)?.first_chunk::<16>()?));
        let (source, destination, protocol, at) = match bytes.first()? >> 4 {
            4 => (v4(12)?, v4(16)?, *bytes.get(9)?, 20),
            6 => (v6(8)?, v6(24)?, *bytes.get(6)?, 40),
            _ => return None,
        };
        let header = match protocol {
            6 => usize::from(*bytes.get(at + 12)? >> 4) * 4,
            _ => 8,
        };
        let number = bytes.get(at + header..)?.first_chunk()?;
        Some((source, destination, u64::from_be_bytes(*number)))
    }
}

/// The one's complement sum of both, folded.
fn sum(first: &[u8], second: &[u8]) -> u16 {
    let words = first.chunks(2).chain(second.chunks(2));
    let mut total: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}
