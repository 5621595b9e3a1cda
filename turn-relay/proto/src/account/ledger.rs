//! All accounts of a realm, and how many allocations each has.

use super::{Account, RealmShare};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Accounts without allocation that are remembered, so that nobody is new again by giving its allocation back.
const MOST_RESTING: usize = 16_384;

/// Why there is no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exceeded {
    User,
    Total,
}

#[derive(Debug)]
struct Entry {
    held: u32,
    /// Whether it is among those who rest.
    resting: bool,
    account: Arc<Account>,
}

/// By user. Locked when an allocation is made or ends.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: FxHashMap<Box<str>, Entry>,
    held: u32,
    /// Users whose last allocation ended, the longest ago first; some may have others again.
    resting: VecDeque<Box<str>>,
}

impl Ledger {
    /// Takes one allocation, if the user may have one more.
    pub(crate) fn acquire(
        &mut self,
        user: &str,
        realm: &Arc<RealmShare>,
        now: u64,
    ) -> Result<Arc<Account>, Exceeded> {
        let limits = &realm.limits;
        self.forget(now);
        if self.held >= limits.allocations.load(Ordering::Relaxed) {
            return Err(Exceeded::Total);
        }
        let limit = limits.allocations_per_user.load(Ordering::Relaxed);
        let held = self.entries.get(user).map_or(0, |entry| entry.held);
        if held >= limit {
            return Err(Exceeded::User);
        }
        Ok(self.inherit(user, realm))
    }

    /// Takes one allocation, whatever the limits are now.
    pub(crate) fn inherit(&mut self, user: &str, realm: &Arc<RealmShare>) -> Arc<Account> {
        self.held += 1;
        if let Some(entry) = self.entries.get_mut(user) {
            entry.held += 1;
            return entry.account.clone();
        }
        let account = Arc::new(Account::of(realm));
        let entry = Entry {
            held: 1,
            resting: false,
            account: account.clone(),
        };
        self.entries.insert(user.into(), entry);
        account
    }

    /// Of all users.
    pub(crate) fn held(&self) -> u32 {
        self.held
    }

    /// Whether there was one to be released.
    pub(crate) fn release(&mut self, user: &str) -> bool {
        let Some(entry) = self.entries.get_mut(user).filter(|entry| entry.held > 0) else {
            return false;
        };
        entry.held -= 1;
        self.held = self.held.saturating_sub(1);
        if entry.held == 0 && !entry.resting {
            entry.resting = true;
            self.resting.push_back(user.into());
        }
        true
    }

    /// Those who have nothing, and nothing to be remembered for.
    fn forget(&mut self, now: u64) {
        while let Some(user) = self.resting.front() {
            let crowded = self.resting.len() > MOST_RESTING;
            if let Some(entry) = self.entries.get_mut(user) {
                if entry.held == 0 && !entry.account.is_at_rest(now) && !crowded {
                    return;
                }
                entry.resting = false;
                if entry.held == 0 {
                    self.entries.remove(user);
                }
            }
            self.resting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{SCAN_WINDOW, UsageLimits};

    fn limits(per_user: u32, total: u32) -> Arc<RealmShare> {
        let realm = RealmShare::default();
        realm.limits.set(UsageLimits {
            allocations_per_user: per_user,
            allocations: total,
            new_peers: 1,
            ..UsageLimits::default()
        });
        realm.into()
    }

    #[test]
    fn a_user_and_all_together_have_a_bound_and_what_is_given_back_can_be_had_again() {
        let limits = limits(2, 3);
        let mut ledger = Ledger::default();
        assert!(ledger.acquire("a", &limits, 0).is_ok());
        assert!(ledger.acquire("a", &limits, 0).is_ok());
        assert_eq!(ledger.acquire("a", &limits, 0).err(), Some(Exceeded::User));
        assert!(ledger.acquire("b", &limits, 0).is_ok());
        assert_eq!(ledger.acquire("b", &limits, 0).err(), Some(Exceeded::Total));
        ledger.release("a");
        assert!(ledger.acquire("b", &limits, 0).is_ok());
        ledger.release("nobody");
        assert_eq!(ledger.held, 3);
    }

    #[test]
    fn whoever_comes_back_is_known_until_the_window_is_over_and_then_forgotten() {
        let limits = limits(1, 10);
        let mut ledger = Ledger::default();
        let ask = |account: &Account, host: u8, now: u64| {
            account.may_ask_for([10, 0, 0, host].into(), 7, now)
        };
        let account = ledger.acquire("a", &limits, 1).unwrap_or_default();
        assert!(ask(&account, 1, 1));
        assert!(!ask(&account, 2, 1));
        ledger.release("a");
        let account = ledger.acquire("a", &limits, 2).unwrap_or_default();
        assert!(!ask(&account, 2, 2));
        ledger.release("a");
        let later = 2 + SCAN_WINDOW.as_nanos() as u64;
        assert!(ledger.acquire("b", &limits, later).is_ok());
        assert_eq!(ledger.entries.len(), 1);
        assert!(ledger.resting.is_empty());
    }

    #[test]
    fn the_accounts_without_allocation_are_bounded() {
        let limits = limits(1, 10);
        let mut ledger = Ledger::default();
        for user in 0..MOST_RESTING + 100 {
            let user = user.to_string();
            let account = ledger.acquire(&user, &limits, 1).unwrap_or_default();
            account.may_ask_for([10, 0, 0, 1].into(), 7, 1);
            ledger.release(&user);
        }
        assert!(ledger.entries.len() <= MOST_RESTING + 1);
        assert!(ledger.resting.len() <= MOST_RESTING + 1);
    }
}
