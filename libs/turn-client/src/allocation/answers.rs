//! Answers of the relay: whose they are, whether they are authentic, and what follows.

use std::time::{Duration, Instant};

use model::{MappedAddr, RelayedAddr};
use stun_types::attribute::{AttributeStaticType, ErrorCode, Nonce, XorMappedAddress};
use stun_types::message::MessageClass;
use turn_types::attribute::{Lifetime, XorRelayedAddress};
use wire::stun::Message;

use super::{Allocation, Grant, LIFETIME, Phase, moving};
use crate::output::{DropReason, Event, LostReason, Received};
use crate::timer::Due;
use crate::transaction::{Request, Transaction};
use wire::stun::write::read_address;

/// How often one request is signed anew, lest a relay keep us busy with nonces.
const MAX_CHALLENGES: u8 = 3;
/// Refreshed well before the 300 s and 600 s that they last, with time for every repetition.
const PERMISSION_REFRESH: Duration = Duration::from_secs(200);
const CHANNEL_REFRESH: Duration = Duration::from_secs(400);
const JITTER: Duration = Duration::from_secs(20);
/// After a refusal that will hardly be taken back soon.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);
/// Between two attempts at a relay that answers with errors.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// One that is used hears at least this often how long it will last; one that is not asks more often whether its relay is
/// there at all.
const NEWS: Duration = Duration::from_secs(5);

/// Longest lifetime believed, in seconds.
const MAX_LIFETIME: u32 = 3_600;

impl Allocation {
    pub(super) fn on_answer(&mut self, now: Instant, message: &Message<'_>) -> Received<'static> {
        if message.class() == MessageClass::Request {
            return Received::Dropped(DropReason::Unexpected);
        }
        let id = message.transaction_id();
        let Some(transaction) = self.transactions.get(id) else {
            return Received::Dropped(DropReason::UnknownTransaction);
        };
        if transaction.request.method() != message.method() {
            return Received::Dropped(DropReason::Unexpected);
        }
        if !is_authentic(transaction, message) {
            return Received::Dropped(DropReason::NotAuthentic);
        }
        let error = match message.class() {
            MessageClass::Error => match message.attribute::<ErrorCode>() {
                Ok(Some(error)) => Some(error),
                _ => return Received::Dropped(DropReason::Malformed),
            },
            _ => None,
        };
        let challenged = error
            .as_ref()
            .is_some_and(|e| matches!(e.code(), 401 | 438));
        // A relay may refuse a signed request without asking for another signature.
        let refused = transaction.signed.is_some() && !message.has(Nonce::TYPE);
        if challenged && !refused && !self.authenticator.learn(message) {
            return Received::Dropped(DropReason::NotAuthentic);
        }
        let Some(transaction) = self.transactions.remove(id) else {
            return Received::Dropped(DropReason::UnknownTransaction);
        };
        self.on_heard(now);
        self.rtt = transaction.rtt(now).or(self.rtt);
        match error {
            None => self.on_success(&transaction, message, now),
            Some(_) if challenged => self.on_challenge(&transaction, now),
            Some(error) => self.on_error(transaction.request, &error, now),
        }
        Received::Handled
    }

    fn on_success(&mut self, transaction: &Transaction, message: &Message<'_>, now: Instant) {
        match transaction.request {
            Request::Allocate => match read_grant(message, now) {
                Some(grant) => {
                    self.ticket = moving::read_ticket(message);
                    self.activate(grant, now);
                }
                None => {
                    self.say_lost(LostReason::Nonsense);
                    self.wait(now, REFUSED_PAUSE);
                }
            },
            Request::Resume => {
                self.ticket = moving::read_ticket(message).or(self.ticket.take());
                if let Some(mut grant) = self.grant.take() {
                    grant.ending = false;
                    self.activate(grant, now);
                    self.on_lifetime(read_lifetime(message), now);
                }
            }
            Request::Delete => self.send(Request::Allocate, 0, now),
            Request::Refresh | Request::Probe => {
                self.on_lifetime(read_lifetime(message), now);
                self.wants_credential = None;
            }
            Request::Fence => self.ask_to_move(now),
            Request::Move => self.on_moved(message, now),
            Request::Permission(ip) => {
                let again = self
                    .random
                    .duration(PERMISSION_REFRESH, PERMISSION_REFRESH + JITTER);
                self.timers.set(now + again, Due::Permission(ip));
                let ready = self.peers.on_permission(ip, now + again);
                self.events.extend(ready.into_iter().map(Event::PeerReady));
            }
            Request::Channel(index, peer) => {
                let again = self
                    .random
                    .duration(CHANNEL_REFRESH, CHANNEL_REFRESH + JITTER);
                let bound = self.peers.on_bound(index, peer, now, now + again);
                if let Some(news) = bound {
                    self.timers.set(now + again, Due::Channel(index));
                    self.events.extend(news.then_some(Event::PeerReady(peer)));
                }
            }
        }
    }

    /// How long the allocation will last. A relay grants less than it once did when it will be gone by then: ours while it
    /// drains ([RFC 8656 section 7.2](https://www.rfc-editor.org/rfc/rfc8656#section-7.2) leaves the longest lifetime to it).
    pub(super) fn on_lifetime(&mut self, seconds: u32, now: Instant) {
        let Some(grant) = &mut self.grant else { return };
        set_lifetime(grant, seconds, now);
        let ends = seconds < grant.most;
        grant.most = grant.most.max(seconds);
        if ends && !std::mem::replace(&mut grant.ending, true) {
            let left = Duration::from_secs(u64::from(seconds));
            self.events.push_back(Event::Ending { left });
        }
    }

    fn activate(&mut self, grant: Grant, now: Instant) {
        let same = self
            .grant
            .as_ref()
            .is_none_or(|old| old.relayed == grant.relayed);
        self.stats.allocated += 1;
        self.phase = Phase::Active;
        self.said = None;
        self.resumable = false;
        let (relayed, mapped) = (grant.relayed.clone(), grant.mapped);
        self.grant = Some(grant);
        self.events.push_back(Event::Allocated { relayed, mapped });
        if !same {
            self.peers.clear();
            return;
        }
        let (addresses, channels) = self.peers.wanted();
        for ip in addresses {
            self.send(Request::Permission(ip), 0, now);
        }
        for (index, peer) in channels {
            self.bind(index, peer, now);
        }
    }

    /// 401 or 438, and what to sign with was learned.
    fn on_challenge(&mut self, transaction: &Transaction, now: Instant) {
        let request = transaction.request;
        let used = transaction
            .signed
            .as_ref()
            .map(|(generation, _)| *generation);
        let news = used != Some(self.authenticator.generation());
        if news && transaction.challenges < MAX_CHALLENGES {
            return self.send(request, transaction.challenges + 1, now);
        }
        if self.authenticator.adopt_next() {
            return self.send(request, 0, now);
        }
        match self.phase {
            Phase::Active => {
                if self.wants_credential.is_none() {
                    self.events.push_back(Event::NeedCredential);
                    self.wants_credential = Some(now + super::upkeep::SAY_AGAIN);
                }
                self.retry_later(request, now, Duration::from_secs(5));
            }
            Phase::Closed => {}
            _ => {
                self.say_lost(LostReason::Unauthorized);
                self.events.push_back(Event::NeedCredential);
                self.transactions.clear();
                self.timers.clear();
                self.phase = Phase::NeedCredential {
                    say_again: now + super::upkeep::SAY_AGAIN,
                };
            }
        }
    }

    fn on_error(&mut self, request: Request, error: &ErrorCode, now: Instant) {
        match (request, error.code()) {
            // It can, but does not want to: RFC 8016 section 3.1.1.
            (Request::Allocate, 405) if self.mobile => {
                self.mobile = false;
                self.send(Request::Allocate, 0, now);
            }
            (Request::Fence, _) => self.ask_to_move(now),
            (Request::Move, _) => {
                // Not what the relay gave us, or not any more: it moves nothing.
                self.ticket = None;
                self.on_not_moved(now);
                if matches!(self.phase, Phase::Active) {
                    // Perhaps the relay was restarted and knows nothing of the allocation either.
                    self.send(Request::Probe, 0, now);
                }
            }
            // Nothing to resume or to delete: what we want is the next step anyway.
            (Request::Resume | Request::Delete, 400 | 437) => {
                self.resumable = false;
                self.ticket = None;
                self.send(Request::Allocate, 0, now);
            }
            (Request::Allocate, 437) if !self.deleted => {
                self.deleted = true;
                self.send(Request::Delete, 0, now);
            }
            (Request::Allocate | Request::Resume | Request::Delete, code) => {
                self.resumable = false;
                let reason = match (request, code) {
                    (Request::Allocate, 437) | (Request::Delete, 441) => LostReason::PortTaken,
                    (_, 441) => LostReason::WrongCredential,
                    _ => LostReason::Refused {
                        code,
                        reason: error.reason().to_owned(),
                    },
                };
                self.say_lost(reason);
                self.wait(now, REFUSED_PAUSE);
            }
            // A NAT gave us another address, perhaps: the ticket shows whose we are.
            (_, 437) if self.moving.is_none() && self.ticket.is_some() => {
                let config = &self.config;
                let (transport, server, local) = (config.transport, config.server, config.local);
                self.move_to(transport, server, local, true, now);
            }
            (_, 437) if self.moving.is_some() => {}
            (_, 437) => self.lose(LostReason::Mismatch, now),
            (Request::Refresh | Request::Probe, 441) => self.lose(LostReason::WrongCredential, now),
            (Request::Permission(ip), 403) => {
                self.stats.forbidden += self.peers.on_forbidden(ip);
                tracing::debug!(%ip, "the relay forbids this peer (403)");
                self.retry_later(request, now, REFUSED_AGAIN);
            }
            (Request::Channel(index, peer), _) => {
                if self
                    .peers
                    .on_bind_failed(index, peer, now, now + REFUSED_AGAIN, true)
                {
                    self.timers.set(now + REFUSED_AGAIN, Due::Channel(index));
                }
            }
            (_, code) => {
                tracing::debug!(code, ?request, "the relay refuses a request");
                self.retry_later(request, now, Duration::from_secs(5));
            }
        }
    }

    /// Puts off what an allocation needs and did not get.
    pub(super) fn retry_later(&mut self, request: Request, now: Instant, pause: Duration) {
        let again = now + pause;
        match request {
            Request::Permission(ip) => {
                if self.peers.on_permission_refused(ip, again) {
                    self.timers.set(again, Due::Permission(ip));
                }
            }
            Request::Channel(index, peer) => {
                if self.peers.on_bind_failed(index, peer, now, again, false) {
                    self.timers.set(again, Due::Channel(index));
                }
            }
            Request::Refresh => {
                if let Some(grant) = &mut self.grant {
                    grant.refresh = again;
                }
            }
            Request::Allocate | Request::Resume | Request::Delete | Request::Probe => {}
            Request::Fence => self.ask_to_move(now),
            Request::Move => self.on_not_moved(now),
        }
    }
}

/// A success must be signed as the request was. An error may come without: the relay cannot sign 401 and 438, many do
/// not sign the others, and whoever can forge one could as well swallow the request. But a signature must be right.
fn is_authentic(transaction: &Transaction, message: &Message<'_>) -> bool {
    match (&transaction.signed, message.integrity()) {
        (Some((_, key)), Some(integrity)) => key.verifies(&integrity),
        (Some(_), None) => message.class() == MessageClass::Error,
        (None, _) => true,
    }
}

pub(super) fn read_lifetime(message: &Message<'_>) -> u32 {
    let value = message
        .value(Lifetime::TYPE)
        .and_then(|value| value.first_chunk());
    value
        .map_or(LIFETIME, |bytes| u32::from_be_bytes(*bytes))
        .min(MAX_LIFETIME)
}

/// Refreshed at half time, so that half of it is left for the repetitions, and sooner for the news in the answer.
fn set_lifetime(grant: &mut Grant, seconds: u32, now: Instant) {
    let lifetime = Duration::from_secs(u64::from(seconds));
    grant.expires = now + lifetime;
    grant.refresh = now + (lifetime / 2).min(NEWS);
}

fn read_grant(message: &Message<'_>, now: Instant) -> Option<Grant> {
    let id = message.transaction_id();
    let mapped = message
        .value(XorMappedAddress::TYPE)
        .and_then(|v| read_address(v, id))?;
    let mut relayed: Vec<RelayedAddr> = message
        .attributes()
        .filter(|(kind, _)| *kind == XorRelayedAddress::TYPE)
        .filter_map(|(_, value)| read_address(value, id))
        .filter(|address| !address.ip().is_unspecified() && address.port() != 0)
        .map(RelayedAddr)
        .collect();
    // One of each family, IPv4 first.
    relayed.sort_unstable_by_key(|address| !address.0.is_ipv4());
    relayed.dedup_by_key(|address| address.0.is_ipv4());
    if relayed.is_empty() {
        return None;
    }
    let seconds = read_lifetime(message);
    let mut grant = Grant {
        relayed,
        mapped: MappedAddr(mapped),
        expires: now,
        refresh: now,
        most: seconds,
        ending: false,
    };
    set_lifetime(&mut grant, seconds, now);
    (grant.expires > now).then_some(grant)
}
