use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use crate::interface::interface_addresses;
use crate::recv_batch::{Meta, RecvBatch};
use crate::send_batch::SendBatch;
use crate::udp::{UdpOptions, UdpSocket};

/// One UDP socket per address of this host, shared by all sessions: what ICE calls the bases of the host
/// candidates ([RFC 8445 section 5.1.1.1](https://www.rfc-editor.org/rfc/rfc8445#section-5.1.1.1)).
#[derive(Debug)]
pub struct HostSockets {
    sockets: Vec<HostSocket>,
    batch: RecvBatch,
}

#[derive(Debug)]
struct HostSocket {
    socket: UdpSocket,
    outbound: SendBatch,
    blocked: bool,
}

/// What [`HostSockets::flush`] did.
#[derive(Debug, Default, Clone, Copy)]
pub struct HostFlush {
    /// Datagrams that the kernel took.
    pub sent: usize,
    /// Datagrams that it refused.
    pub refused: usize,
}

impl HostSockets {
    /// Binds a socket to each address that is up, is neither loopback nor link-local, and is not on one of the
    /// interfaces named in `except`. `port` 0: the kernel chooses for each.
    ///
    /// # Errors
    ///
    /// When the addresses cannot be listed or one cannot be bound.
    pub fn bind(port: u16, except: &[&str]) -> io::Result<Self> {
        let mut sockets = Vec::new();
        for found in interface_addresses()? {
            if except.contains(&found.interface.as_str()) || is_link_local(found.address) {
                continue;
            }
            let address = SocketAddr::new(found.address, port);
            sockets.push(HostSocket {
                socket: UdpSocket::bind(address, UdpOptions::default())?,
                outbound: SendBatch::default(),
                blocked: false,
            });
        }
        Ok(Self {
            sockets,
            batch: RecvBatch::new(),
        })
    }

    /// The addresses bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets
            .iter()
            .map(|host| host.socket.local_addr())
            .collect()
    }

    /// Ready when a datagram may be waiting on any socket, or a blocked one may send again.
    pub fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut ready = false;
        for host in &self.sockets {
            ready |= host.socket.poll_readable(context).is_ready();
            ready |= host.blocked && host.socket.poll_writable(context).is_ready();
        }
        if ready {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Takes one batch from each socket and calls `each` with every datagram. Returns how many there were.
    pub fn receive(&mut self, mut each: impl FnMut(&mut [u8], Meta)) -> usize {
        let mut received = 0;
        for host in &self.sockets {
            // What the kernel reports here concerns one earlier destination (ICMP), never the socket.
            received += host
                .socket
                .try_recv_batch(&mut self.batch, &mut each)
                .unwrap_or(0);
        }
        received
    }

    /// Queues a datagram on the socket bound to `local`; `false` when there is none or its queue is full.
    pub fn push(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8]) -> bool {
        self.sockets
            .iter_mut()
            .find(|host| host.socket.local_addr() == local)
            .is_some_and(|host| host.outbound.push(None, remote, &[payload]).is_ok())
    }

    /// Sends what is queued, as far as the kernel takes it.
    pub fn flush(&mut self) -> HostFlush {
        let mut total = HostFlush::default();
        for host in &mut self.sockets {
            if host.outbound.is_empty() {
                host.blocked = false;
                continue;
            }
            let flushed = host.outbound.flush(&host.socket);
            host.blocked = flushed.blocked;
            total.sent += flushed.sent;
            total.refused += flushed.refused;
        }
        total
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
