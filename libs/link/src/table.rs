//! All links of a process, with every index they are found by.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::stun::{BINDING_REQUEST, attributes};

/// [RFC 8489 §14.3](https://www.rfc-editor.org/rfc/rfc8489#section-14.3)
const USERNAME: u16 = 0x0006;
/// Address pairs remembered per link, those that were used last: both ends get new addresses for as long as it lives. Twice
/// what it checks at a time.
const MAX_PAIRS: usize = 128;

/// Links by key, by ICE username fragment, and by the address pairs their traffic uses.
#[derive(Debug)]
pub struct LinkTable<T> {
    links: HashMap<u64, Entry<T>>,
    by_ufrag: HashMap<String, u64>,
    by_pair: HashMap<(SocketAddr, SocketAddr), Claim>,
    limit: usize,
    /// Links that were ever taken in.
    inserted: u64,
    /// Datagrams that were ever routed.
    routed: u64,
}

#[derive(Debug)]
struct Entry<T> {
    ufrag: String,
    /// The how manieth it is.
    born: u64,
    pairs: Vec<(SocketAddr, SocketAddr)>,
    value: T,
}

#[derive(Debug)]
struct Claim {
    key: u64,
    /// The number of the last datagram on it.
    used: u64,
}

impl<T> LinkTable<T> {
    /// An empty table for at most `limit` links.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            links: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_pair: HashMap::new(),
            limit,
            inserted: 0,
            routed: 0,
        }
    }

    /// Links in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Takes a link in; `false` when the table is full or the key or fragment is taken.
    pub fn insert(&mut self, key: u64, ufrag: &str, value: T) -> bool {
        if self.links.len() >= self.limit
            || self.links.contains_key(&key)
            || self.by_ufrag.contains_key(ufrag)
        {
            return false;
        }
        self.by_ufrag.insert(ufrag.to_owned(), key);
        self.inserted += 1;
        self.links.insert(
            key,
            Entry {
                ufrag: ufrag.to_owned(),
                born: self.inserted,
                pairs: Vec::new(),
                value,
            },
        );
        true
    }

    /// Takes a link out, with all it was found by.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let entry = self.links.remove(&key)?;
        self.by_ufrag.remove(&entry.ufrag);
        for pair in &entry.pairs {
            self.by_pair.remove(pair);
        }
        Some(entry.value)
    }

    /// The link of this key.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<&T> {
        self.links.get(&key).map(|entry| &entry.value)
    }

    /// The link of this key.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        self.links.get_mut(&key).map(|entry| &mut entry.value)
    }

    /// All links with their keys, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.links.iter().map(|(key, entry)| (*key, &entry.value))
    }

    /// All links with their keys, in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.links
            .iter_mut()
            .map(|(key, entry)| (*key, &mut entry.value))
    }

    /// Which link a datagram is for: by the username of a Binding request, else by the pair it came on. A pair is
    /// learned from a request that names a link, and from [`LinkTable::learn`].
    pub fn route(&mut self, local: SocketAddr, remote: SocketAddr, payload: &[u8]) -> Option<u64> {
        if let Some(ufrag) = binding_request_ufrag(payload) {
            let key = *self.by_ufrag.get(ufrag)?;
            self.claim(key, (local, remote));
            return Some(key);
        }
        let claim = self.by_pair.get_mut(&(local, remote))?;
        self.routed += 1;
        claim.used = self.routed;
        Some(claim.key)
    }

    /// Remembers that a link's traffic uses this pair: it sends checks there. A link that is younger keeps it: the older one goes
    /// on sending for a while to a peer that has started anew at the same address.
    pub fn learn(&mut self, key: u64, local: SocketAddr, remote: SocketAddr) {
        let pair = (local, remote);
        let born = |key: u64| self.links.get(&key).map(|entry| entry.born);
        match self.by_pair.get(&pair) {
            Some(owner) if owner.key == key || born(owner.key) > born(key) => {}
            _ => self.claim(key, pair),
        }
    }

    fn claim(&mut self, key: u64, pair: (SocketAddr, SocketAddr)) {
        if self
            .by_pair
            .get(&pair)
            .is_some_and(|claim| claim.key == key)
        {
            return;
        }
        let Some(entry) = self.links.get_mut(&key) else {
            return;
        };
        if entry.pairs.len() >= MAX_PAIRS {
            let used = |pair| self.by_pair.get(pair).map(|claim: &Claim| claim.used);
            let pairs = entry.pairs.iter().enumerate();
            if let Some((oldest, _)) = pairs.min_by_key(|(_, pair)| used(*pair)) {
                self.by_pair.remove(&entry.pairs.remove(oldest));
            }
        }
        entry.pairs.push(pair);
        // The latest claim wins: a peer that restarted behind the same address.
        let used = self.routed;
        let claim = Claim { key, used };
        if let Some(previous) = self.by_pair.insert(pair, claim)
            && let Some(previous) = self.links.get_mut(&previous.key)
        {
            previous.pairs.retain(|known| *known != pair);
        }
    }
}

/// The receiver's fragment in the USERNAME of a STUN Binding request: "receiver:sender".
/// [RFC 8445 §7.2.2](https://www.rfc-editor.org/rfc/rfc8445#section-7.2.2)
fn binding_request_ufrag(message: &[u8]) -> Option<&str> {
    if !message.starts_with(&BINDING_REQUEST) {
        return None;
    }
    let (_, username) = attributes(message).find(|(kind, _)| *kind == USERNAME)?;
    std::str::from_utf8(username).ok()?.split(':').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn request(username: &str) -> Vec<u8> {
        let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7; 12]);
        // An attribute before it that must be stepped over, padding included.
        message.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
        message.extend(USERNAME.to_be_bytes());
        message.extend((username.len() as u16).to_be_bytes());
        message.extend(username.as_bytes());
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn a_request_names_its_link_and_teaches_the_pair() {
        let mut table = LinkTable::new(8);
        assert!(table.insert(1, "alice", "first"));
        assert!(table.insert(2, "bob", "second"));
        let (local, remote) = (address("10.0.0.3:7000"), address("10.0.0.10:4000"));
        assert_eq!(table.route(local, remote, &[22, 0, 0]), None);
        assert_eq!(table.route(local, remote, &request("bob:zoe")), Some(2));
        assert_eq!(table.route(local, remote, &[22, 0, 0]), Some(2));
        assert_eq!(table.remove(2), Some("second"));
        assert_eq!(table.route(local, remote, &[22, 0, 0]), None);
        assert_eq!(table.route(local, remote, &request("bob:zoe")), None);
    }

    #[test]
    fn a_pair_goes_to_the_younger_link_unless_the_peer_names_the_older() {
        let mut table = LinkTable::new(8);
        table.insert(1, "old", ());
        table.insert(2, "new", ());
        let (local, remote) = (address("10.0.0.3:7000"), address("10.0.0.10:4000"));
        table.learn(1, local, remote);
        table.learn(2, local, remote);
        table.learn(1, local, remote);
        assert_eq!(table.route(local, remote, &[22]), Some(2));
        assert_eq!(table.route(local, remote, &request("old:zoe")), Some(1));
        assert_eq!(table.route(local, remote, &[22]), Some(1));
        table.learn(2, local, remote);
        table.remove(1);
        assert_eq!(table.route(local, remote, &[22]), Some(2));
    }

    #[test]
    fn a_link_is_found_at_its_latest_pairs_and_at_the_one_that_is_used() {
        let mut table = LinkTable::new(8);
        table.insert(1, "bob", ());
        let local = address("10.0.0.3:7000");
        let peer = |port: u16| SocketAddr::new(address("10.0.0.10:1").ip(), port);
        table.learn(1, local, peer(1));
        for port in 2..1_000 {
            if port % 2 == 0 {
                table.learn(1, local, peer(port));
            } else {
                table.route(local, peer(port), &request("bob:zoe"));
            }
            for used in [1, port] {
                assert_eq!(table.route(local, peer(used), &[22]), Some(1), "{port}");
            }
        }
        assert_eq!(table.route(local, peer(2), &[22]), None);
        assert_eq!(table.by_pair.len(), MAX_PAIRS);
        table.remove(1);
        assert!(table.by_pair.is_empty());
    }

    #[test]
    fn the_table_is_bounded_and_refuses_twins() {
        let mut table = LinkTable::new(2);
        assert!(table.insert(1, "a", ()));
        assert!(!table.insert(1, "b", ()));
        assert!(!table.insert(2, "a", ()));
        assert!(table.insert(2, "b", ()));
        assert!(!table.insert(3, "c", ()));
    }

    #[test]
    fn cut_messages_name_nobody() {
        let whole = request("bob:zoe");
        for length in 0..whole.len() - 1 {
            assert_eq!(
                binding_request_ufrag(&whole[..length.min(20 + 8 + 4)]),
                None
            );
        }
    }
}
