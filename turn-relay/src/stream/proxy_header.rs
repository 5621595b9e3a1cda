//! The header by which a load balancer says who its client is: PROXY protocol, version 2
//! ([specification](https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt), section 2.2).
//!
//! ```text
//! 0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A   signature
//! 2x            version 2; command 0 LOCAL, 1 PROXY
//! 11, 21        TCP over IPv4, over IPv6
//! hh ll         bytes that follow
//! source address, destination address, source port, destination port, and fields that are not looked at
//! ```

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;
/// Addresses take 36 bytes at most; the rest is for what load balancers say beside them.
const MAX: usize = FIXED + 1_024;

/// A header that is on its way. Not a byte behind it is read.
#[derive(Debug, Default)]
pub struct ProxyHeader {
    bytes: Vec<u8>,
}

/// How far a header is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// More has to come.
    NotYet,
    /// The load balancer itself, for its own purposes.
    Itself,
    /// Who is at the other end of it.
    Client(SocketAddr),
}

/// Bytes that are no such header, or one that is too long or names no client over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeader;

impl ProxyHeader {
    /// Reads what there is of it.
    ///
    /// # Errors
    /// When the connection has failed; `UnexpectedEof` if it has ended.
    pub fn read(&mut self, mut from: impl Read) -> io::Result<Result<Announced, NoHeader>> {
        loop {
            let needed = match self.needed() {
                Ok(needed) => needed,
                Err(error) => return Ok(Err(error)),
            };
            let held = self.bytes.len();
            if held == needed {
                return Ok(decode(&self.bytes));
            }
            self.bytes.resize(needed, 0);
            let read = from.read(&mut self.bytes[held..]);
            self.bytes
                .truncate(held + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::WouldBlock => return Ok(Ok(Announced::NotYet)),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Its length, as far as that is known.
    fn needed(&self) -> Result<usize, NoHeader> {
        let begun = self.bytes.len().min(SIGNATURE.len());
        if self.bytes[..begun] != SIGNATURE[..begun] {
            return Err(NoHeader);
        }
        let Some([high, low]) = self.bytes.get(14..FIXED) else {
            return Ok(FIXED);
        };
        let all = FIXED + usize::from(u16::from_be_bytes([*high, *low]));
        if all > MAX { Err(NoHeader) } else { Ok(all) }
    }
}

/// Reads a whole one.
fn decode(header: &[u8]) -> Result<Announced, NoHeader> {
    let (fixed, rest) = header.split_at_checked(FIXED).ok_or(NoHeader)?;
    let client = match (fixed[12], fixed[13]) {
        // Whatever it says of addresses is to be ignored.
        (0x20, _) => return Ok(Announced::Itself),
        (0x21, 0x11) => {
            let [a, b, c, d, _, _, _, _, high, low, _, _] = rest.first_chunk().ok_or(NoHeader)?;
            let ip = Ipv4Addr::new(*a, *b, *c, *d);
            SocketAddr::new(ip.into(), u16::from_be_bytes([*high, *low]))
        }
        (0x21, 0x21) => {
            let rest: &[u8; 36] = rest.first_chunk().ok_or(NoHeader)?;
            let ip: &[u8; 16] = rest.first_chunk().ok_or(NoHeader)?;
            let port = u16::from_be_bytes([rest[32], rest[33]]);
            SocketAddr::new(Ipv6Addr::from(*ip).into(), port)
        }
        _ => return Err(NoHeader),
    };
    if is_nobody(client) {
        return Err(NoHeader);
    }
    Ok(Announced::Client(client))
}

fn is_nobody(client: SocketAddr) -> bool {
    let ip = client.ip();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    client.port() == 0 || ip.is_unspecified() || ip.is_multicast() || broadcast
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    /// Piece by piece, as a socket gives it that has no more for now.
    fn read(bytes: &[u8], piece: usize) -> Result<Announced, NoHeader> {
        struct Pieces<'a>(&'a [u8], bool);
        impl Read for Pieces<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.1, true) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.0.read(buffer)
            }
        }
        let mut reading = ProxyHeader::default();
        let mut result = Ok(Announced::NotYet);
        for piece in bytes.chunks(piece) {
            result = reading.read(Pieces(piece, false)).unwrap();
            if result != Ok(Announced::NotYet) {
                break;
            }
        }
        result
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0x0D, 0x96];

    #[test]
    fn a_client_is_announced_in_whatever_pieces() {
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        v6[32..34].copy_from_slice(&[0x12, 0x34]);
        let with_more = [&V4[..], &[4; 100]].concat();
        let all = [
            (header(0x21, 0x11, &V4), "192.0.2.7:4660"),
            (header(0x21, 0x11, &with_more), "192.0.2.7:4660"),
            (header(0x21, 0x21, &v6), "[2001:db8::7]:4660"),
        ];
        for (bytes, client) in all {
            // A socket gives no more than it is asked for.
            for piece in [1, 16] {
                let client = Announced::Client(client.parse().unwrap());
                assert_eq!(read(&bytes, piece), Ok(client));
            }
        }
        assert_eq!(read(&header(0x20, 0, &[]), 1), Ok(Announced::Itself));
        assert_eq!(read(&header(0x20, 0x11, &V4), 1), Ok(Announced::Itself));
    }

    #[test]
    fn what_is_no_header_is_refused_as_early_as_it_shows() {
        let unspecified = [0, 0, 0, 0, 10, 0, 0, 1, 0x12, 0x34, 0x0D, 0x96];
        let port_0 = [192, 0, 2, 7, 10, 0, 0, 1, 0, 0, 0x0D, 0x96];
        let bad = [
            b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(),
            b"\r\n\r\n\0\r\nQUIT ".to_vec(),
            header(0x11, 0x11, &V4),
            header(0x22, 0x11, &V4),
            header(0x21, 0x12, &V4),
            header(0x21, 0x31, &V4),
            header(0x21, 0x00, &[]),
            header(0x21, 0x11, &V4[..11]),
            header(0x21, 0x21, &V4),
            header(0x21, 0x11, &unspecified),
            header(0x21, 0x11, &port_0),
            header(0x21, 0x11, &vec![1; 1_025])[..16].to_vec(),
        ];
        for bytes in bad {
            assert_eq!(read(&bytes, 1), Err(NoHeader), "{bytes:?}");
        }
        let nothing_behind = &header(0x21, 0x11, &V4)[..27];
        assert_eq!(read(nothing_behind, 1), Ok(Announced::NotYet));
    }
}
