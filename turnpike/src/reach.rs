//! Trying a service as a workload would: TCP connections and echo requests to a virtual IP.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use explain::facts::{Outcome, Probe};
use socket2::{Domain, Protocol, Socket, Type};

/// Connects to a TCP port, for this long at most.
pub(crate) fn tcp(address: IpAddr, port: u16, patience: Duration) -> Probe {
    let begin = Instant::now();
    let connected = TcpStream::connect_timeout(&SocketAddr::new(address, port), patience);
    let outcome = match connected {
        Ok(_) => Outcome::Open,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Outcome::Closed,
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::Silent,
            // This machine has no route at all, or something came back.
            io::ErrorKind::NetworkUnreachable => Outcome::NotSent(error.to_string()),
            io::ErrorKind::HostUnreachable => Outcome::Unreachable,
            _ => Outcome::NotSent(error.to_string()),
        },
    };
    Probe {
        address,
        port,
        outcome,
        ms: begin.elapsed().as_secs_f64() * 1_000.0,
    }
}

/// Sends one ICMP echo request, an IP packet of `bytes` in all, and waits for its answer. `None`: nothing came back.
///
/// # Errors
/// When this process may not, or the kernel does not send.
pub(crate) fn echo(
    address: IpAddr,
    bytes: usize,
    sequence: u16,
    patience: Duration,
) -> io::Result<Option<Duration>> {
    let (domain, protocol, header, request, reply) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 20, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 40, 128, 129),
    };
    // Whoever is in ping_group_range needs no privilege for it.
    let (mut socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
        Ok(socket) => (socket, false),
        Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
    };
    socket.connect(&SocketAddr::new(address, 0).into())?;
    let id = (std::process::id() & 0xffff) as u16;
    let mut packet = vec![0; bytes.saturating_sub(header).max(8)];
    packet[0] = request;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    if address.is_ipv4() {
        // The kernel does it for ICMPv6.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    let begin = Instant::now();
    match socket.write_all(&packet) {
        Ok(()) => {}
        // Longer than the path is known to take by now: that is an answer, too.
        Err(error) if error.raw_os_error() == Some(EMSGSIZE) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut answer = vec![0; bytes + 64];
    loop {
        let left = patience.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.read(&mut answer) {
            Ok(length) => length,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(None);
            }
            // An ICMP error, of this packet or of one before.
            Err(_) => return Ok(None),
        };
        // A raw IPv4 socket gives the IP header, too.
        let skip = if raw && address.is_ipv4() {
            usize::from(answer[0] & 0x0f) * 4
        } else {
            0
        };
        let message = answer.get(skip..length).unwrap_or_default();
        let ours = message.first() == Some(&reply)
            && message.get(6..8) == Some(&sequence.to_be_bytes())
            && (!raw || message.get(4..6) == Some(&id.to_be_bytes()));
        if ours {
            return Ok(Some(begin.elapsed()));
        }
    }
}

const EMSGSIZE: i32 = 90;

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn ports_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(tcp(open.ip(), open.port(), second).outcome, Outcome::Open);
        drop(listener);
        assert_eq!(tcp(open.ip(), open.port(), second).outcome, Outcome::Closed);
    }

    #[test]
    fn a_checksum_makes_the_sum_of_all_words_minus_zero() {
        let mut packet = *b"\x08\x00\x00\x00\x12\x34\x00\x01turnpike!";
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(checksum(&packet), 0);
    }
}
