//! Connect ([RFC 6062 section 5.2](https://www.rfc-editor.org/rfc/rfc6062#section-5.2)): a TCP connection to a peer, from
//! the relayed address. Needs no permission: the client names the peer itself, and the policy is asked.

use crate::peer_connection::Connecting;
use crate::request::{Outcome, Refusal, Request};
use crate::{Family, RelayId, Server};
use model::PeerAddr;
use turn_types::attribute::XorPeerAddress;

pub(super) fn handle(server: &mut Server, request: &Request<'_, '_>) -> Outcome {
    let (allocation, found) = request.own_allocation(server)?;
    if found.tcp.is_none() {
        return Err(Refusal::AllocationMismatch);
    }
    let message = request.message;
    let peer: Option<XorPeerAddress> = message.attribute()?;
    let peer = peer.ok_or(Refusal::BadRequest)?;
    let peer = PeerAddr(peer.addr(message.transaction_id()));
    let family = Family::of(peer.0);
    if found.relay(family).is_none() {
        return Err(Refusal::PeerAddressFamilyMismatch);
    }
    server.authorize(allocation, peer, request.now.instant)?;
    let connecting = Connecting {
        relay: RelayId { allocation, family },
        peer,
        transaction: message.transaction_id(),
        signer: request.by.signer,
    };
    server.connect(request.now.instant, &connecting)?;
    Ok(None)
}
