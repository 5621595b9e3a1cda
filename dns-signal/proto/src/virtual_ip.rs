//! Virtual IPs: the local address that a remote service has for this sidecar.
//!
//! A name's place in the pool is a hash of the name; when another name has that place, the next free one. Which of two that
//! collide is the other does not depend on who is asked for first: [`VirtualIps::expect`] plans for all names of the
//! directory in their order, before any of them is asked for, and so alike on every sidecar. [`VirtualIps::encode`] keeps
//! what was given over a restart. An address is never given to another name: clients may remember it. This also sets the
//! limit of that likeness: a name that was asked for before the one that would have come before it was known stays where
//! it is.
//!
//! Names below wildcards are another matter: [`VirtualIps::lend`].
//!
//! The n-th place is the n-th host address in both pools, so the two families are paired by arithmetic, not by a table.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Instant;

use model::ExportName;
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::service::ServiceId;

use lent::{Kept, Lent};

mod lent;
mod pools;

pub use lent::{MAX_BELOW, MAX_LENT, NotLent, REST, UNFOUND_REST, Wildcard};
pub use pools::{PoolError, Pools, VirtualIpPair};

/// Names that can have an address at once, however large the pools: about 10 MB.
pub const MAX_ASSIGNMENTS: usize = 65_536;

/// No place is free: raise the pool's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no virtual IP is free")]
pub struct PoolExhausted;

/// Which service has which virtual IP, both ways. Bounded by [`MAX_ASSIGNMENTS`] and the pools' size.
#[derive(Clone, Debug)]
pub struct VirtualIps {
    pools: Pools,
    limit: usize,
    /// Addresses that were given: for good, unless they are lent.
    by_service: HashMap<ServiceId, u32>,
    by_place: FxHashMap<u32, ServiceId>,
    lent: Lent,
    /// Names that were seen in the directory and never asked for.
    expected: BTreeSet<ServiceId>,
    /// Where these will be, as far as there is room.
    planned: HashMap<ServiceId, u32>,
    planned_places: FxHashMap<u32, ServiceId>,
}

impl VirtualIps {
    /// No service has an address yet.
    pub fn new(pools: Pools) -> Self {
        let limit = usize::try_from(pools.places())
            .unwrap_or(usize::MAX)
            .min(MAX_ASSIGNMENTS);
        Self {
            pools,
            limit,
            by_service: HashMap::new(),
            by_place: FxHashMap::default(),
            lent: Lent::default(),
            expected: BTreeSet::new(),
            planned: HashMap::new(),
            planned_places: FxHashMap::default(),
        }
    }

    /// The ranges that addresses come from.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// How many services have an address.
    pub fn len(&self) -> usize {
        self.by_service.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.by_service.is_empty()
    }

    /// The addresses a service has already.
    pub fn get(&self, id: &ServiceId) -> Option<VirtualIpPair> {
        self.by_service.get(id).map(|place| self.pools.pair(*place))
    }

    /// The service an address stands for.
    pub fn service_of(&self, address: IpAddr) -> Option<&ServiceId> {
        self.by_place.get(&self.pools.place_of(address)?)
    }

    /// The service that an address, given or not, will stand for.
    pub fn expected_at(&self, address: IpAddr) -> Option<&ServiceId> {
        let place = self.pools.place_of(address)?;
        let given = self.by_place.get(&place);
        given.or_else(|| self.planned_places.get(&place))
    }

    /// Plans for these names and for those of earlier calls, so that it makes no difference which of two that collide is
    /// asked for first: the places that are not given yet go to names in their order. Names that are gone keep their place
    /// in the plan, since an activator that starts anew is gone for a moment; when there are too many, they go first.
    pub fn expect(&mut self, names: impl IntoIterator<Item = ServiceId>) {
        let now: BTreeSet<ServiceId> = names
            .into_iter()
            .filter(|id| !self.by_service.contains_key(id))
            .take(MAX_ASSIGNMENTS)
            .collect();
        if now.is_subset(&self.expected) {
            return;
        }
        if self.expected.len() + now.len() > MAX_ASSIGNMENTS {
            self.expected = now;
        } else {
            self.expected.extend(now);
        }
        self.planned.clear();
        self.planned_places.clear();
        for id in &self.expected {
            let is_free = |place| {
                !self.by_place.contains_key(&place) && !self.planned_places.contains_key(&place)
            };
            if self.by_place.len() + self.planned_places.len() >= self.limit {
                break;
            }
            if let Some(place) = probe(id, self.pools.places(), is_free) {
                self.planned.insert(id.clone(), place);
                self.planned_places.insert(place, id.clone());
            }
        }
    }

    /// The service's addresses, now and for good. The second value says whether they are new, and so to be persisted.
    ///
    /// # Errors
    /// When no place is free.
    pub fn assign(&mut self, id: &ServiceId) -> Result<(VirtualIpPair, bool), PoolExhausted> {
        if let Some(pair) = self.get(id) {
            // What was lent to it as a name below a wildcard is a service's own now.
            return Ok((pair, self.lent.len() > 0 && self.lent.end(id)));
        }
        let place = self.new_place(id).ok_or(PoolExhausted)?;
        Ok((self.pools.pair(place), true))
    }

    /// The addresses of a name below a wildcard: the same as long as it is asked for, and as long as there is room for others.
    /// They are to be persisted once [`VirtualIps::found`] says so.
    ///
    /// # Errors
    /// When there is no room for one more.
    pub fn lend(
        &mut self,
        id: &ServiceId,
        wildcard: &Wildcard,
        now: Instant,
    ) -> Result<VirtualIpPair, NotLent> {
        if let Some(pair) = self.get(id) {
            self.lent.touch(id, now);
            return Ok(pair);
        }
        if let Some(other) = self.lent.in_the_way(wildcard, now)? {
            self.take_back(&other);
        }
        let place = self.new_place(id).ok_or(NotLent::PoolExhausted)?;
        self.lent
            .lend(id.clone(), wildcard.clone(), Some(now), false);
        Ok(self.pools.pair(place))
    }

    /// There is something behind a name below a wildcard: whether this is news, and so to be persisted.
    pub fn found(&mut self, id: &ServiceId) -> bool {
        self.lent.found(id)
    }

    /// A name below a wildcard is not there: what was lent to it is free.
    pub fn take_back(&mut self, id: &ServiceId) {
        if self.lent.end(id)
            && let Some(place) = self.by_service.remove(id)
        {
            self.by_place.remove(&place);
        }
    }

    /// How many names below wildcards have an address.
    pub fn lent(&self) -> usize {
        self.lent.len()
    }

    fn new_place(&mut self, id: &ServiceId) -> Option<u32> {
        if self.by_service.len() >= self.limit {
            return None;
        }
        let place = self.place_for(id)?;
        self.put(id.clone(), place);
        Some(place)
    }

    /// As planned; a name that is not, because it is new or there are more names than places, takes the next place that
    /// nobody has or, if it must be, that is only planned for another.
    fn place_for(&self, id: &ServiceId) -> Option<u32> {
        let is_given = |place| self.by_place.contains_key(&place);
        let planned = self.planned.get(id).copied();
        let places = self.pools.places();
        planned
            .filter(|place| !is_given(*place))
            .or_else(|| {
                let is_planned = |place| self.planned_places.contains_key(&place);
                probe(id, places, |place| !is_given(place) && !is_planned(place))
            })
            .or_else(|| probe(id, places, |place| !is_given(place)))
    }

    fn put(&mut self, id: ServiceId, place: u32) {
        self.expected.remove(&id);
        if let Some(planned) = self.planned.remove(&id) {
            self.planned_places.remove(&planned);
        }
        if let Some(other) = self.planned_places.remove(&place) {
            self.planned.remove(&other);
        }
        self.by_place.insert(place, id.clone());
        self.by_service.insert(id, place);
    }

    /// The table as text, to be kept over a restart: a line that names the pools, then `ADDRESS SERVICE.NETWORK` per
    /// service, sorted; after a name below a wildcard the wildcard.
    pub fn encode(&self) -> String {
        let mut lines: Vec<_> = self.by_place.iter().collect();
        lines.sort_unstable_by_key(|(place, _)| **place);
        let mut text = self.heading();
        for (place, id) in lines {
            let address = self.pools.pair(*place).ipv4;
            match self.lent.kept(id) {
                Kept::ForGood => text.push_str(&format!("{address} {id}\n")),
                Kept::Lent(wildcard) => {
                    text.push_str(&format!("{address} {id} {}\n", wildcard.name));
                }
                Kept::Not => {}
            }
        }
        text
    }

    fn heading(&self) -> String {
        format!(
            "turnpike virtual IPs 1 {} {}\n",
            self.pools.ipv4(),
            self.pools.ipv6()
        )
    }

    /// Takes over what an earlier process wrote with [`VirtualIps::encode`].
    ///
    /// # Errors
    /// When the text is of other pools or of an unknown version: nothing is taken over. Lines that cannot be used are
    /// skipped and counted in the result.
    pub fn restore(&mut self, text: &str) -> Result<Restored, OtherPools> {
        let Some(lines) = text.strip_prefix(&self.heading()) else {
            return Err(OtherPools);
        };
        let mut restored = Restored::default();
        for line in lines.lines() {
            match self.restore_line(line) {
                Some(()) => restored.taken += 1,
                None => restored.skipped += 1,
            }
        }
        Ok(restored)
    }

    fn restore_line(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let address = words.next()?.parse().ok()?;
        let place = self.pools.place_of(IpAddr::V4(address))?;
        let id: ServiceId = words.next()?.parse().ok()?;
        let wildcard = words.next().map(str::parse::<ExportName>);
        let wildcard = wildcard.transpose().ok()?;
        let is_free = !self.by_place.contains_key(&place) && !self.by_service.contains_key(&id);
        let has_room = self.by_service.len() < self.limit && self.lent.len() < MAX_LENT;
        if !is_free || !has_room || words.next().is_some() {
            return None;
        }
        if let Some(name) = wildcard {
            let network = id.network.clone();
            let wildcard = Wildcard { name, network };
            self.lent.lend(id.clone(), wildcard, None, true);
        }
        self.put(id, place);
        Some(())
    }
}

/// How much of a text was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Assignments that hold again.
    pub taken: usize,
    /// Lines that were damaged, or contradicted another.
    pub skipped: usize,
}

/// The text is of other pools or of an unknown version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the assignments are of other pools or of an unknown version")]
pub struct OtherPools;

/// The first place from a name's own on that is free. Below the limit there is one within as many steps as names have a place.
fn probe(id: &ServiceId, places: u32, is_free: impl Fn(u32) -> bool) -> Option<u32> {
    let home = home(id, places);
    (home..places).chain(0..home).find(|place| is_free(*place))
}

/// A name's own place. All sidecars must agree, so this never changes: FNV-1a, 64 bits, over `service.network`, its bits
/// mixed as in MurmurHash3, scaled to the number of places.
fn home(id: &ServiceId, places: u32) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in id.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^= hash >> 33;
    let scaled = (u128::from(hash) * u128::from(places)) >> 64;
    u32::try_from(scaled).unwrap_or_default()
}
