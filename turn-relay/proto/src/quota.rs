//! How many allocations one user may hold.

use rustc_hash::FxHashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts allocations per user, for all shards of a process together. Locked when an allocation is made or ends, never
/// for a packet. Holds an entry only for users with an allocation.
#[derive(Clone, Debug)]
pub struct Quota {
    limit: u32,
    held: Arc<Mutex<FxHashMap<Box<str>, u32>>>,
}

impl Quota {
    /// At most `limit` allocations for each user.
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            held: Arc::default(),
        }
    }

    /// Takes one, if the user may have one more.
    pub(crate) fn acquire(&self, user: &str) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        match held.get_mut(user) {
            Some(count) if *count >= self.limit => false,
            Some(count) => {
                *count += 1;
                true
            }
            None if self.limit == 0 => false,
            None => {
                held.insert(user.into(), 1);
                true
            }
        }
    }

    pub(crate) fn release(&self, user: &str) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                held.remove(user);
            }
        }
    }
}
