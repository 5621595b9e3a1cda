//! What event loops say to each other: an allocation that goes with its client to another loop, and its sockets with it.

use super::{EventLoop, watch_relay};
use crate::control::{Control, ControlSender};
use std::net::UdpSocket;
use turn_relay_proto::{Now, RelayId, ShardMessage};

impl EventLoop {
    /// All loops, this one among them, in the order of their numbers.
    pub(crate) fn set_shards(&mut self, own: u16, all: Vec<ControlSender>) {
        self.server.set_shard(own);
        self.shards = all;
    }

    pub(super) fn tell_shard(&mut self, shard: u16, message: ShardMessage, relays: &[RelayId]) {
        let mut sockets = Vec::new();
        for relay in relays {
            if let Some(socket) = self.relays.give_away(*relay) {
                // It is watched: nothing is needed that could be missing.
                let _ = self.epoll.delete(&socket);
                sockets.push(socket);
            }
        }
        if let Some(to) = self.shards.get(usize::from(shard)) {
            to.send(Control::Shard {
                message: Box::new(message),
                sockets,
            });
        }
    }

    pub(super) fn handle_shard(
        &mut self,
        now: Now,
        message: ShardMessage,
        sockets: Vec<UdpSocket>,
    ) {
        let relays = self.server.handle_shard_message(now, message);
        for (relay, socket) in relays.into_iter().zip(sockets) {
            // If it cannot be, it can still be sent from.
            let _ = watch_relay(&self.epoll, relay, &socket);
            self.relays.take_over(relay, socket);
            if let Some(path) = self.server.path_of(relay) {
                self.streams.handle_allocation(now.instant, path, true);
            }
        }
    }
}
