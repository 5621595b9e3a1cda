//! Users that only the site knows: the shell asks it, and the mind goes on meanwhile.
//!
//! Asked about is who shows a nonce that was sent to its address, and names no user that is known here. Its request waits
//! for the answer, which is remembered for a while, a refusal too. All of that is bounded, and nobody gets in for want of
//! an answer.

use crate::auth::HashedPassword;
use crate::request::answer::Answer;
use crate::{DropReason, FiveTuple, Now, Output, RealmUser, Server, Verdict, request};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use stun_types::attribute::{AttributeStaticType, Username};
use wire::stun::Message;

/// Requests that wait for an answer about one user: of several clients of that name.
const WAITING_OF_ONE: usize = 16;
/// The longest request that waits, in bytes.
const LONGEST: usize = 2_048;
/// An answer is remembered for a second at least, and counts for what waits for it in any case.
const SHORTEST: Duration = Duration::from_secs(1);

/// Bounds of one realm on one server (one shard of a process), both at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupLimits {
    /// Answers that are remembered: so many users, and as many refusals. Beyond, what ends first is forgotten.
    pub remembered: usize,
    /// Requests that wait. Beyond, they are answered by 500.
    pub waiting: usize,
}

/// What is known of a user who was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookedUp {
    User {
        keys: HashedPassword,
        /// Who it is, for quotas and for who owns an allocation; the user name itself if `None`.
        identity: Option<Box<str>>,
        remember: Duration,
    },
    Refused {
        remember: Duration,
    },
    /// Nobody answered, or nothing that could be understood: 500, and the next request asks again.
    Failed,
}

/// A user who was found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) keys: HashedPassword,
    pub(crate) identity: Option<Box<str>>,
    until: Instant,
}

#[derive(Debug)]
struct Waiting {
    path: FiveTuple,
    request: Box<[u8]>,
}

/// What was asked and answered about users of one realm. Ordered maps: strangers choose the names.
#[derive(Debug, Default)]
pub(crate) struct Lookups {
    found: BTreeMap<Box<str>, Found>,
    refused: BTreeMap<Box<str>, Instant>,
    waiting: BTreeMap<Box<str>, Vec<Waiting>>,
    waiting_count: usize,
}

/// What is known about a name.
pub(crate) enum Known<'l> {
    Found(&'l Found),
    Refused,
    Nothing,
}

impl Lookups {
    pub(crate) fn get(&self, name: &str, now: Instant) -> Known<'_> {
        if let Some(found) = self.found.get(name).filter(|found| found.until > now) {
            return Known::Found(found);
        }
        match self.refused.get(name) {
            Some(until) if *until > now => Known::Refused,
            _ => Known::Nothing,
        }
    }

    /// What waits goes on waiting.
    pub(crate) fn forget_answers(&mut self) {
        self.found.clear();
        self.refused.clear();
    }

    /// A client's connection has ended.
    pub(crate) fn forget_requests(&mut self, path: FiveTuple) {
        for waiting in self.waiting.values_mut() {
            let before = waiting.len();
            waiting.retain(|waiting| waiting.path != path);
            self.waiting_count -= before - waiting.len();
        }
    }

    fn remember(&mut self, name: Box<str>, answer: &LookedUp, most: usize, now: Instant) {
        match answer {
            LookedUp::User {
                keys,
                identity,
                remember,
            } => {
                self.refused.remove(&name);
                make_room(&mut self.found, most, now, |found| found.until);
                let found = Found {
                    keys: keys.clone(),
                    identity: identity.clone(),
                    until: now + (*remember).max(SHORTEST),
                };
                self.found.insert(name, found);
            }
            LookedUp::Refused { remember } => {
                self.found.remove(&name);
                make_room(&mut self.refused, most, now, |until| *until);
                self.refused.insert(name, now + (*remember).max(SHORTEST));
            }
            LookedUp::Failed => {}
        }
    }
}

/// For one more: forgets what is over, or else what ends first. Walks over all, once for each answer of the site.
fn make_room<T>(
    map: &mut BTreeMap<Box<str>, T>,
    most: usize,
    now: Instant,
    until: impl Fn(&T) -> Instant,
) {
    if map.len() < most {
        return;
    }
    map.retain(|_, value| until(value) > now);
    while map.len() >= most.max(1) {
        let first = map.iter().min_by_key(|(_, value)| until(value));
        let Some(name) = first.map(|(name, _)| name.clone()) else {
            return;
        };
        map.remove(&name);
    }
}

impl Server {
    /// Lets a request wait, and asks about its user if nobody has yet.
    pub(crate) fn look_up(
        &mut self,
        now: Now,
        path: FiveTuple,
        message: &Message<'_>,
    ) -> Verdict<'static> {
        let name = message.value(Username::TYPE).map(std::str::from_utf8);
        let realm = self.config.realms.of_request(message);
        let asking = realm.and_then(|realm| Some((realm, realm.credentials.lookup()?)));
        let (Some(Ok(name)), Some((realm, limits))) = (name, asking) else {
            return Verdict::Dropped(DropReason::MalformedStun);
        };
        let asked = realm.user(name);
        let lookups = self.lookups.entry(asked.realm.clone()).or_default();
        let waiting = lookups.waiting.get(name).map_or(&[][..], Vec::as_slice);
        let request = message.as_bytes();
        if waiting
            .iter()
            .any(|waiting| waiting.path == path && *waiting.request == *request)
        {
            // A retransmission.
            return Verdict::Handled;
        }
        let has_room = lookups.waiting_count < limits.waiting
            && waiting.len() < WAITING_OF_ONE
            && request.len() <= LONGEST;
        if !has_room {
            self.stats.lookups_without_room += 1;
            return self.answer_failed_lookup(now, path, message);
        }
        let waiting = Waiting {
            path,
            request: request.into(),
        };
        lookups.waiting_count += 1;
        if let Some(others) = lookups.waiting.get_mut(name) {
            others.push(waiting);
        } else {
            lookups.waiting.insert(name.into(), vec![waiting]);
            self.stats.lookups += 1;
            self.outputs.push_back(Output::LookUp { user: asked });
        }
        Verdict::Handled
    }

    /// The answer to [`Output::LookUp`]; there must be one to each.
    pub fn handle_looked_up(&mut self, now: Now, user: &RealmUser, answer: &LookedUp) {
        let Some(lookups) = self.lookups.get_mut(&user.realm) else {
            return;
        };
        let Some((name, waiting)) = lookups.waiting.remove_entry(&*user.name) else {
            return;
        };
        lookups.waiting_count -= waiting.len();
        let realm = self.config.realms.named(user.realm.as_bytes());
        let Some(limits) = realm.and_then(|realm| realm.credentials.lookup()) else {
            return;
        };
        lookups.remember(name, answer, limits.remembered, now.instant);
        for Waiting { path, request } in waiting {
            // It was read before.
            let Ok(message) = Message::decode(&request) else {
                continue;
            };
            let verdict = match answer {
                LookedUp::Failed => self.answer_failed_lookup(now, path, &message),
                _ => request::handle_again(self, now, path, &message),
            };
            self.count(&verdict, 1);
        }
    }

    fn answer_failed_lookup(
        &mut self,
        now: Now,
        path: FiveTuple,
        message: &Message<'_>,
    ) -> Verdict<'static> {
        if !self.admits_stranger(now, path) {
            return Verdict::Dropped(DropReason::UnauthenticatedRate);
        }
        self.stats.on_error_response(500);
        self.answer_stranger(path, message, Answer::error(message, 500));
        Verdict::Handled
    }
}
