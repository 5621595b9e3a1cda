//! ChannelBind ([RFC 8656 section 12.2](https://www.rfc-editor.org/rfc/rfc8656#section-12.2)).

use crate::request::answer::Answer;
use crate::request::{Outcome, Refusal, Request};
use crate::{Family, Server};
use model::PeerAddr;
use turn_types::attribute::{ChannelNumber, XorPeerAddress};
use wire::channel_data::{FIRST_CHANNEL, LAST_CHANNEL_OF_RFC_5766};

pub(super) fn handle(server: &mut Server, request: &Request<'_, '_>) -> Outcome {
    let (id, allocation) = request.own_allocation(server)?;
    let message = request.message;
    let number: Option<ChannelNumber> = message.attribute()?;
    let number = number.ok_or(Refusal::BadRequest)?.channel();
    let peer: Option<XorPeerAddress> = message.attribute()?;
    let peer = peer.ok_or(Refusal::BadRequest)?;
    let peer = PeerAddr(peer.addr(message.transaction_id()));
    // RFC 8656 stops at 0x4FFF, for the sake of ports shared with DTLS and QUIC. This one is not, and clients of RFC 5766
    // (turnutils_uclient among them) choose up to 0x7FFF.
    if !(FIRST_CHANNEL..=LAST_CHANNEL_OF_RFC_5766).contains(&number) {
        return Err(Refusal::BadRequest);
    }
    // Nothing would go by it.
    if allocation.tcp.is_some() {
        return Err(Refusal::Forbidden);
    }
    if allocation.relay(Family::of(peer.0)).is_none() {
        return Err(Refusal::PeerAddressFamilyMismatch);
    }
    let now = request.now.instant;
    server.authorize(id, peer, now)?;
    // First what can fail without a trace, then what cannot.
    server.check_permission_room(id, &[peer.0.ip()], now)?;
    let Some(allocation) = server.table.get_mut(id) else {
        return Err(Refusal::AllocationMismatch);
    };
    let held = allocation.channels.len();
    let until = now + crate::allocation::permission::LIFETIME;
    let bound = allocation.channels.bind(number, peer, now, until);
    server.stats.channels += allocation.channels.len() as u64;
    server.stats.channels -= held as u64;
    if bound.is_err() {
        return Err(Refusal::BadRequest);
    }
    server.permit(id, &[peer.0.ip()], now)?;
    Ok(Some(Answer::success(
        message.method(),
        message.transaction_id(),
    )))
}
