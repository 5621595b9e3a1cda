//! CreatePermission ([RFC 8656 section 10.2](https://www.rfc-editor.org/rfc/rfc8656#section-10.2)).

use crate::request::answer::Answer;
use crate::request::{Outcome, Refusal, Request};
use crate::{Family, Server};
use std::net::IpAddr;
use stun_types::attribute::AttributeStaticType;
use turn_types::attribute::XorPeerAddress;
use wire::stun::parse;

/// All of the addresses, or none.
pub(super) fn handle(server: &mut Server, request: &Request<'_, '_>) -> Outcome {
    let (id, allocation) = request.own_allocation(server)?;
    let mut peers: Vec<IpAddr> = Vec::new();
    for (kind, value) in request.message.attributes() {
        if kind == XorPeerAddress::TYPE {
            let peer = parse::<XorPeerAddress>(value)?.addr(request.message.transaction_id());
            if allocation.relay(Family::of(peer)).is_none() {
                return Err(Refusal::PeerAddressFamilyMismatch);
            }
            peers.push(peer.ip());
        }
    }
    if peers.is_empty() {
        return Err(Refusal::BadRequest);
    }
    for ip in &peers {
        server.authorize_host(id, *ip, request.now.instant)?;
    }
    server.permit(id, &peers, request.now.instant)?;
    let message = request.message;
    Ok(Some(Answer::success(
        message.method(),
        message.transaction_id(),
    )))
}
