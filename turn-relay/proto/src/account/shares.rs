//! What users have together: the users of a realm, and those of all realms.

use super::{Account, CurrentLimits, Exceeded, Ledger, Meter, UsageLimits};
use crate::{Direction, Traffic, Usage};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bounds of what all realms together use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayLimits {
    /// Allocations at a time; beyond it 508, or 300 where there is another relay.
    pub allocations: u32,
    /// Bytes of application data per second, in each direction; 0 for any number. When all users together want more, each
    /// gets the same, except those who want less, whichever realms they are of.
    pub rate: u64,
}

impl Default for RelayLimits {
    /// No bounds.
    fn default() -> Self {
        Self {
            allocations: u32::MAX,
            rate: 0,
        }
    }
}

/// Of all realms.
#[derive(Debug)]
pub(crate) struct RelayShare {
    allocations: AtomicU32,
    rate: AtomicU64,
    held: AtomicU32,
    totals: [Meter; 2],
    /// Whether packets are to be metered at all, for whichever bound.
    metered: AtomicBool,
}

impl Default for RelayShare {
    fn default() -> Self {
        Self {
            allocations: AtomicU32::new(u32::MAX),
            rate: AtomicU64::new(0),
            held: AtomicU32::new(0),
            totals: Default::default(),
            metered: AtomicBool::new(false),
        }
    }
}

impl RelayShare {
    pub(crate) fn set(&self, limits: RelayLimits) {
        self.allocations
            .store(limits.allocations, Ordering::Relaxed);
        self.rate.store(limits.rate, Ordering::Relaxed);
    }

    /// After a change of limits, with all realms that there are.
    pub(crate) fn review<'r>(&self, mut realms: impl Iterator<Item = &'r RealmUse>) {
        let metered = self.rate.load(Ordering::Relaxed) != 0
            || realms.any(|realm| realm.share.limits.meters());
        self.metered.store(metered, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn meters(&self) -> bool {
        self.metered.load(Ordering::Relaxed)
    }

    fn acquire(&self) -> bool {
        let most = self.allocations.load(Ordering::Relaxed);
        let more = |held: u32| (held < most).then_some(held + 1);
        let order = Ordering::Relaxed;
        self.held.fetch_update(order, order, more).is_ok()
    }

    fn release(&self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Of one realm, as its users' accounts know it.
#[derive(Debug, Default)]
pub(crate) struct RealmShare {
    pub(super) limits: CurrentLimits,
    totals: [Meter; 2],
    /// Bytes of TCP to peers, by direction.
    joined: [AtomicU64; 2],
    relay: Arc<RelayShare>,
}

/// What a user's bytes pay into, in one direction: its own bucket, which knows its level in the realm's, and its level in
/// the relay's.
struct Meters<'a> {
    user: &'a Meter,
    realm: &'a Meter,
    in_relay: &'a Meter,
    relay: &'a Meter,
}

impl Account {
    /// How many of `count` packets may pass; they are paid for. `now` in nanoseconds of the process.
    pub(crate) fn admit(&self, direction: Direction, len: usize, count: usize, now: u64) -> usize {
        let [of_user, of_realm, of_relay] = self.rates();
        let Meters {
            user,
            realm,
            in_relay,
            relay,
        } = self.meters(direction);
        let within_user = match of_user {
            0 => count,
            rate => user.take(rate, len, count, now),
        };
        let within_realm = match of_realm {
            0 => within_user,
            rate => user.take_fairly(realm, rate, len, within_user, now),
        };
        let passed = match of_relay {
            0 => within_realm,
            rate => in_relay.take_fairly(relay, rate, len, within_realm, now),
        };
        if of_user != 0 && passed < within_user {
            user.give_back(of_user, len, within_user - passed);
        }
        if of_realm != 0 && passed < within_realm {
            user.give_back_fairly(realm, of_realm, len, within_realm - passed, now);
        }
        passed
    }

    /// How many bytes of a stream may pass now. They are to be paid for by [`Account::pay`].
    pub(crate) fn room(&self, direction: Direction, now: u64) -> usize {
        let [of_user, of_realm, of_relay] = self.rates();
        let Meters {
            user,
            realm,
            in_relay,
            relay,
        } = self.meters(direction);
        let mut room = usize::MAX;
        if of_user != 0 {
            room = room.min(user.room(of_user, now));
        }
        if of_realm != 0 {
            room = room.min(user.fair_room(realm, of_realm, now));
        }
        if of_relay != 0 {
            room = room.min(in_relay.fair_room(relay, of_relay, now));
        }
        room
    }

    /// For bytes of a stream that have passed.
    pub(crate) fn pay(&self, direction: Direction, bytes: usize, now: u64) {
        let [of_user, of_realm, of_relay] = self.rates();
        let Meters {
            user,
            realm,
            in_relay,
            relay,
        } = self.meters(direction);
        let joined = &self.realm.joined[direction as usize];
        joined.fetch_add(bytes as u64, Ordering::Relaxed);
        if of_user != 0 {
            user.pay(of_user, bytes, now);
        }
        if of_realm != 0 {
            user.pay_fairly(realm, of_realm, bytes, now);
        }
        if of_relay != 0 {
            in_relay.pay_fairly(relay, of_relay, bytes, now);
        }
    }

    fn meters(&self, direction: Direction) -> Meters<'_> {
        let at = direction as usize;
        Meters {
            user: &self.meters[at],
            realm: &self.realm.totals[at],
            in_relay: &self.in_relay[at],
            relay: &self.realm.relay.totals[at],
        }
    }

    /// Of the user, the realm and the relay; 0 for any.
    fn rates(&self) -> [u64; 3] {
        let limits = &self.realm.limits;
        [
            limits.user_rate.load(Ordering::Relaxed),
            limits.total_rate.load(Ordering::Relaxed),
            self.realm.relay.rate.load(Ordering::Relaxed),
        ]
    }
}

/// What the users of one realm use, and may use.
#[derive(Debug)]
pub(crate) struct RealmUse {
    /// A small number that no other realm of the process has.
    pub(crate) number: usize,
    share: Arc<RealmShare>,
    ledger: Mutex<Ledger>,
}

impl RealmUse {
    pub(crate) fn new(number: usize, relay: &Arc<RelayShare>) -> Self {
        let share = RealmShare {
            relay: relay.clone(),
            ..RealmShare::default()
        };
        share.limits.set(UsageLimits::default());
        Self {
            number,
            share: Arc::new(share),
            ledger: Mutex::default(),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Each change is complete before anything could panic.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn limits(&self) -> &CurrentLimits {
        &self.share.limits
    }

    /// Allocations now.
    pub(crate) fn held(&self) -> u32 {
        self.ledger().held()
    }

    /// What TCP to peers carried. Its packets are nobody's to count.
    pub(crate) fn joined(&self) -> Usage {
        let of = |direction: Direction| Traffic {
            packets: 0,
            bytes: self.share.joined[direction as usize].load(Ordering::Relaxed),
        };
        Usage {
            to_peer: of(Direction::ToPeer),
            to_client: of(Direction::ToClient),
        }
    }

    /// One more allocation of a user; `now` in nanoseconds of the process.
    pub(crate) fn acquire(&self, user: &str, now: u64) -> Result<Arc<Account>, Exceeded> {
        if !self.share.relay.acquire() {
            return Err(Exceeded::Total);
        }
        let acquired = self.ledger().acquire(user, &self.share, now);
        if acquired.is_err() {
            self.share.relay.release();
        }
        acquired
    }

    /// For an allocation that was made in another process, whatever the limits are now.
    pub(crate) fn inherit(&self, user: &str) -> Arc<Account> {
        self.share.relay.held.fetch_add(1, Ordering::Relaxed);
        self.ledger().inherit(user, &self.share)
    }

    /// One allocation less.
    pub(crate) fn release(&self, user: &str) {
        if self.ledger().release(user) {
            self.share.relay.release();
        }
    }
}
