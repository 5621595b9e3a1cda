//! Answers to whoever proved nothing: small, without SOFTWARE and integrity, and nothing is remembered.
//!
//! Over UDP its address may be somebody else's: see [`gate`](crate::gate).

use super::answer::Answer;
use crate::auth::Challenge;
use crate::auth::nonce::{NONCE_LEN, SHORT_NONCE_LEN};
use crate::{DropReason, FiveTuple, Now, Server, Verdict, gate};
use stun_types::attribute::ErrorCode;
use wire::stun::Message;

/// Header of a message, and of an attribute.
const HEADER: usize = 20;
const OF_ATTRIBUTE: usize = 4;
/// ERROR-CODE without phrase, and PASSWORD-ALGORITHMS.
const SHORT_ERROR: usize = 8;
const ALGORITHMS: usize = 12;

/// Whether a client may be somebody else: it is over UDP, and did not show a nonce that was sent to its address.
fn may_be_spoofed(path: FiveTuple) -> bool {
    path.transport.connection().is_none()
}

/// How long an answer may be.
fn limit(path: FiveTuple, message: &Message<'_>) -> usize {
    if may_be_spoofed(path) {
        gate::fitting(message.size(), path.client.0.ip())
    } else {
        usize::MAX
    }
}

impl Server {
    /// Whether there is to be an answer to a request that is not known to be authentic. Asked before anything that takes
    /// long is done for it.
    pub(crate) fn admits_stranger(&mut self, now: Now, path: FiveTuple) -> bool {
        let nanos = self.nanos(now.instant);
        !may_be_spoofed(path) || self.gate.admit(path.client.0.ip(), nanos)
    }

    /// Answers without integrity, as long as that is short enough.
    pub(crate) fn answer_stranger(
        &mut self,
        path: FiveTuple,
        message: &Message<'_>,
        answer: Answer,
    ) {
        self.answer(path, answer.unsigned_within(limit(path, message)));
    }

    /// Answers `path` by another way. What is too large for the request is sent a few times a second only.
    pub(super) fn answer_stranger_by(
        &mut self,
        now: Now,
        path: FiveTuple,
        message: &Message<'_>,
        answer: Answer,
        way: FiveTuple,
    ) -> Verdict<'static> {
        let limit = limit(path, message);
        let nanos = self.nanos(now.instant);
        if answer.len() > limit && !self.gate.admit_large(path.client.0.ip(), nanos) {
            return Verdict::Dropped(DropReason::UnauthenticatedSize);
        }
        self.answer(way, answer.unsigned_within(limit));
        Verdict::Handled
    }

    /// 400, 401 or 438.
    pub(super) fn challenge(
        &mut self,
        now: Now,
        path: FiveTuple,
        message: &Message<'_>,
        challenge: Challenge,
    ) -> Verdict<'static> {
        let code = match challenge {
            Challenge::BadRequest => 400,
            Challenge::Unauthorized | Challenge::Revoked => 401,
            Challenge::StaleNonce | Challenge::UnknownStale => 438,
            // It waits, and is not challenged.
            Challenge::LookUp => return self.look_up(now, path, message),
        };
        let limit = match challenge {
            // It proved that it holds the password, with a request that is no small one.
            Challenge::StaleNonce => usize::MAX,
            _ => limit(path, message),
        };
        let realm = self.challenging_realm(path, message);
        let third_party = realm.credentials.third_party();
        let realm = realm.name();
        let padded = |len: usize| len.next_multiple_of(4);
        let with_nonce = |len: usize| {
            let realm = OF_ATTRIBUTE + padded(realm.len());
            let third_party = third_party.map_or(0, |name| OF_ATTRIBUTE + padded(name.len()));
            HEADER + SHORT_ERROR + realm + third_party + OF_ATTRIBUTE + padded(len)
        };
        let full = with_nonce(NONCE_LEN) + ALGORITHMS;
        let nanos = self.nanos(now.instant);
        // The whole challenge, as far as the allowance goes: there are clients that log in with SHA-256 or not at all.
        let is_large = challenge != Challenge::BadRequest && full > limit;
        let limit = if is_large && self.gate.admit_large(path.client.0.ip(), nanos) {
            full
        } else {
            limit
        };
        let needed = match challenge {
            Challenge::BadRequest => HEADER + SHORT_ERROR,
            _ if full <= limit => full,
            _ => with_nonce(SHORT_NONCE_LEN),
        };
        if needed > limit {
            return Verdict::Dropped(DropReason::UnauthenticatedSize);
        }
        let phrase = padded(ErrorCode::default_reason_for_code(code).len());
        let mut answer = if needed.saturating_add(phrase) <= limit {
            Answer::error(message, code)
        } else {
            Answer::short_error(message, code)
        };
        let (now, client) = (now.instant, path.nonce_client());
        match challenge {
            Challenge::BadRequest => {}
            _ if full <= limit => {
                answer.add_challenge(realm, &self.nonces.issue(now, client, realm));
                answer.add_password_algorithms();
            }
            _ => answer.add_challenge(realm, &self.nonces.issue_short(now, client, realm)),
        }
        if let Some(name) = third_party.filter(|_| challenge != Challenge::BadRequest) {
            answer.add_third_party(name);
        }
        self.stats.on_error_response(code);
        self.stats.revoked_requests += u64::from(challenge == Challenge::Revoked);
        self.answer(path, answer.unsigned_within(limit));
        Verdict::Handled
    }
}
