//! Refresh ([RFC 8656 section 8.2](https://www.rfc-editor.org/rfc/rfc8656#section-8.2)): live on, or end.

use crate::request::answer::Answer;
use crate::request::{Outcome, Refusal, Request};
use crate::{Family, Server};
use std::time::Duration;
use stun_types::attribute::AttributeStaticType;
use turn_types::attribute::{Lifetime, RequestedAddressFamily};

pub(super) fn handle(server: &mut Server, request: &Request<'_, '_>) -> Outcome {
    let (id, allocation) = request.own_allocation(server)?;
    let family = match request.message.value(RequestedAddressFamily::TYPE) {
        None => None,
        // A family that it has no relayed address of: section 8.2.
        Some(value) => Some(
            super::allocate::family(value)?
                .filter(|family| allocation.relay(*family).is_some())
                .ok_or(Refusal::PeerAddressFamilyMismatch)?,
        ),
    };
    let asked: Option<Lifetime> = request.message.attribute()?;
    let now = request.now.instant;
    let lifetime = match asked {
        Some(lifetime) if lifetime.seconds() == 0 => Duration::ZERO,
        other => request.within_token(server.config.limits.grant(other.map(|l| l.seconds()))),
    };
    let families = family.map_or(Family::BOTH.to_vec(), |family| vec![family]);
    if lifetime.is_zero() {
        for family in families {
            server.close_relay(id, family, now);
        }
        let empty = server
            .table
            .get_mut(id)
            .is_some_and(|allocation| allocation.expires().is_none());
        if empty {
            server.stats.allocations_deleted += 1;
            server.remove(id);
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
    let message = request.message;
    let mut answer = Answer::success(message.method(), message.transaction_id());
    answer.add_lifetime(lifetime.as_secs() as u32);
    Ok(Some(answer))
}
