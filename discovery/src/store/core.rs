//! The store's mind: what happens to keys, leases and revisions. No I/O, no clock, no randomness.
//!
//! Invariants: the revision counts every change of a key and never exceeds what was reserved; a leased key is in its
//! lease's set and nowhere else; the ring holds the latest events without gaps; every change is in the changes
//! that the caller must make durable, except for ephemeral keys (mail).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use model::{LeaseId, Revision};

use super::{
    expiry::{Expiries, Expiring},
    types::{Change, Entry, Event, EventKind, Limits, StoreError},
};

#[derive(Debug)]
struct Lease {
    owner: String,
    ttl: Duration,
    deadline: Instant,
    keys: BTreeSet<Arc<str>>,
}

/// The state.
#[derive(Debug)]
pub struct Core {
    limits: Limits,
    entries: BTreeMap<Arc<str>, Entry>,
    revision: Revision,
    /// Asked for from the disk.
    reserving: Revision,
    /// Confirmed by the disk.
    reserved: Revision,
    ring: VecDeque<Event>,
    /// Watching from here on is possible.
    first_watchable: Revision,
    leases: BTreeMap<LeaseId, Lease>,
    expiries: Expiries,
    changes: Vec<Change>,
}

impl Core {
    /// An empty store whose first change will have the revision after `revision`. Nothing changes before
    /// [`Core::on_reserved`] confirms the first [`Change::Reserve`].
    #[must_use]
    pub fn new(limits: Limits, revision: Revision) -> Self {
        let mut core = Self {
            limits,
            entries: BTreeMap::new(),
            revision,
            reserving: revision,
            reserved: revision,
            ring: VecDeque::new(),
            first_watchable: revision.next(),
            leases: BTreeMap::new(),
            expiries: Expiries::default(),
            changes: Vec::new(),
        };
        core.reserve();
        core
    }

    /// Takes in a lease from the disk, with its full TTL. Before any key that goes with it.
    pub fn restore_lease(&mut self, id: LeaseId, owner: String, ttl: Duration, now: Instant) {
        let deadline = now + ttl;
        self.expiries.arm(deadline, Expiring::Lease(id));
        self.leases.insert(
            id,
            Lease {
                owner,
                ttl,
                deadline,
                keys: BTreeSet::new(),
            },
        );
    }

    /// Takes in a key from the disk. One whose lease is gone is deleted.
    pub fn restore_entry(&mut self, key: &str, entry: Entry) {
        let key: Arc<str> = key.into();
        match entry.lease.map(|id| self.leases.get_mut(&id)) {
            Some(None) => return self.changes.push(Change::Delete(key)),
            Some(Some(lease)) => {
                lease.keys.insert(key.clone());
            }
            None => {}
        }
        self.entries.insert(key, entry);
    }

    /// The latest change.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys and leases there are.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.entries.len(), self.leases.len())
    }

    /// What must be made durable since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The disk has this [`Change::Reserve`].
    pub fn on_reserved(&mut self, bound: Revision) {
        self.reserved = self.reserved.max(bound);
    }

    /// Sets a key. With `expected`, only if its `mod_revision` is that (0: only if it is absent).
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::NoLease`], [`StoreError::Full`], [`StoreError::Busy`].
    pub fn put(
        &mut self,
        key: &str,
        value: &[u8],
        lease: Option<(LeaseId, &str)>,
        expected: Option<Revision>,
    ) -> Result<Revision, StoreError> {
        self.check_expected(key, expected)?;
        if let Some((id, owner)) = lease {
            self.lease_of(id, owner)?;
        }
        self.set(key, value, lease.map(|(id, _)| id), false)
    }

    /// Sets a key that is forgotten after `ttl` or at a restart.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Busy`].
    pub fn put_ephemeral(
        &mut self,
        key: &str,
        value: &[u8],
        ttl: Duration,
        now: Instant,
    ) -> Result<Revision, StoreError> {
        let revision = self.set(key, value, None, true)?;
        self.expiries
            .arm(now + ttl, Expiring::Key(key.into(), revision));
        Ok(revision)
    }

    /// Removes a key; tells whether it was there.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::Busy`].
    pub fn delete(
        &mut self,
        key: &str,
        expected: Option<Revision>,
    ) -> Result<(Revision, bool), StoreError> {
        self.check_expected(key, expected)?;
        let Some((key, entry)) = self.entries.get_key_value(key) else {
            return Ok((self.revision, false));
        };
        let (key, ephemeral, lease) = (key.clone(), entry.ephemeral, entry.lease);
        let revision = self.advance()?;
        self.entries.remove(&key);
        self.detach(lease, &key);
        if !ephemeral {
            self.changes.push(Change::Delete(key.clone()));
        }
        self.record(Event {
            revision,
            key,
            kind: EventKind::Delete,
        });
        Ok((revision, true))
    }

    /// A key's entry.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All keys with this prefix, in order.
    pub fn range<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Entry)> + 'a {
        self.entries
            .range::<str, _>((
                std::ops::Bound::Included(prefix),
                std::ops::Bound::Unbounded,
            ))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// All events from a revision on.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] when some of them are forgotten, or the revision is from a future this store does
    /// not have.
    pub fn events_from(&self, from: Revision) -> Result<impl Iterator<Item = &Event>, StoreError> {
        if from < self.first_watchable || from > self.revision.next() {
            return Err(StoreError::OutOfRange(from));
        }
        let start = self.ring.partition_point(|event| event.revision < from);
        Ok(self.ring.range(start..))
    }

    /// Grants a lease. `id` is the caller's to choose, at random.
    ///
    /// # Errors
    /// [`StoreError::TooManyLeases`]; [`StoreError::Busy`] if the id is taken.
    pub fn grant(
        &mut self,
        id: LeaseId,
        owner: &str,
        ttl: Duration,
        now: Instant,
    ) -> Result<(), StoreError> {
        let held = self
            .leases
            .values()
            .filter(|lease| lease.owner == owner)
            .count();
        if held >= self.limits.leases_per_owner {
            return Err(StoreError::TooManyLeases(self.limits.leases_per_owner));
        }
        if id.0 == 0 || self.leases.contains_key(&id) {
            return Err(StoreError::Busy);
        }
        self.restore_lease(id, owner.to_owned(), ttl, now);
        self.changes.push(Change::Grant(id, owner.to_owned(), ttl));
        Ok(())
    }

    /// Starts a lease's time anew. Not made durable: after a restart every lease has its full time.
    ///
    /// # Errors
    /// [`StoreError::NoLease`].
    pub fn keep_alive(
        &mut self,
        id: LeaseId,
        owner: &str,
        now: Instant,
    ) -> Result<Duration, StoreError> {
        let lease = self.lease_of(id, owner)?;
        let (old, new) = (lease.deadline, now + lease.ttl);
        lease.deadline = new;
        let ttl = lease.ttl;
        self.expiries.disarm(old, Expiring::Lease(id));
        self.expiries.arm(new, Expiring::Lease(id));
        Ok(ttl)
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// [`StoreError::NoLease`], [`StoreError::Busy`].
    pub fn revoke(&mut self, id: LeaseId, owner: &str) -> Result<(), StoreError> {
        self.lease_of(id, owner)?;
        self.end_lease(id)
    }

    /// When a lease ends unless it is kept alive; none if it has.
    #[must_use]
    pub fn lease_deadline(&self, id: LeaseId) -> Option<Instant> {
        self.leases.get(&id).map(|lease| lease.deadline)
    }

    /// Ends what has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.expiries.next_due(now) {
            let done = match &due {
                Expiring::Lease(id) => self.end_lease(*id),
                Expiring::Key(key, revision) => {
                    let same = self
                        .get(key)
                        .is_some_and(|entry| entry.mod_revision == *revision);
                    if same {
                        self.delete(key, None).map(|_| ())
                    } else {
                        Ok(())
                    }
                }
            };
            if done.is_err() {
                // Only the disk being far behind does this: again soon.
                self.expiries.arm(now + Duration::from_millis(100), due);
                return;
            }
        }
    }

    /// When [`Core::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.expiries.first()
    }

    fn set(
        &mut self,
        key: &str,
        value: &[u8],
        lease: Option<LeaseId>,
        ephemeral: bool,
    ) -> Result<Revision, StoreError> {
        let old = self
            .entries
            .get_key_value(key)
            .map(|(key, entry)| (key.clone(), entry.create_revision, entry.lease));
        if old.is_none() && self.entries.len() >= self.limits.entries {
            return Err(StoreError::Full(self.limits.entries));
        }
        let revision = self.advance()?;
        let (key, create_revision) = match old {
            Some((key, created, old_lease)) => {
                self.detach(old_lease, &key);
                (key, created)
            }
            None => (key.into(), revision),
        };
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
        let entry = Entry {
            value: value.into(),
            create_revision,
            mod_revision: revision,
            lease,
            ephemeral,
        };
        self.entries.insert(key.clone(), entry.clone());
        if !ephemeral {
            self.changes.push(Change::Put(key.clone(), entry.clone()));
        }
        self.record(Event {
            revision,
            key,
            kind: EventKind::Put(entry),
        });
        Ok(revision)
    }

    fn end_lease(&mut self, id: LeaseId) -> Result<(), StoreError> {
        let Some(lease) = self.leases.get(&id) else {
            return Ok(());
        };
        let (deadline, keys) = (lease.deadline, lease.keys.clone());
        for key in keys {
            self.delete(&key, None)?;
        }
        self.leases.remove(&id);
        self.expiries.disarm(deadline, Expiring::Lease(id));
        self.changes.push(Change::Revoke(id));
        Ok(())
    }

    fn lease_of(&mut self, id: LeaseId, owner: &str) -> Result<&mut Lease, StoreError> {
        self.leases
            .get_mut(&id)
            .filter(|lease| lease.owner == owner)
            .ok_or(StoreError::NoLease)
    }

    fn detach(&mut self, lease: Option<LeaseId>, key: &Arc<str>) {
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
    }

    fn check_expected(&self, key: &str, expected: Option<Revision>) -> Result<(), StoreError> {
        let actual = self
            .get(key)
            .map_or(Revision(0), |entry| entry.mod_revision);
        match expected {
            Some(expected) if expected != actual => Err(StoreError::Conflict { expected, actual }),
            _ => Ok(()),
        }
    }

    fn advance(&mut self) -> Result<Revision, StoreError> {
        if self.revision >= self.reserved {
            return Err(StoreError::Busy);
        }
        self.revision = self.revision.next();
        // Half a block ahead, so that nobody waits for the disk.
        if self.reserving.0 - self.revision.0 < self.limits.revision_block / 2 {
            self.reserve();
        }
        Ok(self.revision)
    }

    fn reserve(&mut self) {
        self.reserving = Revision(self.reserving.0 + self.limits.revision_block);
        self.changes.push(Change::Reserve(self.reserving));
    }

    fn record(&mut self, event: Event) {
        if self.ring.len() >= self.limits.ring
            && let Some(forgotten) = self.ring.pop_front()
        {
            self.first_watchable = forgotten.revision.next();
        }
        self.ring.push_back(event);
    }
}
