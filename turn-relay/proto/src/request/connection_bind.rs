//! ConnectionBind ([RFC 6062 section 5.4](https://www.rfc-editor.org/rfc/rfc6062#section-5.4)): the connection that the
//! request came on becomes the client's end of a connection with a peer. After the answer, it carries no messages.

use crate::peer_connection::PeerConnectionId;
use crate::request::answer::Answer;
use crate::request::{Outcome, Refusal, Request};
use crate::{Output, Server};
use turn_types::attribute::ConnectionId;

pub(super) fn handle(server: &mut Server, request: &Request<'_, '_>) -> Outcome {
    let (message, path) = (request.message, request.path);
    // A connection that controls an allocation has something else to carry.
    if server.table.find(path).is_some() {
        request.own_allocation(server)?;
        return Err(Refusal::BadRequest);
    }
    if !path.transport.is_stream() {
        return Err(Refusal::BadRequest);
    }
    let id: Option<ConnectionId> = message.attribute()?;
    let connection = PeerConnectionId(id.ok_or(Refusal::BadRequest)?.id());
    let meter = server.claim_peer_connection(connection, &request.by.user, request.now.instant)?;
    // The connection leaves: its number may be another's soon.
    server.forget_server_name(path);
    let answer = Answer::success(message.method(), message.transaction_id());
    server.answer_signed(path, answer, &request.by.signer);
    server.outputs.push_back(Output::Join {
        path,
        connection,
        meter,
    });
    Ok(None)
}
