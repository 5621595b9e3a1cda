//! From a socket to an allocation, and to a channel: `libs/turn-client` says what to send.

use std::io;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use model::PeerAddr;
use turn_client::{Allocation, AllocationConfig, Credential, Event, Families};

use crate::cli::Server;

/// Clients that speak with the relay at a time: more would overflow its socket.
const TOGETHER: usize = 64;
/// For those.
const PATIENCE: Duration = Duration::from_secs(10);
/// What gives an allocation back may be lost.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// One client of the relay.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) socket: UdpSocket,
    pub(crate) allocation: Allocation,
    /// Who is to be let through, on a channel.
    wanted: Option<PeerAddr>,
    done: bool,
}

impl Client {
    /// Connects the socket and begins to allocate.
    ///
    /// # Errors
    /// There is no way to the server.
    pub(crate) fn new(
        socket: UdpSocket,
        server: &Server,
        wanted: Option<PeerAddr>,
    ) -> Result<Self> {
        socket
            .connect(server.server)
            .with_context(|| format!("no way to {}", server.server))?;
        let allocation = allocate(&socket, server)?;
        Ok(Self {
            socket,
            allocation,
            wanted,
            done: false,
        })
    }

    /// What stands before so many bytes for the wanted peer, once the channel is bound.
    pub(crate) fn channel_header(&mut self, len: usize) -> Option<[u8; 4]> {
        self.allocation.channel_header(self.wanted?, len)
    }

    /// Moves what there is to move; true when nothing is missing any more.
    fn turn(&mut self) -> Result<bool> {
        if self.done {
            return Ok(true);
        }
        let mut bytes = [0; 2048];
        let now = Instant::now();
        while let Some(length) = receive(&self.socket, &mut bytes)? {
            self.allocation.handle_datagram(now, &bytes[..length]);
        }
        if self.allocation.poll_timeout().is_some_and(|at| at <= now) {
            self.allocation.handle_timeout(now);
        }
        while let Some(event) = self.allocation.poll_event() {
            match event {
                Event::Allocated { .. } => match self.wanted {
                    Some(peer) => drop(self.allocation.permit(peer, now)),
                    None => self.done = true,
                },
                Event::Lost { reason } => bail!("no allocation: {reason}"),
                Event::NeedCredential => bail!("the server does not accept the credential"),
                Event::PeerReady(_) | Event::Moved | Event::NotMoved | Event::Ending { .. } => {}
            }
        }
        flush(&self.socket, &mut self.allocation)?;
        self.done |= self.channel_header(0).is_some();
        Ok(self.done)
    }
}

/// A new allocation for a connected socket.
///
/// # Errors
/// The system gives no randomness, or no name of the socket.
pub(crate) fn allocate(socket: &UdpSocket, server: &Server) -> Result<Allocation> {
    let families = if server.server.is_ipv4() {
        Families::V4
    } else {
        Families::V6
    };
    let config = AllocationConfig {
        mobile: false,
        transport: model::RelayTransport::Udp,
        server: server.server,
        local: socket.local_addr()?,
        families,
        seed: getrandom::u64().context("randomness")?,
    };
    let credential = Credential {
        username: server.user.clone(),
        password: server.password.clone(),
    };
    Ok(Allocation::new(config, credential, Instant::now()))
}

/// Sends what the allocation has to say.
///
/// # Errors
/// What the kernel says, besides that an earlier packet was refused: then it is said again later.
pub(crate) fn flush(socket: &UdpSocket, allocation: &mut Allocation) -> Result<()> {
    while let Some(datagram) = allocation.poll_transmit() {
        send(socket, &datagram)?;
    }
    Ok(())
}

/// One datagram; a refusal of an earlier one is nothing.
///
/// # Errors
/// What the kernel says.
pub(crate) fn send(socket: &UdpSocket, datagram: &[u8]) -> Result<()> {
    match socket.send(datagram) {
        Err(error) if is_nothing(&error) => {}
        sent => drop(sent.context("sending to the server")?),
    }
    Ok(())
}

/// The next datagram, if there is one.
///
/// # Errors
/// What the kernel says.
pub(crate) fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> Result<Option<usize>> {
    match socket.recv(bytes) {
        Ok(length) => Ok(Some(length)),
        Err(error) if is_nothing(&error) => Ok(None),
        Err(error) => Err(error).context("receiving from the server"),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused
    )
}

/// Goes on until every client has what it wants.
///
/// # Errors
/// The server refuses one, or stays silent.
pub(crate) fn complete(clients: &mut [Client]) -> Result<()> {
    for group in clients.chunks_mut(TOGETHER) {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut missing = 0;
            for client in &mut *group {
                missing += usize::from(!client.turn()?);
            }
            if missing == 0 {
                break;
            }
            if Instant::now() > until {
                bail!("{missing} allocations did not come about within {PATIENCE:?}");
            }
            thread::yield_now();
        }
    }
    Ok(())
}

/// Gives allocations back and waits until the relay says so: what it still had would be in the next run's way, whose
/// sockets may have the same ports.
///
/// # Errors
/// What the kernel says; the relay stays silent.
pub(crate) fn give_back<'a>(
    all: impl Iterator<Item = (&'a UdpSocket, &'a mut Allocation)>,
) -> Result<()> {
    let mut left: Vec<(&UdpSocket, Vec<u8>)> = Vec::new();
    for (socket, allocation) in all {
        allocation.close(Instant::now());
        let last = allocation.poll_transmit();
        left.extend(last.map(|message| (socket, message)));
    }
    let until = Instant::now() + PATIENCE;
    while !left.is_empty() {
        if Instant::now() > until {
            let count = left.len();
            bail!("{count} allocations were not given back within {PATIENCE:?}");
        }
        let mut silent = Vec::new();
        for group in left.chunks(TOGETHER) {
            silent.extend(give_back_together(group)?);
        }
        left = silent;
    }
    Ok(())
}

/// Those of whom nothing was heard for a while.
fn give_back_together<'a>(
    group: &[(&'a UdpSocket, Vec<u8>)],
) -> Result<Vec<(&'a UdpSocket, Vec<u8>)>> {
    for (socket, message) in group {
        send(socket, message)?;
    }
    let until = Instant::now() + ASKED_AGAIN_AFTER;
    let mut silent = group.to_vec();
    let mut answer = [0; 2048];
    while !silent.is_empty() && Instant::now() < until {
        let mut error = None;
        silent.retain(|(socket, _)| match receive(socket, &mut answer) {
            Ok(Some(length)) => !is_answer_to_refresh(&answer[..length]),
            Ok(None) => true,
            Err(failed) => {
                error = Some(failed);
                true
            }
        });
        error.map_or(Ok(()), Err)?;
        thread::yield_now();
    }
    Ok(silent)
}

/// Whether it is a success or an error (RFC 8489 section 5): there is no such allocation any more either way.
fn is_answer_to_refresh(datagram: &[u8]) -> bool {
    matches!(datagram, [0x01, 0x04 | 0x14, ..])
}
