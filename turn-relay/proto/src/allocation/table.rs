//! All allocations, with the one index they are found by.

use crate::allocation::Allocation;
use crate::{AllocationId, FiveTuple};
use rustc_hash::FxHashMap;

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    allocation: Option<Box<Allocation>>,
}

/// Slots, so that an [`AllocationId`] leads to its allocation without hashing, and an index by five-tuple.
#[derive(Debug, Default)]
pub(crate) struct AllocationTable {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_path: FxHashMap<FiveTuple, u32>,
    /// Where the last packet of a client led: packets come in runs.
    last: u32,
}

impl AllocationTable {
    pub(crate) fn len(&self) -> usize {
        self.by_path.len()
    }

    /// All of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (AllocationId, &Allocation)> {
        let slots = self.slots.iter().zip(0..);
        slots.filter_map(|(slot, index)| {
            let generation = slot.generation;
            let id = AllocationId { index, generation };
            Some((id, slot.allocation.as_deref()?))
        })
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Allocation> {
        let slots = self.slots.iter_mut();
        slots.filter_map(|slot| slot.allocation.as_deref_mut())
    }

    /// The five-tuple must be free.
    pub(crate) fn insert(&mut self, allocation: Allocation) -> AllocationId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // One slot per relayed port: far below 2^32.
            (self.slots.len() - 1) as u32
        });
        self.by_path.insert(allocation.path, index);
        let slot = &mut self.slots[index as usize];
        slot.allocation = Some(Box::new(allocation));
        AllocationId {
            index,
            generation: slot.generation,
        }
    }

    pub(crate) fn remove(&mut self, id: AllocationId) -> Option<Box<Allocation>> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        let allocation = slot.allocation.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.by_path.remove(&allocation.path);
        self.free.push(id.index);
        Some(allocation)
    }

    pub(crate) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.allocation.as_deref_mut()
    }

    pub(crate) fn get(&self, id: AllocationId) -> Option<&Allocation> {
        let slot = self.slots.get(id.index as usize)?;
        if slot.generation != id.generation {
            return None;
        }
        slot.allocation.as_deref()
    }

    /// Whatever allocation has this index now.
    pub(crate) fn at(&self, index: u32) -> Option<(AllocationId, &Allocation)> {
        let slot = self.slots.get(index as usize)?;
        let generation = slot.generation;
        let id = AllocationId { index, generation };
        Some((id, slot.allocation.as_deref()?))
    }

    /// Gives an allocation another five-tuple, which must be free.
    pub(crate) fn rebind(&mut self, id: AllocationId, path: FiveTuple) {
        let Some(allocation) = self.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut allocation.path, path);
        self.by_path.remove(&before);
        self.by_path.insert(path, id.index);
    }

    /// The allocation of a five-tuple. One hash look-up, or none if the last packet came the same way.
    pub(crate) fn find(&mut self, path: FiveTuple) -> Option<(AllocationId, &mut Allocation)> {
        let hit = self
            .slots
            .get(self.last as usize)
            .and_then(|slot| slot.allocation.as_deref())
            .is_some_and(|allocation| allocation.path == path);
        if !hit {
            self.last = *self.by_path.get(&path)?;
        }
        let slot = &mut self.slots[self.last as usize];
        let id = AllocationId {
            index: self.last,
            generation: slot.generation,
        };
        Some((id, slot.allocation.as_deref_mut()?))
    }
}
