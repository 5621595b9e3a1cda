//! How many allocations one user may hold.

use rustc_hash::FxHashMap;

/// Counts allocations per user. Holds an entry only for users with an allocation.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u32,
    held: FxHashMap<Box<str>, u32>,
}

impl Quota {
    /// At most `limit` allocations for each user.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            held: FxHashMap::default(),
        }
    }

    /// For what is taken from now on.
    pub(crate) fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Takes one, if the user may have one more.
    pub(crate) fn acquire(&mut self, user: &str) -> bool {
        match self.held.get_mut(user) {
            Some(count) if *count >= self.limit => false,
            Some(count) => {
                *count += 1;
                true
            }
            None if self.limit == 0 => false,
            None => {
                self.held.insert(user.into(), 1);
                true
            }
        }
    }

    /// Takes one, whatever the limit is now.
    pub(crate) fn inherit(&mut self, user: &str) {
        *self.held.entry(user.into()).or_default() += 1;
    }

    pub(crate) fn release(&mut self, user: &str) {
        if let Some(count) = self.held.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(user);
            }
        }
    }
}
