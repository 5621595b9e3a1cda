//! The part of an event loop's turn that is about ICMP errors: only sockets that epoll reports one of are asked.

use super::{EventLoop, RELAYS, SHARED, Tokens};
use crate::udp::{self, QueuedError};
use model::PeerAddr;
use std::os::fd::AsFd;
use turn_relay_proto::{Now, RelayId};

/// Errors that are taken from a socket in one turn.
const MOST: usize = 64;

impl EventLoop {
    pub(super) fn handle_icmp_errors(&mut self, now: Now, tokens: &mut Tokens) {
        for token in tokens.now.iter().copied() {
            let mut errors = [const { None }; MOST];
            let mut taken = 0;
            let (mine, socket) = if token < RELAYS {
                let socket = self.relays.shared().get((token - SHARED) as usize);
                (None, socket)
            } else {
                let own = self.relays.at((token - RELAYS) as usize);
                own.map_or((None, None), |(relay, socket)| (Some(relay), Some(socket)))
            };
            let Some(socket) = socket else {
                continue;
            };
            while taken < MOST {
                errors[taken] = match udp::take_error(socket.as_fd()) {
                    udp::TakenError::Nothing => break,
                    udp::TakenError::Other => None,
                    udp::TakenError::Error(error) => Some(error),
                };
                taken += 1;
            }
            if taken == MOST {
                tokens.next_turn.push(token);
            }
            for error in errors.into_iter().flatten() {
                if let Some(relay) = mine.or_else(|| self.relay_of(&error)) {
                    let peer = PeerAddr(error.peer);
                    self.server.handle_peer_icmp(now, relay, peer, error.icmp);
                }
            }
        }
    }

    /// On a shared socket, what our own kernel refused does not say whose it was.
    fn relay_of(&self, error: &QueuedError) -> Option<RelayId> {
        self.relays.at_address(error.local?)
    }
}
