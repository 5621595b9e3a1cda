//! To another five-tuple, over whatever transport, with all that belongs to it
//! ([RFC 8016](https://www.rfc-editor.org/rfc/rfc8016)).
//!
//! A move loses nothing: what was sent the old way has arrived before the relay is asked (a fence: an answer to a
//! request that was sent after it), what is to be sent meanwhile the shell holds back, and what the relay sent the old
//! way before it knew is still read there.

use std::net::SocketAddr;
use std::time::Instant;

use model::RelayTransport;
use stun_types::attribute::AttributeType;
use wire::stun::Message;

use super::{Allocation, Phase};
use crate::input::AllocationConfig;
use crate::output::{Event, LostReason};
use crate::transaction::Request;

/// [RFC 8016 section 3.5](https://www.rfc-editor.org/rfc/rfc8016#section-3.5).
pub(super) const MOBILITY_TICKET: AttributeType = AttributeType::new(0x8030);
/// Longer tickets are not kept.
const MAX_TICKET: usize = 512;

/// Where it is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    transport: RelayTransport,
    server: SocketAddr,
    local: SocketAddr,
    /// The relay was asked, the new way.
    asked: bool,
}

impl Move {
    pub(super) const fn transport(&self) -> RelayTransport {
        self.transport
    }

    /// Only the relay has to be told, who takes us for somebody else.
    pub(super) fn is_where(&self, config: &AllocationConfig) -> bool {
        (self.transport, self.server, self.local) == (config.transport, config.server, config.local)
    }
}

/// What comes of [`Allocation::move_to`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moving {
    /// There is no allocation that could be kept: it is asked for there from now on.
    Begun,
    /// [`Event::Moved`] or [`Event::NotMoved`] follows. Until then nothing is sent to peers.
    Asked,
    /// The relay has given no ticket: the allocation stays where it is, another one is needed there.
    Stays,
}

impl Allocation {
    /// Takes the allocation to another five-tuple. With `dead` nothing is expected the old way any more, and an allocation
    /// that cannot move is given up.
    pub fn move_to(
        &mut self,
        transport: RelayTransport,
        server: SocketAddr,
        local: SocketAddr,
        dead: bool,
        now: Instant,
    ) -> Moving {
        let to = Move {
            transport,
            server,
            local,
            asked: false,
        };
        match self.phase {
            Phase::Closed => return Moving::Stays,
            Phase::Active if self.ticket.is_some() => {
                self.ahead.clear();
                self.transactions.forget_moves();
                self.moving = Some(to);
                if dead {
                    self.ask_to_move(now);
                } else {
                    self.send(Request::Fence, 0, now);
                }
                return Moving::Asked;
            }
            Phase::Active if !dead => return Moving::Stays,
            Phase::Active => {
                self.settle(to);
                self.lose(LostReason::Silent, now);
                // Nobody has the old five-tuple any more.
                self.resumable = false;
            }
            _ => self.settle(to),
        }
        self.transmits.clear();
        self.resumable &= self.ticket.is_some();
        self.attempt(now);
        Moving::Begun
    }

    /// Between [`Allocation::move_to`] and [`Event::Moved`] or [`Event::NotMoved`]: what is for peers has to wait.
    pub fn is_moving(&self) -> bool {
        self.moving.is_some()
    }

    /// The next message to send the way that the allocation is to move.
    pub fn poll_transmit_ahead(&mut self) -> Option<Vec<u8>> {
        self.ahead.pop_front()
    }

    /// The fence was passed, or is not waited for any longer.
    pub(super) fn ask_to_move(&mut self, now: Instant) {
        let Some(to) = self.moving.as_mut().filter(|to| !to.asked) else {
            return;
        };
        to.asked = true;
        self.send(Request::Move, 0, now);
    }

    pub(super) fn on_moved(&mut self, message: &Message<'_>, now: Instant) {
        let Some(to) = self.moving.take() else {
            return;
        };
        self.ticket = read_ticket(message).or(self.ticket.take());
        self.settle(to);
        // What was not answered the old way.
        self.transmits.clear();
        self.transmits
            .extend(self.transactions.all().map(<[u8]>::to_vec));
        self.stats.moved += 1;
        self.events.push_back(Event::Moved);
        self.on_lifetime(super::answers::read_lifetime(message), now);
    }

    pub(super) fn on_not_moved(&mut self, now: Instant) {
        let Some(to) = self.moving.take() else {
            return;
        };
        self.ahead.clear();
        self.events.push_back(Event::NotMoved);
        if to.is_where(&self.config) {
            self.lose(LostReason::Mismatch, now);
        }
    }

    fn settle(&mut self, to: Move) {
        self.config.transport = to.transport;
        self.config.server = to.server;
        self.config.local = to.local;
        self.liveness.asked = None;
        self.rtt = None;
    }
}

pub(super) fn read_ticket(message: &Message<'_>) -> Option<Vec<u8>> {
    let ticket = message.value(MOBILITY_TICKET)?;
    (1..=MAX_TICKET)
        .contains(&ticket.len())
        .then(|| ticket.to_vec())
}
