//! Strangers: Allocate requests without credentials, each from another address of 127.0.0.0/8 and another /24, as spoofed
//! ones would come.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};

/// Addresses that take turns.
pub(crate) const SOURCES: u64 = 2_048;
/// What is sent in a row.
const BURST: u64 = 16;
/// An Allocate with REQUESTED-TRANSPORT for UDP, as browsers send it; the transaction comes in.
const REQUEST: [u8; 28] = [
    0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x19, 0, 4, 17, 0,
    0, 0,
];

/// Sends at a rate, from the loop that sends and receives everything else.
#[derive(Debug)]
pub(crate) struct Flood {
    server: SocketAddr,
    sources: Vec<UdpSocket>,
    /// Nanoseconds from burst to burst.
    interval: u64,
    due: u64,
    pub(crate) sent: u64,
}

impl Flood {
    /// So many requests per second, at least 1.
    ///
    /// # Errors
    /// The server is not on IPv4 loopback, where all addresses are ours; or there are no more sockets.
    pub(crate) fn new(server: SocketAddr, rate: u64) -> Result<Self> {
        ensure!(
            matches!(server.ip(), IpAddr::V4(ip) if ip.is_loopback()),
            "a flood is only for a server on 127.0.0.0/8"
        );
        let sources: Result<Vec<_>> = (0..SOURCES)
            .map(|n| {
                let (high, low) = ((n >> 8) as u8, n as u8);
                let socket = UdpSocket::bind((Ipv4Addr::new(127, 100 + high, low, 1), 0))
                    .context("a socket for a source of the flood")?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            })
            .collect();
        Ok(Self {
            server,
            sources: sources?,
            interval: BURST * 1_000_000_000 / rate.max(1),
            due: 0,
            sent: 0,
        })
    }

    /// Sends what is due, one burst at most. `now` in nanoseconds.
    pub(crate) fn poll(&mut self, now: u64) {
        if now < self.due {
            return;
        }
        // What could not be sent in time is not caught up with beyond a few bursts.
        self.due = (self.due + self.interval).max(now.saturating_sub(8 * self.interval));
        let mut request = REQUEST;
        for _ in 0..BURST {
            request[8..16].copy_from_slice(&self.sent.to_be_bytes());
            let source = &self.sources[(self.sent % SOURCES) as usize];
            // A full buffer is a loss like any other.
            self.sent += u64::from(source.send_to(&request, self.server).is_ok());
        }
    }
}
