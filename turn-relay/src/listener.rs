//! The sockets that clients send to: for each address one per event loop, so that none is shared.

use crate::handover::InheritedListeners;
use crate::udp::{self, Io, SocketOptions};
use model::ServerAddr;
use service_kit::ConfigError;
use std::io;
use std::net::{IpAddr, UdpSocket};

/// One event loop's socket for one address.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: UdpSocket,
    /// With the port that the kernel chose, if 0 was asked for.
    pub(crate) address: ServerAddr,
}

impl Listener {
    /// The source address to send from, where the socket alone does not tell.
    pub(crate) fn source(&self, server: ServerAddr) -> Option<IpAddr> {
        self.address.0.ip().is_unspecified().then(|| server.0.ip())
    }

    /// Whether what is sent to `server` arrives here.
    pub(crate) fn serves(&self, server: ServerAddr) -> bool {
        self.address == server
            || (self.address.0.ip().is_unspecified()
                && self.address.0.port() == server.0.port()
                && self.address.0.is_ipv4() == server.0.is_ipv4())
    }
}

/// Binds all addresses for all event loops, or takes what a predecessor bound: `result[n]` are the listeners of event
/// loop `n`.
///
/// # Errors
/// When one cannot be bound: one line, and exit code 1.
pub(crate) fn bind(
    listen: &[ServerAddr],
    threads: u16,
    io: Io,
    transport: &str,
    inherited: &mut InheritedListeners,
) -> Result<Vec<Vec<Listener>>, ConfigError> {
    let mut per_thread: Vec<Vec<Listener>> = (0..threads).map(|_| Vec::new()).collect();
    for address in listen {
        let failed = |error: io::Error| ConfigError::listen("listen", address.0, &error);
        let bound = match inherited.claim(transport, address.0) {
            Some((address, sockets)) => sockets
                .into_iter()
                .map(|socket| Listener {
                    socket: socket.into(),
                    address: ServerAddr(address),
                })
                .collect(),
            None => bind_one(*address, threads, io).map_err(failed)?,
        };
        for (listeners, listener) in per_thread.iter_mut().zip(bound) {
            listeners.push(listener);
        }
    }
    Ok(per_thread)
}

fn bind_one(address: ServerAddr, threads: u16, io: Io) -> io::Result<Vec<Listener>> {
    let mut options = SocketOptions {
        reuse_port: false,
        // Answers must come from the address that was asked.
        local_address: address.0.ip().is_unspecified(),
        gro: io.joins(),
        ..SocketOptions::default()
    };
    // With SO_REUSEPORT a second relay would silently get half of the clients of the first: so first without.
    let alone = udp::bind(address.0, &options)?;
    let address = ServerAddr(alone.local_addr()?);
    if threads == 1 {
        return Ok(vec![Listener {
            socket: alone,
            address,
        }]);
    }
    drop(alone);
    options.reuse_port = true;
    let listeners: io::Result<Vec<_>> = (0..threads)
        .map(|_| {
            let socket = udp::bind(address.0, &options)?;
            Ok(Listener { socket, address })
        })
        .collect();
    let listeners = listeners?;
    listeners
        .iter()
        .for_each(|listener| empty(&listener.socket));
    Ok(listeners)
}

/// From here on the kernel gives a client always to the same socket: it chooses by the hash of both addresses, among
/// sockets that stay the same. What came while they were still fewer may be with the wrong one; clients say it again.
fn empty(socket: &UdpSocket) {
    /// More than fit into its buffer.
    const MOST: usize = 1 << 16;
    (0..MOST).find(|_| socket.recv(&mut [0; 1]).is_err());
}
