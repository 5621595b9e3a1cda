//! The PROXY header, in pieces: as a second reader has it, and not a byte behind it is taken.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use turn_relay::foreign::{Announced, NoHeader, ProxyHeader};

/// What a connection has for now.
struct Piece<'p>(&'p [u8]);

impl Read for Piece<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

pub(super) fn run(data: &[u8], piece: usize) {
    let mut header = ProxyHeader::default();
    let (mut result, mut taken) = (Ok(Announced::NotYet), 0);
    for some in data.chunks(piece) {
        let mut some = Piece(some);
        let before = some.0.len();
        result = header.read(&mut some).expect("it does not break");
        taken += before - some.0.len();
        if result != Ok(Announced::NotYet) {
            break;
        }
    }
    let (expected, length) = read(data);
    assert_eq!(result, expected);
    match result {
        Ok(Announced::NotYet) => assert_eq!(taken, data.len()),
        Ok(_) => assert_eq!(taken, length),
        Err(NoHeader) => assert!(taken <= length),
    }
}

/// Reads it from the specification, with all of it there at once; and how long it is, or how much of it is looked at.
fn read(data: &[u8]) -> (Result<Announced, NoHeader>, usize) {
    let signature = *b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A";
    if data.iter().zip(signature).any(|(is, should)| *is != should) {
        return (Err(NoHeader), 16);
    }
    let (Some(fixed), Some([l0, l1])) = (data.get(12..14), data.get(14..16)) else {
        return (Ok(Announced::NotYet), 16);
    };
    let length = 16 + usize::from(*l0) * 256 + usize::from(*l1);
    if length > 1_040 {
        return (Err(NoHeader), 16);
    }
    let Some(rest) = data.get(16..length) else {
        return (Ok(Announced::NotYet), length);
    };
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let client = match fixed {
        [0x20, _] => return (Ok(Announced::Itself), length),
        [0x21, 0x11] if rest.len() >= 12 => {
            let ip = <[u8; 4]>::try_from(&rest[..4]).expect("4 bytes");
            SocketAddr::from((Ipv4Addr::from(ip), port(8)))
        }
        [0x21, 0x21] if rest.len() >= 36 => {
            let ip = <[u8; 16]>::try_from(&rest[..16]).expect("16 bytes");
            SocketAddr::from((Ipv6Addr::from(ip), port(32)))
        }
        _ => return (Err(NoHeader), length),
    };
    let ip = client.ip();
    let is_somebody = !ip.is_unspecified() && !ip.is_multicast() && client.port() != 0;
    if !is_somebody || ip == Ipv4Addr::BROADCAST {
        return (Err(NoHeader), length);
    }
    (Ok(Announced::Client(client)), length)
}
