//! Requests: is it known, is it authentic, is all of it understood, and then to the method's own module
//! ([RFC 8489 section 6.3](https://www.rfc-editor.org/rfc/rfc8489#section-6.3)).

pub(crate) mod allocate;
pub(crate) mod answer;
mod binding;
mod channel_bind;
mod connect;
mod connection_bind;
mod create_permission;
mod permit;
pub(crate) mod refresh;
mod stranger;

use crate::auth::token::ACCESS_TOKEN;
use crate::auth::{Authenticated, Challenge, Signer, authenticate};
use crate::{DropReason, FiveTuple, Now, Output, Server, Stats, Verdict};
use answer::Answer;
use std::net::SocketAddr;
use stun_types::attribute::{
    AttributeStaticType, AttributeType, MessageIntegrity, MessageIntegritySha256, Nonce,
    PasswordAlgorithm, Realm, Userhash, Username,
};
use stun_types::message::{BINDING, TransactionId};
use turn_types::attribute::{
    ChannelNumber, ConnectionId, Data, DontFragment, EvenPort, Lifetime, RequestedAddressFamily,
    RequestedTransport, ReservationToken, XorPeerAddress,
};
use turn_types::message::{
    ALLOCATE, CHANNEL_BIND, CONNECT, CONNECTION_BIND, CREATE_PERMISSION, REFRESH,
};
use wire::stun::{Malformed, Message};

/// Comprehension-required attributes that are understood.
pub(crate) const KNOWN: [AttributeType; 18] = [
    ConnectionId::TYPE,
    Username::TYPE,
    MessageIntegrity::TYPE,
    ChannelNumber::TYPE,
    Lifetime::TYPE,
    XorPeerAddress::TYPE,
    Data::TYPE,
    Realm::TYPE,
    Nonce::TYPE,
    RequestedAddressFamily::TYPE,
    EvenPort::TYPE,
    RequestedTransport::TYPE,
    MessageIntegritySha256::TYPE,
    PasswordAlgorithm::TYPE,
    Userhash::TYPE,
    ReservationToken::TYPE,
    DontFragment::TYPE,
    ACCESS_TOKEN,
];

/// Why a request is refused: the error code of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 300: there is room elsewhere.
    TryAlternate(SocketAddr),
    /// 400: something is missing, malformed, or contradicts something else.
    BadRequest,
    /// 401: the credential's time is over.
    Unauthorized,
    /// 403: the peer may not be reached.
    Forbidden,
    /// 405: nothing moves here.
    MobilityForbidden,
    /// 437: the five-tuple has an allocation, or has none.
    AllocationMismatch,
    /// 440: no relayed address of this family.
    AddressFamilyNotSupported,
    /// 441: the allocation is someone else's.
    WrongCredentials,
    /// 442: neither UDP nor TCP.
    UnsupportedTransport,
    /// 443: the peer is of another family than the relayed address.
    PeerAddressFamilyMismatch,
    /// 446: there is a connection with this peer.
    ConnectionAlreadyExists,
    /// 447: the peer cannot be connected to.
    ConnectionTimeoutOrFailure,
    /// 486: the user has as many allocations as allowed.
    QuotaReached,
    /// 508: no port, no room, no reservation.
    InsufficientCapacity,
}

impl Refusal {
    pub(crate) fn code(self) -> u16 {
        match self {
            Self::TryAlternate(_) => 300,
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::Forbidden => 403,
            Self::MobilityForbidden => 405,
            Self::AllocationMismatch => 437,
            Self::AddressFamilyNotSupported => 440,
            Self::WrongCredentials => 441,
            Self::UnsupportedTransport => 442,
            Self::PeerAddressFamilyMismatch => 443,
            Self::ConnectionAlreadyExists => 446,
            Self::ConnectionTimeoutOrFailure => 447,
            Self::QuotaReached => 486,
            Self::InsufficientCapacity => 508,
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(_: Malformed) -> Self {
        Self::BadRequest
    }
}

/// An authentic request.
#[derive(Debug)]
pub(crate) struct Request<'m, 'a> {
    pub(crate) now: Now,
    pub(crate) path: FiveTuple,
    pub(crate) message: &'m Message<'a>,
    pub(crate) by: Authenticated,
}

/// `None`: the answer comes later.
type Outcome = Result<Option<Answer>, Refusal>;

type Method = fn(&mut Server, &Request<'_, '_>) -> Outcome;

/// The method of a request that needs credentials, and its counter.
fn method_of(method: stun_types::message::Method, stats: &mut Stats) -> Option<(&mut u64, Method)> {
    Some(match method {
        ALLOCATE => (&mut stats.allocate_requests, allocate::handle),
        REFRESH => (&mut stats.refresh_requests, refresh::handle),
        CREATE_PERMISSION => (
            &mut stats.create_permission_requests,
            create_permission::handle,
        ),
        CHANNEL_BIND => (&mut stats.channel_bind_requests, channel_bind::handle),
        CONNECT => (&mut stats.connect_requests, connect::handle),
        CONNECTION_BIND => (&mut stats.connection_bind_requests, connection_bind::handle),
        _ => return None,
    })
}

/// A request that has waited, and was counted when it came.
pub(crate) fn handle_again(
    server: &mut Server,
    now: Now,
    path: FiveTuple,
    message: &Message<'_>,
) -> Verdict<'static> {
    match method_of(message.method(), &mut server.stats) {
        Some((_, method)) => handle_authentic(server, now, path, message, method),
        None => Verdict::Dropped(DropReason::UnknownMethod),
    }
}

pub(crate) fn handle(
    server: &mut Server,
    now: Now,
    path: FiveTuple,
    message: &Message<'_>,
) -> Verdict<'static> {
    if message.method() == BINDING {
        server.stats.binding_requests += 1;
        if !server.admits_stranger(now, path) {
            return Verdict::Dropped(DropReason::UnauthenticatedRate);
        }
        return binding::handle(server, now, path, message);
    }
    let Some((count, method)) = method_of(message.method(), &mut server.stats) else {
        return Verdict::Dropped(DropReason::UnknownMethod);
    };
    *count += 1;
    handle_authentic(server, now, path, message, method)
}

/// Checks who sent it, and does it.
fn handle_authentic(
    server: &mut Server,
    now: Now,
    path: FiveTuple,
    message: &Message<'_>,
    method: Method,
) -> Verdict<'static> {
    let realm = server.config.realms.of_request(message).cloned();
    // Whoever shows a nonce that was sent to this address is there. Nothing that takes long is done for anyone else
    // beyond the rate of answers.
    let is_there = realm.as_ref().zip(message.value(Nonce::TYPE));
    let is_there = is_there.is_some_and(|(realm, nonce)| {
        let client = path.nonce_client();
        let nonces = &server.nonces;
        nonces.is_fresh(now.instant, client, realm.name(), nonce)
    });
    if !is_there && !server.admits_stranger(now, path) {
        return Verdict::Dropped(DropReason::UnauthenticatedRate);
    }
    let realm = realm.as_ref();
    let name = realm.map(|realm| &*realm.name);
    let held = server
        .table
        .find(path)
        .filter(|(_, allocation)| Some(&*allocation.user.realm) == name)
        .and_then(|(_, a)| a.session.as_deref());
    let lookups = name.and_then(|name| server.lookups.get(name));
    let by = match authenticate(realm, now, message, is_there, held, lookups) {
        Ok(by) => by,
        Err(Challenge::LookUp) => return server.look_up(now, path, message),
        Err(_) if is_there && !server.admits_stranger(now, path) => {
            return Verdict::Dropped(DropReason::UnauthenticatedRate);
        }
        Err(challenge) => return server.challenge(now, path, message, challenge),
    };
    let signer = by.signer;
    if let Some(answer) = unknown_attributes(message, &[]) {
        server.answer_signed(path, answer, &signer);
        server.stats.on_error_response(420);
        return Verdict::Handled;
    }
    let request = Request {
        now,
        path,
        message,
        by,
    };
    match method(server, &request) {
        Ok(None) => {}
        Ok(Some(answer)) => {
            server.answer_signed(path, answer, &signer);
        }
        Err(refusal) => {
            server.stats.on_error_response(refusal.code());
            let mut answer = Answer::error(message, refusal.code());
            if let Refusal::TryAlternate(alternate) = refusal {
                answer.add_alternate(alternate);
            }
            server.answer_signed(path, answer, &signer);
        }
    }
    Verdict::Handled
}

impl Server {
    pub(crate) fn answer(&mut self, path: FiveTuple, bytes: Vec<u8>) {
        self.outputs.push_back(Output::Answer { path, bytes });
    }

    /// To whoever proved who it is.
    pub(crate) fn answer_signed(&mut self, path: FiveTuple, answer: Answer, signer: &Signer) {
        let bytes = answer.signed(signer, &self.config.software);
        self.answer(path, bytes);
    }

    /// An error, to a request that was authentic and has waited.
    pub(crate) fn refuse_later(
        &mut self,
        path: FiveTuple,
        (method, transaction): (stun_types::message::Method, TransactionId),
        refusal: Refusal,
        signer: &Signer,
    ) {
        let code = refusal.code();
        self.stats.on_error_response(code);
        self.answer_signed(path, Answer::error_to(method, transaction, code), signer);
    }
}

/// 420 with UNKNOWN-ATTRIBUTES (RFC 8489 section 6.3.1), if there is anything that must be understood and is not.
fn unknown_attributes(message: &Message<'_>, also_known: &[u16]) -> Option<Answer> {
    /// More than anyone sends who does not want a large answer.
    const MOST: usize = 16;
    let unknown: Vec<u16> = message
        .attributes()
        .map(|(kind, _)| kind)
        .filter(|kind| kind.comprehension_required() && !KNOWN.contains(kind))
        .map(|kind| kind.value())
        .filter(|kind| !also_known.contains(kind))
        .take(MOST)
        .collect();
    if unknown.is_empty() {
        return None;
    }
    let mut answer = Answer::short_error(message, 420);
    answer.add_unknown_attributes(&unknown);
    Some(answer)
}
