//! A flow: a client with its allocation, and a peer.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use model::PeerAddr;
use turn_client::Allocation;

use crate::cli::{Direction, Load};
use crate::forward;
use crate::handshake::{self, Client};
use crate::payload::{Progress, Stamp};
use crate::socket::{FlowSocket, PATIENT, any, towards};

#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) client: FlowSocket,
    pub(crate) peer: FlowSocket,
    /// What stands before each payload on the client's side.
    pub(crate) channel: Option<[u8; 4]>,
    /// Of the next packet.
    pub(crate) sequence: u64,
    pub(crate) progress: Progress,
    /// What was agreed with the relay, if it is one.
    allocation: Option<Allocation>,
}

impl Flow {
    /// The sockets that packets enter and leave by.
    pub(crate) const fn ends(&self, direction: Direction) -> (&FlowSocket, &FlowSocket) {
        match direction {
            Direction::ClientToPeer => (&self.client, &self.peer),
            Direction::PeerToClient => (&self.peer, &self.client),
        }
    }

    /// What was agreed with the relay, if it is one, and the socket for it.
    pub(crate) fn allocation(&mut self) -> Option<(&UdpSocket, &mut Allocation)> {
        let allocation = self.allocation.as_mut()?;
        Some((&self.client.io, allocation))
    }

    /// The stamp of the next packet.
    pub(crate) const fn next(&self, flow: u32, sent: u64) -> Stamp {
        Stamp {
            flow,
            sequence: self.sequence,
            sent,
        }
    }
}

/// Opens all flows of a load.
///
/// # Errors
/// The server does not answer or refuses, or there are no sockets.
pub(crate) fn open(load: &Load) -> Result<Vec<Flow>> {
    let server = load.server.server;
    let client_ip = load.server.client.unwrap_or(any(server.ip()));
    let peer_ip = match load.peer {
        Some(ip) => ip,
        None => towards(server)?,
    };
    let mut sockets = Vec::new();
    for _ in 0..load.flows {
        sockets.push((
            FlowSocket::bind(client_ip, PATIENT)?,
            FlowSocket::bind(peer_ip, PATIENT)?,
        ));
    }
    if load.direct {
        return sockets
            .into_iter()
            .map(|(client, peer)| direct(client, peer))
            .collect();
    }
    if load.forwarder {
        let size = load.size as u16;
        return sockets
            .into_iter()
            .map(|(client, peer)| forwarded(client, peer, server, client_ip, size))
            .collect();
    }
    relayed(load, sockets)
}

const fn flow(
    client: FlowSocket,
    peer: FlowSocket,
    channel: Option<[u8; 4]>,
    allocation: Option<Allocation>,
) -> Flow {
    Flow {
        client,
        peer,
        channel,
        sequence: 0,
        progress: Progress::START,
        allocation,
    }
}

/// Both ends are connected to one another. The framing is left as it is, so that the lengths are the same.
fn direct(client: FlowSocket, peer: FlowSocket) -> Result<Flow> {
    let ip = match client.io.local_addr()?.ip() {
        ip if ip.is_unspecified() => peer.io.local_addr()?.ip(),
        ip => ip,
    };
    let (client_at, peer_at) = (
        SocketAddr::new(ip, client.io.local_addr()?.port()),
        peer.io.local_addr()?,
    );
    client.io.connect(peer_at)?;
    peer.io.connect(client_at)?;
    Ok(flow(client, peer, None, None))
}

fn relayed(load: &Load, sockets: Vec<(FlowSocket, FlowSocket)>) -> Result<Vec<Flow>> {
    let mut clients = Vec::new();
    for (client, peer) in &sockets {
        let wanted = Some(PeerAddr(peer.io.local_addr()?));
        clients.push(Client::new(client.io.try_clone()?, &load.server, wanted)?);
    }
    handshake::complete(&mut clients)?;
    let mut flows = Vec::new();
    for ((client, peer), mut done) in sockets.into_iter().zip(clients) {
        let relayed = done
            .allocation
            .relayed()
            .first()
            .context("no relayed address")?;
        peer.io.connect(relayed.0)?;
        let channel = done.channel_header(load.size as usize);
        let channel = Some(channel.context("no channel")?);
        flows.push(flow(client, peer, channel, Some(done.allocation)));
    }
    Ok(flows)
}

/// Asks the forwarder for a way between the two.
fn forwarded(
    client: FlowSocket,
    peer: FlowSocket,
    server: SocketAddr,
    client_ip: IpAddr,
    size: u16,
) -> Result<Flow> {
    let ask = UdpSocket::bind((client_ip, 0))?;
    ask.set_read_timeout(Some(Duration::from_secs(2)))?;
    ask.connect(server)?;
    let client_at = match client_ip {
        ip if ip.is_unspecified() => {
            SocketAddr::new(towards(server)?, client.io.local_addr()?.port())
        }
        ip => SocketAddr::new(ip, client.io.local_addr()?.port()),
    };
    let question = forward::Question {
        client: client_at,
        peer: peer.io.local_addr()?,
        size,
    };
    ask.send(question.encode().as_bytes())?;
    let mut bytes = [0; 256];
    let length = match ask.recv(&mut bytes) {
        Ok(length) => length,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            bail!("no forwarder at {server}")
        }
        Err(error) => return Err(error).context("asking the forwarder"),
    };
    let answer = forward::Answer::decode(&String::from_utf8_lossy(&bytes[..length]))?;
    client.io.connect(answer.front)?;
    peer.io.connect(answer.back)?;
    Ok(flow(client, peer, Some(forward::header(size)), None))
}
