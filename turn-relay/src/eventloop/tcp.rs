//! The part of an event loop's turn that is about TCP to peers.

use super::{EventLoop, StreamTurn};
use crate::tcp_relay::{self, TcpEvent};
use crate::udp::SendPlan;
use turn_relay_proto::Now;

impl EventLoop {
    /// Peers that connect, connections to peers that came up, and what joined connections have to carry.
    pub(super) fn handle_tcp_events(
        &mut self,
        now: Now,
        turn: &mut StreamTurn,
        plan: &mut SendPlan,
    ) {
        self.tcp.handle_timeout(now.instant, &self.epoll);
        let mut ready = std::mem::take(&mut turn.tcp_ready);
        for event in ready.drain(..) {
            match tcp_relay::event(event.data()) {
                None => {}
                Some(TcpEvent::Listening(slot)) => {
                    let server = &mut self.server;
                    let name = |relay, peer| server.handle_peer_accepted(now, relay, peer);
                    self.tcp.accept(slot, now.instant, &self.epoll, name);
                }
                Some(TcpEvent::Connecting(number)) => {
                    if let Some((relay, connection, is_up)) =
                        self.tcp.on_connected(number, &self.epoll)
                        && !self
                            .server
                            .handle_peer_connected(now, relay, connection, is_up)
                    {
                        self.tcp.close_peer(connection);
                    }
                }
                Some(TcpEvent::Joined { index, peer }) => {
                    self.streams.carry_joined(
                        index,
                        peer,
                        event.events(),
                        now.instant,
                        &mut turn.buffer,
                    );
                }
            }
        }
        turn.tcp_ready = ready;
        self.streams.carry_again(now.instant, &mut turn.buffer);
        self.drain_outputs(now, plan);
    }

    /// What ended on one side ends on the other.
    pub(super) fn end_joined(&mut self) {
        while let Some(connection) = self.streams.poll_joined_ended() {
            self.server.handle_peer_connection_closed(connection);
            self.tcp.sockets().close(connection);
        }
    }
}
