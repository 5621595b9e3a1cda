//! Mobility ([RFC 8016](https://www.rfc-editor.org/rfc/rfc8016)): an allocation goes with its client to another five-tuple,
//! over whatever transport, and to another shard if the new five-tuple is another's.
//!
//! A ticket says where the allocation is, and is worth something to its user only. Each move makes a new one, so that an
//! old one moves nothing again. To another shard the allocation is handed over whole: the old one has it until the
//! moment it gives it away, so of two that ask for it at once, one is refused. What it used of the user's quota stays used
//! all the time.

pub(crate) mod ticket;

use crate::Transport;
use crate::allocation::Allocation;
use crate::auth::Signer;
use crate::request::refresh::{self, Asked};
use crate::request::{Refusal, Request};
use crate::{
    AllocationId, ConnectionId, FiveTuple, Now, Output, RealmUser, RelayId, Replaced, Server,
};
use std::time::Instant;
use stun_types::attribute::AttributeType;
use stun_types::message::TransactionId;
use ticket::Place;
use turn_types::message::REFRESH;

/// MOBILITY-TICKET (section 3.5).
pub(crate) const MOBILITY_TICKET: AttributeType = AttributeType::new(0x8030);
/// Resumptions that wait for another shard. Beyond it a client hears nothing, and asks again.
const MOST_RESUMING: usize = 256;

/// What an allocation that can move has beyond others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mobile {
    /// Of its present ticket.
    pub(crate) number: u32,
    /// The request that moved it here, which may be retransmitted with the old ticket.
    resumed_by: Option<TransactionId>,
}

/// What one shard says to another. The shell carries it there, with the sockets of the relayed addresses beside it.
#[derive(Debug)]
pub struct ShardMessage(Letter);

impl PartialEq for ShardMessage {
    /// Each is said once.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for ShardMessage {}

#[derive(Debug)]
enum Letter {
    Resume(Box<Resume>),
    Moved(Box<Resume>, Box<Allocation>),
    Refused(Box<Resume>, Refusal),
}

/// An authentic Refresh request with a ticket of another shard.
#[derive(Debug)]
struct Resume {
    from: u16,
    place: Place,
    path: FiveTuple,
    user: RealmUser,
    signer: Signer,
    transaction: TransactionId,
    asked: Asked,
}

/// Where the allocation of a ticket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// On the five-tuple of the request, now.
    Here,
    /// With another shard, which is asked.
    Elsewhere,
}

impl Mobile {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number: number as u32,
            resumed_by: None,
        }
    }
}

/// A Refresh request with MOBILITY-TICKET (section 3.2.2): brings the allocation to the five-tuple of the request. What is
/// there already has to be the sender's.
pub(crate) fn resume(
    server: &mut Server,
    request: &Request<'_, '_>,
    ticket: &[u8],
    asked: Asked,
) -> Result<Found, Refusal> {
    if !server.config.extensions.mobility {
        return Err(Refusal::MobilityForbidden);
    }
    let place = server.tickets.read(ticket).ok_or(Refusal::BadRequest)?;
    let (user, path) = (&request.by.user, request.path);
    let transaction = request.message.transaction_id();
    if let Some((id, allocation)) = server.table.find(path) {
        let known = allocation.mobile.is_some_and(|mobile| {
            let present = place.shard == server.shard
                && place.index == id.index
                && place.number == mobile.number;
            present || mobile.resumed_by == Some(transaction)
        });
        // Of two allocations on one five-tuple neither could be told apart.
        return known
            .then_some(Found::Here)
            .ok_or(Refusal::AllocationMismatch);
    }
    if place.shard == server.shard {
        let id = server.movable(place, user)?;
        server.table.rebind(id, path);
        server.renew_ticket(id, transaction);
        server.publish_ends(id, request.now.instant);
        return Ok(Found::Here);
    }
    // A retransmission, or too many.
    if !server.resuming.contains(&path) && server.resuming.len() < MOST_RESUMING {
        server.resuming.push(path);
        let resume = Box::new(Resume {
            from: server.shard,
            place,
            path,
            user: user.clone(),
            signer: request.by.signer,
            transaction,
            asked,
        });
        server.say(place.shard, Letter::Resume(resume), Vec::new());
    }
    Ok(Found::Elsewhere)
}

impl Server {
    /// Which of the shards of a process this is: from 0 on, below 256.
    pub fn set_shard(&mut self, shard: u16) {
        self.shard = shard;
    }

    fn say(&mut self, shard: u16, letter: Letter, relays: Vec<RelayId>) {
        let message = ShardMessage(letter);
        self.outputs.push_back(Output::ToShard {
            shard,
            message,
            relays,
        });
    }

    /// The ticket of an allocation that has one.
    pub(crate) fn ticket_of(&self, id: AllocationId, allocation: &Allocation) -> Option<String> {
        self.tickets.write(Place {
            shard: self.shard,
            index: id.index,
            number: allocation.mobile?.number,
        })
    }

    fn movable(&mut self, place: Place, user: &RealmUser) -> Result<AllocationId, Refusal> {
        let found = self.table.at(place.index);
        let (id, allocation) = found
            .filter(|(_, a)| a.opening.is_none())
            .filter(|(_, a)| a.mobile.is_some_and(|m| m.number == place.number))
            .ok_or(Refusal::AllocationMismatch)?;
        if allocation.user != *user {
            return Err(Refusal::WrongCredentials);
        }
        Ok(id)
    }

    fn renew_ticket(&mut self, id: AllocationId, by: TransactionId) {
        let number = self.random.u64() as u32;
        if let Some(allocation) = self.table.get_mut(id) {
            allocation.mobile = Some(Mobile {
                number,
                resumed_by: Some(by),
            });
        }
        self.stats.allocations_moved += 1;
    }

    /// What another shard says, with the sockets that came along, in the order of what is returned: the names of their
    /// relayed addresses here, or nothing if they are not wanted. To be taken over before [`Server::poll_output`].
    pub fn handle_shard_message(&mut self, now: Now, message: ShardMessage) -> Vec<RelayId> {
        match message.0 {
            Letter::Resume(resume) => self.on_resume(resume),
            Letter::Moved(resume, allocation) => {
                return self.on_moved(now.instant, &resume, *allocation);
            }
            Letter::Refused(resume, refusal) => {
                if self.is_waited_for(resume.path) {
                    self.refuse(&resume, refusal);
                }
            }
        }
        Vec::new()
    }

    /// Another shard's client wants an allocation of ours.
    fn on_resume(&mut self, resume: Box<Resume>) {
        let from = resume.from;
        let id = match self.movable(resume.place, &resume.user) {
            Ok(id) => id,
            Err(refusal) => return self.say(from, Letter::Refused(resume, refusal), Vec::new()),
        };
        let Some(allocation) = self.take_out(id) else {
            return;
        };
        let relays = allocation.relay_ids(id).collect();
        self.say(from, Letter::Moved(resume, allocation), relays);
    }

    /// An allocation that we asked for.
    fn on_moved(
        &mut self,
        now: Instant,
        resume: &Resume,
        mut allocation: Allocation,
    ) -> Vec<RelayId> {
        // The connection may have ended meanwhile: its number may be another's now.
        if !self.is_waited_for(resume.path) {
            self.discard(allocation, now);
            return Vec::new();
        }
        if self.table.find(resume.path).is_some() {
            self.discard(allocation, now);
            self.refuse(resume, Refusal::AllocationMismatch);
            return Vec::new();
        }
        allocation.path = resume.path;
        let id = self.insert(allocation, now);
        self.renew_ticket(id, resume.transaction);
        self.publish_ends(id, now);
        let relays = self.table.get(id).map(|a| a.relay_ids(id).collect());
        let done = refresh::apply(self, now, id, resume.asked, resume.transaction, true);
        match done {
            Ok(answer) => self.answer_signed(resume.path, answer, &resume.signer),
            Err(refusal) => self.refuse(resume, refusal),
        }
        // Settings may have changed while it was between the shards.
        self.enforce_policy_on(id, now, &mut Replaced::default());
        relays.unwrap_or_default()
    }

    /// The client of a relayed address.
    pub fn path_of(&self, relay: RelayId) -> Option<FiveTuple> {
        self.table.get(relay.allocation).map(|a| a.path)
    }

    fn is_waited_for(&mut self, path: FiveTuple) -> bool {
        let at = self.resuming.iter().position(|waiting| *waiting == path);
        at.map(|at| self.resuming.swap_remove(at)).is_some()
    }

    fn refuse(&mut self, resume: &Resume, refusal: Refusal) {
        let request = (REFRESH, resume.transaction);
        self.refuse_later(resume.path, request, refusal, &resume.signer);
    }

    /// Ends an allocation that no shard has.
    fn discard(&mut self, mut allocation: Allocation, now: Instant) {
        let shared = &self.config.shared;
        shared.ends().withdraw(&mut allocation.published);
        for relay in allocation.relays.iter().flatten() {
            shared.release_port(relay.port, now);
        }
        allocation.realm.used.release(&allocation.user.name);
    }

    /// A connection is gone. Its allocation waits for its client until its time is over, if it can move; whether it does.
    pub(crate) fn park(&mut self, id: AllocationId, path: FiveTuple) -> bool {
        // Nobody has this connection, so what peers send is dropped.
        let nowhere = FiveTuple {
            transport: Transport::Tcp(ConnectionId::GONE),
            ..path
        };
        let is_mobile = self.table.get_mut(id).is_some_and(|a| a.mobile.is_some());
        let parked = is_mobile && self.table.find(nowhere).is_none();
        if parked {
            self.table.rebind(id, nowhere);
        }
        parked
    }

    /// Nothing is to come to a connection that is gone.
    pub(crate) fn forget_resuming(&mut self, path: FiveTuple) {
        self.resuming.retain(|waiting| *waiting != path);
    }
}
