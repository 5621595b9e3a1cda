//! Requests that wait for an answer, and when they are sent again
//! ([RFC 8489 section 6.2.1](https://www.rfc-editor.org/rfc/rfc8489#section-6.2.1)).
//!
//! The intervals double from 500 ms. Fewer repetitions than the seven of the RFC: whether the relay is there at all
//! is decided by the liveness probe, and an attempt to allocate is soon followed by a fresh one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use model::PeerAddr;
use stun_types::message::{Method, TransactionId};
use turn_types::message::{ALLOCATE, CHANNEL_BIND, CREATE_PERMISSION, REFRESH};

use wire::stun::write::Key;

const RTO: Duration = Duration::from_millis(500);
/// How long an answer over a stream may take.
const ON_STREAM: Duration = Duration::from_secs(3);
/// How long a fence is waited for: it is a courtesy to what is under way.
const FENCE: Duration = Duration::from_millis(400);

/// What is asked of the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// An allocation.
    Allocate,
    /// Whether the allocation that we lost sight of is still there.
    Resume,
    /// That it deletes an allocation which is in our way.
    Delete,
    /// Another lifetime.
    Refresh,
    /// The same, to hear whether it is there. Sent once.
    Probe,
    /// The same, to hear that all that was sent before has arrived. Sent once.
    Fence,
    /// That it takes the allocation to where this comes from.
    Move,
    /// A permission.
    Permission(IpAddr),
    /// A channel: its index and its peer.
    Channel(u16, PeerAddr),
}

impl Request {
    pub(crate) fn method(self) -> Method {
        match self {
            Self::Allocate => ALLOCATE,
            Self::Resume
            | Self::Delete
            | Self::Refresh
            | Self::Probe
            | Self::Fence
            | Self::Move => REFRESH,
            Self::Permission(_) => CREATE_PERMISSION,
            Self::Channel(..) => CHANNEL_BIND,
        }
    }

    fn sends(self) -> u32 {
        match self {
            Self::Allocate | Self::Resume | Self::Delete | Self::Move => 3,
            Self::Refresh => 4,
            Self::Probe | Self::Fence => 1,
            Self::Permission(_) | Self::Channel(..) => 5,
        }
    }
}

/// One request on its way.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) request: Request,
    /// How often it was signed anew because the relay wanted another nonce.
    pub(crate) challenges: u8,
    /// The authenticator's generation it was signed in, and the key its answer must be signed with.
    pub(crate) signed: Option<(u32, Key)>,
    bytes: Vec<u8>,
    first: Instant,
    repeated: bool,
    sent: u32,
    due: Instant,
}

impl Transaction {
    /// Sent now; over a stream once only.
    pub(crate) fn new(
        request: Request,
        challenges: u8,
        signed: Option<(u32, Key)>,
        bytes: Vec<u8>,
        stream: bool,
        now: Instant,
    ) -> Self {
        let (sent, due) = if stream && request != Request::Fence {
            (request.sends(), now + ON_STREAM)
        } else {
            (1, now + wait(request, 1))
        };
        Self {
            request,
            challenges,
            signed,
            bytes,
            first: now,
            repeated: false,
            sent,
            due,
        }
    }

    /// What the answer says of the round trip; nothing after a repetition.
    pub(crate) fn rtt(&self, now: Instant) -> Option<Duration> {
        (!self.repeated).then(|| now.saturating_duration_since(self.first))
    }
}

/// What is to be done when a transaction's time has come.
#[derive(Debug)]
pub(crate) enum Overdue {
    /// Send this; the next time is given.
    SendAgain(Request, Vec<u8>, Instant),
    /// No answer came.
    GiveUp(Request),
}

#[derive(Debug, Default)]
pub(crate) struct Transactions {
    waiting: BTreeMap<TransactionId, Transaction>,
}

impl Transactions {
    /// Remembers a request that is sent now. Returns when to look after it.
    pub(crate) fn insert(&mut self, id: TransactionId, transaction: Transaction) -> Instant {
        let due = transaction.due;
        self.waiting.insert(id, transaction);
        due
    }

    pub(crate) fn get(&self, id: TransactionId) -> Option<&Transaction> {
        self.waiting.get(&id)
    }

    pub(crate) fn remove(&mut self, id: TransactionId) -> Option<Transaction> {
        self.waiting.remove(&id)
    }

    /// Nothing is to come of an earlier move.
    pub(crate) fn forget_moves(&mut self) {
        self.waiting
            .retain(|_, waiting| !matches!(waiting.request, Request::Fence | Request::Move));
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Everything that waits, to be sent once more.
    pub(crate) fn all(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting
            .values()
            .map(|waiting| waiting.bytes.as_slice())
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// `None` for an outdated timer.
    pub(crate) fn on_due(&mut self, id: TransactionId, at: Instant) -> Option<Overdue> {
        let transaction = self.waiting.get_mut(&id).filter(|found| found.due == at)?;
        if transaction.sent >= transaction.request.sends() {
            return self
                .waiting
                .remove(&id)
                .map(|gone| Overdue::GiveUp(gone.request));
        }
        transaction.sent += 1;
        transaction.repeated = true;
        transaction.due = at + wait(transaction.request, transaction.sent);
        Some(Overdue::SendAgain(
            transaction.request,
            transaction.bytes.clone(),
            transaction.due,
        ))
    }
}

/// How long to wait after the `sent`th time.
fn wait(request: Request, sent: u32) -> Duration {
    match request {
        Request::Probe => return 4 * RTO,
        Request::Fence => return FENCE,
        _ => {}
    }
    // After the last time not the full doubling: a new attempt is worth more than a late answer.
    if sent == request.sends() {
        return 2 * RTO;
    }
    RTO * 2u32.saturating_pow(sent - 1)
}
