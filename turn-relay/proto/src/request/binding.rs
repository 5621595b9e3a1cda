//! Binding ([RFC 8489 section 7.3.1](https://www.rfc-editor.org/rfc/rfc8489#section-7.3.1)): where the request came from.

use crate::request::answer::Answer;
use crate::request::unknown_attributes;
use crate::{FiveTuple, Server};
use wire::stun::Message;

/// Answers without asking who it is.
pub(super) fn handle(server: &mut Server, path: FiveTuple, message: &Message<'_>) {
    let answer = unknown_attributes(message).map_or_else(
        || {
            let mut answer = Answer::success(message.method(), message.transaction_id());
            answer.add_mapped(path.client.0);
            answer
        },
        |answer| {
            server.stats.on_error_response(420);
            answer
        },
    );
    server.answer_stranger(path, message, answer);
}
