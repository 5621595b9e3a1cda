use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::burst::{Burst, BurstBatch};
use crate::interface::interface_addresses;
use crate::poller::Poller;
use crate::send_batch::SendBatch;
use crate::udp::{UdpOptions, UdpSocket};

/// One UDP socket per address of this host, shared by all sessions: what ICE calls the bases of the host
/// candidates ([RFC 8445 section 5.1.1.1](https://www.rfc-editor.org/rfc/rfc8445#section-5.1.1.1)).
#[derive(Debug)]
pub struct HostSockets {
    sockets: Vec<HostSocket>,
    port: u16,
    except: Vec<String>,
    batch: BurstBatch,
}

#[derive(Debug)]
struct HostSocket {
    socket: UdpSocket,
    outbound: SendBatch,
    blocked: bool,
    /// What the poller was told of `blocked`.
    watched: bool,
    unreported: HostFlush,
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
        let mut bound = Self {
            sockets: Vec::new(),
            port,
            except: except.iter().map(|&name| name.to_owned()).collect(),
            batch: BurstBatch::new(),
        };
        for address in bound.usable()? {
            let socket = HostSocket::bind(SocketAddr::new(address, port))?;
            bound.sockets.push(socket);
        }
        Ok(bound)
    }

    /// Closes sockets whose address is gone, and binds one to each that is new. One that cannot be bound yet, such as an
    /// IPv6 address that may still be another's, is left for the next time. Whether anything changed.
    ///
    /// # Errors
    ///
    /// When the addresses cannot be listed, or a socket cannot be watched.
    pub fn refresh(&mut self, poller: &Poller) -> io::Result<bool> {
        let usable = self.usable()?;
        let before = self.sockets.len();
        self.sockets
            .retain(|host| usable.contains(&host.socket.local_addr().ip()));
        let mut changed = self.sockets.len() != before;
        for address in usable {
            let same = |host: &HostSocket| host.socket.local_addr().ip() == address;
            if self.sockets.iter().any(same) {
                continue;
            }
            let Ok(host) = HostSocket::bind(SocketAddr::new(address, self.port)) else {
                continue;
            };
            poller.watch(&host.socket, false)?;
            self.sockets.push(host);
            changed = true;
        }
        Ok(changed)
    }

    fn usable(&self) -> io::Result<Vec<IpAddr>> {
        let found = interface_addresses()?.into_iter();
        let usable = found.filter(|found| {
            !self.except.contains(&found.interface) && !is_link_local(found.address)
        });
        Ok(usable.map(|found| found.address).collect())
    }

    /// The addresses bound.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets
            .iter()
            .map(|host| host.socket.local_addr())
            .collect()
    }

    /// Has the poller watch all sockets.
    ///
    /// # Errors
    ///
    /// See [`Poller::watch`].
    pub fn watch(&self, poller: &Poller) -> io::Result<()> {
        let mut sockets = self.sockets.iter();
        sockets.try_for_each(|host| poller.watch(&host.socket, false))
    }

    /// Takes one batch from each socket that the poller found ready and calls `each` with every burst.
    pub fn receive(&mut self, poller: &Poller, mut each: impl FnMut(Burst)) {
        for host in &self.sockets {
            if poller.is_ready(&host.socket) {
                // What the kernel reports here concerns one earlier destination (ICMP), never the socket.
                let _ = host.socket.try_recv_bursts(&mut self.batch, &mut each);
            }
        }
    }

    /// Sends datagrams of `segment` bytes, the last may be shorter, from the socket bound to `local`: a burst at once,
    /// one alone with the next [`Self::flush`] or before the next burst, so that neighbors are joined. The order is
    /// kept; what the kernel does not take and the queue has no room for is counted by the next flush. `false`: there
    /// is no such socket.
    pub fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
        segment: usize,
    ) -> bool {
        let found = |host: &&mut HostSocket| host.socket.local_addr() == local;
        self.sockets
            .iter_mut()
            .find(found)
            .is_some_and(|host| host.send(remote, payload, segment.max(1)))
    }

    /// Sends what is queued, as far as the kernel takes it, and has the poller say when it takes more.
    pub fn flush(&mut self, poller: &Poller) -> HostFlush {
        let mut total = HostFlush::default();
        for host in &mut self.sockets {
            host.flush();
            let HostFlush { sent, refused } = std::mem::take(&mut host.unreported);
            total.sent += sent;
            total.refused += refused;
            if std::mem::replace(&mut host.watched, host.blocked) != host.blocked {
                // It was watched before, so it can be.
                let _ = poller.watch(&host.socket, host.blocked);
            }
        }
        total
    }
}

impl HostSocket {
    fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            socket: UdpSocket::bind(address, UdpOptions::default())?,
            outbound: SendBatch::default(),
            blocked: false,
            watched: false,
            unreported: HostFlush::default(),
        })
    }

    fn send(&mut self, remote: SocketAddr, payload: &[u8], segment: usize) -> bool {
        let mut rest = payload;
        if payload.len() > segment {
            self.flush();
            if self.outbound.is_empty() {
                match self.socket.try_send(remote, payload, Some(segment)) {
                    Ok(bytes) => {
                        self.unreported.sent += bytes.div_ceil(segment);
                        rest = payload.get(bytes..).unwrap_or_default();
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => {
                        self.unreported.refused += payload.len().div_ceil(segment);
                        return true;
                    }
                }
            }
        }
        for datagram in rest.chunks(segment) {
            if self.outbound.push(None, remote, &[datagram]).is_err() {
                self.unreported.refused += 1;
            }
        }
        true
    }

    fn flush(&mut self) {
        if self.outbound.is_empty() {
            self.blocked = false;
            return;
        }
        let flushed = self.outbound.flush(&self.socket);
        self.blocked = flushed.blocked;
        self.unreported.sent += flushed.sent;
        self.unreported.refused += flushed.refused;
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}
