//! The links this activator has agreed to: one table with every index they are found by.

use identity::Serial;
use model::{NodeId, RelayName};
use protocol::document::BindingResult;
use rustc_hash::FxHashMap;

/// Names a link within this process; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkKey(pub u64);

impl std::fmt::Display for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// One link, as far as decisions need it.
#[derive(Debug, Clone)]
pub struct LinkRecord {
    /// Who offered it.
    pub node: NodeId,
    /// The offerer's own name for it, unique among its links.
    pub offered_as: u64,
    /// Of the certificate that signed the offer: the link ends when it is revoked.
    pub serial: Serial,
    /// The relays whose allocations it may use.
    pub relays: Vec<RelayName>,
    /// What became of bindings since the answer, to be said as soon as the link is open; `None`: it is.
    pub unsaid: Option<Vec<BindingResult>>,
}

/// How many links there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLimits {
    /// In all.
    pub total: usize,
    /// From one node.
    pub per_node: usize,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            total: 4096,
            per_node: 64,
        }
    }
}

/// All links, by key, by offer, and counted by node.
#[derive(Debug, Default)]
pub struct Links {
    by_key: FxHashMap<LinkKey, LinkRecord>,
    by_offer: FxHashMap<(NodeId, u64), LinkKey>,
    per_node: FxHashMap<NodeId, usize>,
    last_key: u64,
}

impl Links {
    /// Takes in a link. The offer must not be known yet.
    pub fn insert(&mut self, record: LinkRecord) -> LinkKey {
        self.last_key += 1;
        let key = LinkKey(self.last_key);
        self.by_offer
            .insert((record.node.clone(), record.offered_as), key);
        *self.per_node.entry(record.node.clone()).or_default() += 1;
        self.by_key.insert(key, record);
        key
    }

    /// Takes out a link.
    pub fn remove(&mut self, key: LinkKey) -> Option<LinkRecord> {
        let record = self.by_key.remove(&key)?;
        self.by_offer
            .remove(&(record.node.clone(), record.offered_as));
        if let Some(count) = self.per_node.get_mut(&record.node) {
            *count -= 1;
            if *count == 0 {
                self.per_node.remove(&record.node);
            }
        }
        Some(record)
    }

    /// The link of this key.
    #[must_use]
    pub fn get(&self, key: LinkKey) -> Option<&LinkRecord> {
        self.by_key.get(&key)
    }

    /// The same, to be changed in what it is not found by.
    pub fn get_mut(&mut self, key: LinkKey) -> Option<&mut LinkRecord> {
        self.by_key.get_mut(&key)
    }

    /// The link made from this offer.
    #[must_use]
    pub fn by_offer(&self, node: &NodeId, offered_as: u64) -> Option<LinkKey> {
        self.by_offer.get(&(node.clone(), offered_as)).copied()
    }

    /// The link may use this relay's allocation, too.
    pub fn add_relay(&mut self, key: LinkKey, relay: &RelayName) {
        if let Some(record) = self.by_key.get_mut(&key)
            && !record.relays.contains(relay)
        {
            record.relays.push(relay.clone());
        }
    }

    /// The link uses this relay's allocation no longer.
    pub fn remove_relay(&mut self, key: LinkKey, relay: &RelayName) {
        if let Some(record) = self.by_key.get_mut(&key) {
            record.relays.retain(|used| used != relay);
        }
    }

    /// How many links the node has.
    #[must_use]
    pub fn count_of(&self, node: &NodeId) -> usize {
        self.per_node.get(node).copied().unwrap_or_default()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The links for which `condition` holds, oldest first.
    pub fn select(&self, condition: impl Fn(&LinkRecord) -> bool) -> Vec<LinkKey> {
        let mut keys: Vec<LinkKey> = self
            .by_key
            .iter()
            .filter(|(_, record)| condition(record))
            .map(|(key, _)| *key)
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Panics if the indexes disagree. For tests.
    #[doc(hidden)]
    pub fn check_consistency(&self) {
        assert_eq!(self.by_offer.len(), self.by_key.len());
        assert_eq!(self.per_node.values().sum::<usize>(), self.by_key.len());
        for ((node, offered_as), key) in &self.by_offer {
            let record = &self.by_key[key];
            assert_eq!((&record.node, record.offered_as), (node, *offered_as));
        }
    }
}
