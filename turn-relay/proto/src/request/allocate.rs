//! Allocate ([RFC 8656 section 7.2](https://www.rfc-editor.org/rfc/rfc8656#section-7.2)).
//!
//! In two steps, because a relayed address needs a socket and the core has none: [`handle`] checks, takes ports and asks
//! the shell for sockets; [`on_relay_opened`] answers when all are there, or tries other ports.

use crate::account::Exceeded;
use crate::allocation::reservation::{self, Reservation};
use crate::allocation::{Allocation, Opening, Relay};
use crate::mobility::{MOBILITY_TICKET, Mobile};
use crate::request::answer::Answer;
use crate::request::{Outcome, Refusal, Request};
use crate::shared::{Port, PortKind};
use crate::timer::Reason;
use crate::usage::Counters;
use crate::{AllocationId, Family, FiveTuple, Now, OpenError, Output, RelayId, Server};
use model::RelayedAddr;
use std::time::Instant;
use stun_types::attribute::{AttributeStaticType, AttributeType};
use turn_types::attribute::{
    AdditionalAddressFamily, DontFragment, EvenPort, Lifetime, RequestedAddressFamily,
    RequestedTransport, ReservationToken,
};
use turn_types::message::ALLOCATE;

/// Ports that are tried before the client hears 508: others may use the range too.
const ATTEMPTS: u8 = 16;
/// The number of UDP, as in the IP header (RFC 8656 section 18.6).
const UDP: u8 = 17;
/// And of TCP (RFC 6062 section 6.1).
const TCP: u8 = 6;

/// ADDITIONAL-ADDRESS-FAMILY of draft-martinsen-tram-ssoda, as coturn's client still has it.
const OLD_ADDITIONAL_ADDRESS_FAMILY: AttributeType = AttributeType::new(0x8032);

/// What the client wants, after all that may be wrong with it by itself.
#[derive(Debug)]
struct Wanted {
    /// By [`Family`]: must have, may have, or neither.
    required: [bool; 2],
    optional: [bool; 2],
    ports: PortKind,
    token: Option<u64>,
    /// TCP to peers.
    tcp: bool,
    mobile: bool,
}

pub(crate) fn handle(server: &mut Server, request: &Request<'_, '_>) -> Outcome {
    if let Some((id, _)) = server.table.find(request.path) {
        let existing = server.table.get(id).ok_or(Refusal::AllocationMismatch)?;
        let ticket = server.ticket_of(id, existing);
        let same = existing.transaction == request.message.transaction_id()
            && existing.user == request.by.user
            && existing.opening.is_none();
        // A retransmission gets the same answer again.
        return if same {
            Ok(Some(success(existing, ticket)))
        } else {
            Err(Refusal::AllocationMismatch)
        };
    }
    // An expired credential keeps what it has, and gets nothing new.
    if request.by.expired {
        return Err(Refusal::Unauthorized);
    }
    let wanted = wanted(request, server.config.extensions.mobility)?;
    if server.ends.is_some() {
        return Err(no_room(server, request.path));
    }
    // Sockets that allocations share carry datagrams only.
    let no_tcp = server.config.relay_port.is_some() || server.config.limits.peer_connections == 0;
    if wanted.tcp && no_tcp {
        return Err(Refusal::UnsupportedTransport);
    }
    let lifetime: Option<Lifetime> = request.message.attribute()?;
    let lifetime = server
        .config
        .limits
        .grant(lifetime.map(|l| l.seconds()), &request.by.realm);
    let lifetime = request.within_token(lifetime);
    if server.table.len() >= server.config.limits.allocations {
        return Err(no_room(server, request.path));
    }
    let nanos = server.nanos(request.now.instant);
    let used = &request.by.realm.used;
    let account = match used.acquire(&request.by.user.name, nanos) {
        Ok(account) => account,
        Err(Exceeded::User) => return Err(Refusal::QuotaReached),
        Err(Exceeded::Total) => return Err(no_room(server, request.path)),
    };
    let mut allocation = Allocation {
        path: request.path,
        realm: request.by.realm.clone(),
        user: request.by.user.clone(),
        credential: request.by.credential.clone(),
        account,
        session: request.by.session.clone().map(Box::new),
        transaction: request.message.transaction_id(),
        relays: [None; 2],
        lifetime,
        reservation: None,
        address_error: None,
        expiry_timer: request.now.instant + lifetime,
        opening: Some(Box::new(Opening {
            signer: request.by.signer,
            ports: wanted.ports,
            required: wanted.required,
            attempts: ATTEMPTS,
        })),
        permissions: Default::default(),
        channels: Default::default(),
        last_sent: None,
        icmp: Default::default(),
        tcp: wanted.tcp.then(Box::default),
        mobile: wanted.mobile.then(|| Mobile::new(server.random.u64())),
        counters: Counters::new(request.now.instant),
        published: Vec::new(),
    };
    let now = request.now.instant;
    if let Err(refusal) = take_ports(server, &mut allocation, &wanted, now) {
        give_back(server, &allocation, now);
        used.release(&request.by.user.name);
        // A reservation is nowhere but here.
        return Err(match refusal {
            Refusal::InsufficientCapacity if wanted.token.is_none() => {
                no_room(server, request.path)
            }
            other => other,
        });
    }
    let id = server.insert(allocation, now);
    for family in Family::BOTH {
        ask_for_socket(server, id, family);
    }
    Ok(None)
}

/// 300 with a server that this client can go to instead, one of them at random, or 508.
fn no_room(server: &mut Server, path: FiveTuple) -> Refusal {
    let family = Family::of(path.client.0);
    let alternates = server.config.extensions.alternates.iter();
    let fitting = alternates.filter(|alternate| alternate.is_for(path.transport, family));
    let at = server.random.below(fitting.clone().count());
    let chosen = fitting.map(|alternate| alternate.address).nth(at);
    chosen.map_or(Refusal::InsufficientCapacity, Refusal::TryAlternate)
}

/// The checks 3 to 9 of RFC 8656 section 7.2.
fn wanted(request: &Request<'_, '_>, mobility: bool) -> Result<Wanted, Refusal> {
    let message = request.message;
    let transport: Option<RequestedTransport> = message.attribute()?;
    let tcp = match transport.ok_or(Refusal::BadRequest)?.protocol() {
        UDP => false,
        TCP => true,
        _ => return Err(Refusal::UnsupportedTransport),
    };
    // RFC 8016 section 3.1.2. Connections with peers stay where they are.
    let mobile = match message.value(MOBILITY_TICKET) {
        None => false,
        Some([]) if mobility && !tcp => true,
        Some([]) => return Err(Refusal::MobilityForbidden),
        Some(_) => return Err(Refusal::BadRequest),
    };
    let even: Option<EvenPort> = message.attribute()?;
    let token: Option<ReservationToken> = message.attribute()?;
    let requested = message.value(RequestedAddressFamily::TYPE);
    let additional = message
        .value(AdditionalAddressFamily::TYPE)
        .or_else(|| message.value(OLD_ADDITIONAL_ADDRESS_FAMILY));
    let reserve = even.as_ref().is_some_and(EvenPort::requested);

    // RFC 6062 section 5.1.
    let for_datagrams =
        token.is_some() || even.is_some() || message.value(DontFragment::TYPE).is_some();
    if tcp && (!request.path.transport.is_stream() || for_datagrams) {
        return Err(Refusal::BadRequest);
    }
    let contradictory = (token.is_some()
        && (even.is_some() || requested.is_some() || additional.is_some()))
        || (additional.is_some() && (requested.is_some() || reserve));
    if contradictory {
        return Err(Refusal::BadRequest);
    }
    let mut required = [false; 2];
    let mut optional = [false; 2];
    match (requested, additional) {
        (Some(value), _) => {
            let family = family(value)?.ok_or(Refusal::AddressFamilyNotSupported)?;
            required[family as usize] = true;
        }
        (None, Some(value)) => {
            // Only IPv6 may be additional (section 18.11).
            if family(value)? != Some(Family::V6) {
                return Err(Refusal::BadRequest);
            }
            optional = [true; 2];
        }
        // The reserved port has a family already.
        (None, None) if token.is_some() => {}
        (None, None) => required[Family::V4 as usize] = true,
    }
    Ok(Wanted {
        required,
        optional,
        ports: match even {
            None => PortKind::Any,
            Some(_) if reserve => PortKind::EvenOfPair,
            Some(_) => PortKind::Even,
        },
        token: token.map(|token| token.token()),
        tcp,
        mobile,
    })
}

/// The value of REQUESTED-ADDRESS-FAMILY and its like (RFC 8656 section 18.5); `None` for a family nobody knows.
pub(super) fn family(value: &[u8]) -> Result<Option<Family>, Refusal> {
    match value {
        [1, _, _, _] => Ok(Some(Family::V4)),
        [2, _, _, _] => Ok(Some(Family::V6)),
        [_, _, _, _] => Ok(None),
        _ => Err(Refusal::BadRequest),
    }
}

/// Takes a port for each wanted family. On error some may be taken.
fn take_ports(
    server: &mut Server,
    allocation: &mut Allocation,
    wanted: &Wanted,
    now: Instant,
) -> Result<(), Refusal> {
    if let Some(token) = wanted.token {
        let reserved = server.config.shared.take_reservation(token);
        let reserved = reserved.ok_or(Refusal::InsufficientCapacity)?;
        let expires = now + allocation.lifetime;
        let relay = server.relay_of(reserved.port, expires);
        let family = Family::of(relay.advertised.0);
        allocation.relays[family as usize] = Some(relay);
        if let Some(opening) = &mut allocation.opening {
            opening.required[family as usize] = true;
            // This port and no other.
            opening.attempts = 0;
        }
        return Ok(());
    }
    for family in Family::BOTH {
        let index = family as usize;
        if !wanted.required[index] && !wanted.optional[index] {
            continue;
        }
        match server.take_port(family, wanted.ports, now) {
            Ok(port) => {
                let expires = now + allocation.lifetime;
                allocation.relays[index] = Some(server.relay_of(port, expires));
                if wanted.ports == PortKind::EvenOfPair {
                    allocation.reservation = Some(reserve_next(server, port, now));
                }
            }
            Err(refusal) if wanted.required[index] => return Err(refusal),
            Err(refusal) => allocation.address_error = Some((family, refusal.code())),
        }
    }
    // Both were optional, but nothing at all is no allocation.
    match (allocation.expires(), allocation.address_error) {
        (None, Some((_, 440))) => Err(Refusal::AddressFamilyNotSupported),
        (None, _) => Err(Refusal::InsufficientCapacity),
        _ => Ok(()),
    }
}

/// Keeps the port after this one, and returns the token for it.
fn reserve_next(server: &mut Server, port: Port, now: Instant) -> u64 {
    let token = server.random.u64();
    let reserved = Reservation {
        port: Port {
            number: port.number + 1,
            ..port
        },
        expires: now + reservation::LIFETIME,
    };
    server.config.shared.reserve(token, reserved);
    server
        .timers
        .schedule(reserved.expires, Reason::Reservation(token));
    token
}

/// Undoes [`take_ports`] and [`reserve_next`].
fn give_back(server: &mut Server, allocation: &Allocation, now: Instant) {
    for relay in allocation.relays.iter().flatten() {
        server.config.shared.release_port(relay.port, now);
    }
    cancel_reservation(server, allocation.reservation, now);
}

fn cancel_reservation(server: &mut Server, token: Option<u64>, now: Instant) {
    let shared = &server.config.shared;
    if let Some(reserved) = token.and_then(|token| shared.take_reservation(token)) {
        shared.release_port(reserved.port, now);
    }
}

fn ask_for_socket(server: &mut Server, id: AllocationId, family: Family) {
    let Some(allocation) = server.table.get_mut(id) else {
        return;
    };
    let tcp = allocation.tcp.is_some();
    if let Some(relay) = allocation.relay(family) {
        let address = server.config.shared.bind_address(relay.port);
        let relay = RelayId {
            allocation: id,
            family,
        };
        server.outputs.push_back(if tcp {
            Output::OpenTcpRelay { relay, address }
        } else {
            Output::OpenRelay { relay, address }
        });
    }
}

pub(crate) fn on_relay_opened(
    server: &mut Server,
    now: Now,
    id: RelayId,
    result: Result<(), OpenError>,
) {
    let Some(allocation) = server.table.get_mut(id.allocation) else {
        return;
    };
    let Some(relay) = &mut allocation.relays[id.family as usize] else {
        return;
    };
    match result {
        Ok(()) => relay.open = true,
        Err(error) => {
            let in_use = error == OpenError::PortInUse;
            on_relay_refused(server, now.instant, id, in_use);
        }
    }
    finish(server, now.instant, id.allocation);
}

/// Another port, or no relayed address of this family.
fn on_relay_refused(server: &mut Server, now: Instant, id: RelayId, in_use: bool) {
    let index = id.family as usize;
    let Some(allocation) = server.table.get_mut(id.allocation) else {
        return;
    };
    let Some(refused) = allocation.relays[index].take() else {
        return;
    };
    let Some(opening) = &mut allocation.opening else {
        return;
    };
    let again = in_use && opening.attempts > 0;
    opening.attempts = opening.attempts.saturating_sub(1);
    let ports = opening.ports;
    let token = allocation.reservation.take();
    // It rests in the pool, so that the next attempt takes another one while there are others.
    server.config.shared.release_port(refused.port, now);
    cancel_reservation(server, token, now);
    let taken = if again {
        server.take_port(id.family, ports, now).ok()
    } else {
        None
    };
    let relay = taken.map(|port| server.relay_of(port, refused.expires));
    let reservation = match taken {
        Some(port) if ports == PortKind::EvenOfPair => Some(reserve_next(server, port, now)),
        _ => None,
    };
    let Some(allocation) = server.table.get_mut(id.allocation) else {
        return;
    };
    allocation.relays[index] = relay;
    allocation.reservation = reservation;
    if relay.is_some() {
        ask_for_socket(server, id.allocation, id.family);
    } else {
        allocation.address_error = Some((id.family, Refusal::InsufficientCapacity.code()));
    }
}

/// Answers, if nothing more is waited for.
fn finish(server: &mut Server, now: Instant, id: AllocationId) {
    let Some(allocation) = server.table.get_mut(id) else {
        return;
    };
    if !allocation.relays.iter().flatten().all(|relay| relay.open) {
        return;
    }
    let Some(opening) = allocation.opening.take() else {
        return;
    };
    let missing =
        |family: Family| opening.required[family as usize] && allocation.relay(family).is_none();
    let failed = allocation.expires().is_none() || Family::BOTH.into_iter().any(missing);
    let path = allocation.path;
    let answer = if failed {
        let code = Refusal::InsufficientCapacity.code();
        let transaction = allocation.transaction;
        let token = allocation.reservation.take();
        cancel_reservation(server, token, now);
        server.close_relays(id, now);
        server.remove(id);
        server.stats.on_error_response(code);
        Answer::error_to(ALLOCATE, transaction, code)
    } else {
        server.stats.allocations_created += 1;
        allocation.counters.relayed = allocation
            .relays
            .map(|relay| relay.map(|relay| relay.advertised.0));
        let Some(allocation) = server.table.get(id) else {
            return;
        };
        success(allocation, server.ticket_of(id, allocation))
    };
    server.answer_signed(path, answer, &opening.signer);
}

fn success(allocation: &Allocation, ticket: Option<String>) -> Answer {
    let mut answer = Answer::success(ALLOCATE, allocation.transaction);
    for relay in allocation.relays.iter().flatten() {
        answer.add_relayed(relay.advertised.0);
    }
    // At most `Limits::max_lifetime`.
    answer.add_lifetime(allocation.lifetime.as_secs() as u32);
    if let Some(token) = allocation.reservation {
        answer.add_reservation(token);
    }
    answer.add_mapped(allocation.path.client.0);
    if let Some(ticket) = ticket {
        answer.add_ticket(&ticket);
    }
    if let Some((family, code)) = allocation.address_error {
        answer.add_address_error(family, code);
    }
    answer
}

impl Server {
    fn relay_of(&self, port: Port, expires: Instant) -> Relay {
        Relay {
            advertised: RelayedAddr(self.config.shared.advertised_address(port)),
            port,
            expires,
            open: false,
        }
    }

    fn take_port(&mut self, family: Family, kind: PortKind, now: Instant) -> Result<Port, Refusal> {
        let shared = &self.config.shared;
        let taken = shared.take_port(
            family == Family::V4,
            kind,
            self.config.relay_port,
            &mut self.random,
            now,
        );
        taken.map_err(|has_addresses| {
            if has_addresses {
                Refusal::InsufficientCapacity
            } else {
                Refusal::AddressFamilyNotSupported
            }
        })
    }
}
