//! Binding ([RFC 8489 section 7.3.1](https://www.rfc-editor.org/rfc/rfc8489#section-7.3.1)): where the request came from;
//! and NAT behavior discovery ([RFC 5780](https://www.rfc-editor.org/rfc/rfc5780)) where two addresses are configured.

use crate::request::answer::Answer;
use crate::request::unknown_attributes;
use crate::{FiveTuple, Now, Server, Transport, Verdict};
use model::{ClientAddr, ServerAddr};
use std::net::SocketAddr;
use stun_types::attribute::AttributeType;
use wire::stun::Message;

// RFC 5780 section 7, and MAPPED-ADDRESS of RFC 8489.
const MAPPED_ADDRESS: u16 = 0x0001;
const CHANGE_REQUEST: u16 = 0x0003;
const PADDING: u16 = 0x0026;
const RESPONSE_PORT: u16 = 0x0027;
const RESPONSE_ORIGIN: u16 = 0x802B;
const OTHER_ADDRESS: u16 = 0x802C;
/// Flags of CHANGE-REQUEST (section 7.2).
const CHANGE_IP: u8 = 4;
const CHANGE_PORT: u8 = 2;

/// Answers without asking who it is.
pub(super) fn handle(
    server: &mut Server,
    now: Now,
    path: FiveTuple,
    message: &Message<'_>,
) -> Verdict<'static> {
    let discovery = server.config.extensions.discovery.iter();
    let other = discovery
        .filter(|_| path.transport == Transport::Udp)
        .find_map(|discovery| discovery.other(path.server.0));
    let known: &[u16] = if other.is_some() {
        &[CHANGE_REQUEST, PADDING, RESPONSE_PORT]
    } else {
        &[]
    };
    let answer = if let Some(answer) = unknown_attributes(message, known) {
        server.stats.on_error_response(420);
        answer
    } else if let Some(other) = other {
        match discover(path, other, message) {
            Ok((way, answer)) => {
                return server.answer_stranger_by(now, path, message, answer, way);
            }
            Err(Malformed) => {
                server.stats.on_error_response(400);
                Answer::error(message, 400)
            }
        }
    } else {
        let mut answer = Answer::success(message.method(), message.transaction_id());
        answer.add_mapped(path.client.0);
        answer
    };
    server.answer_stranger(path, message, answer);
    Verdict::Handled
}

#[derive(Clone, Copy, Debug)]
struct Malformed;

/// The answer, and the way it takes: perhaps from another of the four addresses, perhaps to another port of the client
/// (sections 6.1 and 7).
fn discover(
    path: FiveTuple,
    other: SocketAddr,
    message: &Message<'_>,
) -> Result<(FiveTuple, Answer), Malformed> {
    let value = |kind: u16| message.value(AttributeType::new(kind));
    let flags = match value(CHANGE_REQUEST) {
        None => 0,
        Some([_, _, _, flags]) => *flags,
        Some(_) => return Err(Malformed),
    };
    let port = match value(RESPONSE_PORT) {
        None => path.client.0.port(),
        Some([high, low] | [high, low, _, _]) => u16::from_be_bytes([*high, *low]),
        Some(_) => return Err(Malformed),
    };
    // The two together would send much to where nobody asked for it.
    if port == 0 || (value(PADDING).is_some() && value(RESPONSE_PORT).is_some()) {
        return Err(Malformed);
    }
    let asked = path.server.0;
    let ip = if flags & CHANGE_IP == 0 { asked } else { other }.ip();
    let from = if flags & CHANGE_PORT == 0 {
        asked
    } else {
        other
    }
    .port();
    let origin = SocketAddr::new(ip, from);

    let mut answer = Answer::success(message.method(), message.transaction_id());
    answer.add_address(MAPPED_ADDRESS, path.client.0);
    answer.add_mapped(path.client.0);
    answer.add_address(RESPONSE_ORIGIN, origin);
    answer.add_address(OTHER_ADDRESS, other);
    if let Some(padding) = value(PADDING) {
        // As much as was sent, and not the MTU of section 7.6: nobody gets more than they paid for.
        answer.add_padding(PADDING, padding.len());
    }
    let way = FiveTuple {
        client: ClientAddr(SocketAddr::new(path.client.0.ip(), port)),
        server: ServerAddr(origin),
        transport: Transport::Udp,
    };
    Ok((way, answer))
}
