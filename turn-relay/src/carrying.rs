//! From a received batch to a plan of what is sent: the mind is asked once for each run of equal datagrams.

use crate::listener::Listener;
use crate::relay_sockets::RelaySockets;
use crate::stream::StreamOut;
use crate::udp::{Outgoing, Received, RecvBatch, Taken};
use model::{ClientAddr, PeerAddr, ServerAddr};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use turn_relay_proto::{
    Burst, Direction, DropReason, FiveTuple, Now, Payloads, RelayId, Server, Traffic, Transport,
    Verdict,
};
use wire::stream::Frames;

/// The type of a ConnectionBind request (RFC 6062 section 6.1).
const CONNECTION_BIND: [u8; 2] = [0x00, 0x0B];

/// The mind, the sockets (`'b`), and the plans between them for what was received (`'d`).
#[derive(Debug)]
pub(crate) struct Carrying<'s, 'p, 'b, 'd> {
    pub(crate) now: Now,
    pub(crate) server: &'s mut Server,
    pub(crate) listeners: &'b [Listener],
    pub(crate) relays: &'b RelaySockets,
    pub(crate) out: Outgoing<'p, 'b>,
    pub(crate) streams: StreamOut<'d>,
}

impl<'b, 'd: 'b> Carrying<'_, '_, 'b, 'd> {
    /// A batch from a listener.
    pub(crate) fn carry_clients(&mut self, index: usize, batch: &'d mut RecvBatch) -> Taken {
        let Some(listener) = self.listeners.get(index) else {
            return Taken::default();
        };
        let (batch, taken) = fill(batch, listener.socket.as_fd());
        for received in (0..taken.buffers).filter_map(|at| batch.get(at)) {
            let path = FiveTuple {
                client: ClientAddr(received.source),
                server: server_address(listener, &received),
                transport: Transport::Udp,
            };
            let mut rest = Some(received.burst());
            while let Some(burst) = rest {
                let (verdict, count) = self.server.handle_client_burst(self.now, path, burst);
                self.carry_out(verdict, burst, count);
                rest = burst.after(count);
            }
        }
        taken
    }

    /// The frames of a connection; what of them is for peers is added to `to_peer`. Whether it stopped after a request
    /// that may make what follows it no frames any more.
    pub(crate) fn carry_stream(
        &mut self,
        path: FiveTuple,
        frames: &mut Frames<'d>,
        to_peer: &mut Traffic,
    ) -> bool {
        while let Some((run, stride)) = frames.next_run() {
            self.carry_counted(path, Burst::new(run, stride), to_peer);
            if run.starts_with(&CONNECTION_BIND) {
                return true;
            }
        }
        false
    }

    /// One message of a client of DTLS; what of it is for a peer is added to `to_peer`.
    pub(crate) fn carry_message(
        &mut self,
        path: FiveTuple,
        message: &'d [u8],
        to_peer: &mut Traffic,
    ) {
        self.carry_counted(path, Burst::one(message), to_peer);
    }

    /// A burst of a client with a connection or a session, where what is for peers is counted.
    fn carry_counted(&mut self, path: FiveTuple, burst: Burst<'d>, to_peer: &mut Traffic) {
        let mut rest = Some(burst);
        while let Some(burst) = rest {
            let (verdict, count) = self.server.handle_client_burst(self.now, path, burst);
            // To a client, by the short cut: its peer all the same.
            if let Verdict::ToPeer { payload, .. } | Verdict::ToClient { payload, .. } = &verdict {
                to_peer.packets += count as u64;
                to_peer.bytes += (count * payload.len()) as u64;
            }
            self.carry_out(verdict, burst, count);
            rest = burst.after(count);
        }
    }

    /// A batch from the socket of a relayed address.
    pub(crate) fn carry_peers(&mut self, slot: usize, batch: &'d mut RecvBatch) -> Taken {
        // It may have been closed since it was found ready.
        let Some((relay, socket)) = self.relays.at(slot) else {
            return Taken::default();
        };
        let (batch, taken) = fill(batch, socket.as_fd());
        for received in (0..taken.buffers).filter_map(|at| batch.get(at)) {
            self.carry_peer(relay, &received);
        }
        taken
    }

    /// A batch from a socket that relayed addresses share.
    pub(crate) fn carry_shared(&mut self, index: usize, batch: &'d mut RecvBatch) -> Taken {
        let Some(socket) = self.relays.shared().get(index) else {
            return Taken::default();
        };
        let (batch, taken) = fill(batch, socket.as_fd());
        for received in (0..taken.buffers).filter_map(|at| batch.get(at)) {
            let relay = received.local.and_then(|ip| self.relays.at_address(ip));
            match relay {
                Some(relay) => self.carry_peer(relay, &received),
                None => {
                    let dropped = &mut self.server.stats_mut().dropped;
                    dropped[DropReason::RelayClosed as usize] += received.count();
                }
            }
        }
        taken
    }

    fn carry_peer(&mut self, relay: RelayId, received: &Received<'d>) {
        let peer = PeerAddr(received.source);
        let mut rest = Some(received.burst());
        while let Some(burst) = rest {
            let (verdict, count) = self.server.handle_peer_burst(self.now, relay, peer, burst);
            self.carry_out(verdict, burst, count);
            rest = burst.after(count);
        }
    }

    /// Puts a verdict about the first `count` datagrams of a burst into the plan.
    #[inline]
    fn carry_out(&mut self, verdict: Verdict<'d>, burst: Burst<'d>, count: usize) {
        match verdict {
            Verdict::ToPeer {
                relay,
                peer,
                payload,
                dont_fragment,
            } => {
                if let Some((socket, from)) = self.relays.sender(relay)
                    && let Some(payloads) = burst.payloads(payload, count)
                {
                    if dont_fragment {
                        // Each Send indication is decided about alone.
                        self.out.push_whole(socket, peer.0, from, payload);
                        return;
                    }
                    let parts = (&[][..], payloads, 0);
                    self.out
                        .push(socket, peer.0, from, Direction::ToPeer, parts);
                }
            }
            Verdict::ToClient {
                path,
                prefix,
                payload,
                padding,
            } => {
                if let Some(connection) = path.transport.connection() {
                    let payloads = burst.payloads(payload, count);
                    for payload in payloads.iter().flat_map(Payloads::iter) {
                        self.streams.push(connection, prefix.as_bytes(), payload);
                    }
                    return;
                }
                let serves = |listener: &&Listener| listener.serves(path.server);
                if let Some(listener) = self.listeners.iter().find(serves)
                    && let Some(payloads) = burst.payloads(payload, count)
                {
                    let parts = (prefix.as_bytes(), payloads, padding);
                    let socket = listener.socket.as_fd();
                    let from = listener.source(path.server);
                    self.out
                        .push(socket, path.client.0, from, Direction::ToClient, parts);
                }
            }
            Verdict::Handled | Verdict::Dropped(_) => {}
        }
    }
}

fn fill<'b>(batch: &'b mut RecvBatch, socket: BorrowedFd<'_>) -> (&'b RecvBatch, Taken) {
    let taken = batch.fill(socket).unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot receive");
        // Reported once for an edge: what is behind the error is still there.
        Taken {
            more: true,
            ..Taken::default()
        }
    });
    (batch, taken)
}

/// Which of our addresses it was sent to.
pub(crate) fn server_address(listener: &Listener, received: &Received<'_>) -> ServerAddr {
    match received.local {
        Some(ip) => ServerAddr(SocketAddr::new(ip, listener.address.0.port())),
        None => listener.address,
    }
}
