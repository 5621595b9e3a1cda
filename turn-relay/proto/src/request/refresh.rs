//! Refresh ([RFC 8656 section 8.2](https://www.rfc-editor.org/rfc/rfc8656#section-8.2)): live on, or end.

use crate::mobility::{self, Found, MOBILITY_TICKET};
use crate::request::answer::Answer;
use crate::request::{Outcome, Refusal, Request};
use crate::{AllocationId, EndReason, Family, Server};
use std::time::{Duration, Instant};
use stun_types::attribute::AttributeStaticType;
use stun_types::message::TransactionId;
use turn_types::attribute::{Lifetime, RequestedAddressFamily};
use turn_types::message::REFRESH;

/// What a Refresh request asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Seconds; `None` for the default.
    lifetime: Option<u32>,
    /// REQUESTED-ADDRESS-FAMILY, which may be one that nobody knows.
    family: Option<Option<Family>>,
    /// As far as the credential goes.
    most: Duration,
}

impl Asked {
    fn read(request: &Request<'_, '_>) -> Result<Self, Refusal> {
        let message = request.message;
        let lifetime: Option<Lifetime> = message.attribute()?;
        let family = message.value(RequestedAddressFamily::TYPE);
        Ok(Self {
            lifetime: lifetime.map(|lifetime| lifetime.seconds()),
            family: family.map(super::allocate::family).transpose()?,
            most: request.within_token(Duration::MAX),
        })
    }
}

pub(super) fn handle(server: &mut Server, request: &Request<'_, '_>) -> Outcome {
    let message = request.message;
    let ticket = message.value(MOBILITY_TICKET);
    let asked = Asked::read(request);
    // Whose it is comes before anything that is wrong with the request.
    if server.table.find(request.path).is_some() {
        request.own_allocation(server)?;
    }
    if let Some(ticket) = ticket {
        let found = mobility::resume(server, request, ticket, asked?)?;
        if found == Found::Elsewhere {
            return Ok(None);
        }
    }
    let (id, _) = request.own_allocation(server)?;
    let transaction = message.transaction_id();
    apply(
        server,
        request.now.instant,
        id,
        asked?,
        transaction,
        ticket.is_some(),
    )
    .map(Some)
}

/// Does what is asked for; the answer, with the allocation's ticket if that is wanted.
pub(crate) fn apply(
    server: &mut Server,
    now: Instant,
    id: AllocationId,
    asked: Asked,
    transaction: TransactionId,
    with_ticket: bool,
) -> Result<Answer, Refusal> {
    let allocation = server.table.get(id).ok_or(Refusal::AllocationMismatch)?;
    let ticket = server.ticket_of(id, allocation).filter(|_| with_ticket);
    let families = match asked.family {
        None => Family::BOTH.to_vec(),
        // A family that it has no relayed address of: section 8.2.
        Some(family) => vec![
            family
                .filter(|family| allocation.relay(*family).is_some())
                .ok_or(Refusal::PeerAddressFamilyMismatch)?,
        ],
    };
    let lifetime = match asked.lifetime {
        Some(0) => Duration::ZERO,
        other => {
            let granted = server.config.limits.grant(other, &allocation.realm);
            server.within_drain(granted.min(asked.most), now)
        }
    };
    if lifetime.is_zero() {
        for family in families {
            server.close_relay(id, family, now);
        }
        let empty = server
            .table
            .get_mut(id)
            .is_some_and(|allocation| allocation.expires().is_none());
        if empty {
            server.end(id, EndReason::Deleted, now);
        }
    } else if let Some(allocation) = server.table.get_mut(id) {
        allocation.lifetime = lifetime;
        for family in families {
            if let Some(relay) = &mut allocation.relays[family as usize] {
                relay.expires = now + lifetime;
            }
        }
        server.on_lifetime_changed(id);
    }
    let mut answer = Answer::success(REFRESH, transaction);
    answer.add_lifetime(lifetime.as_secs() as u32);
    if let Some(ticket) = ticket {
        answer.add_ticket(&ticket);
    }
    Ok(answer)
}
