//! Client addresses: what services see in place of a sidecar, one address per family for each binding of a link.
//!
//! A client is a number; its addresses are that number added to each pool's base, so a packet's way back is found
//! by a subtraction.
//!
//! The number is sought from a hash of whom it is for, so that the same sidecar gets the same one again, on another link,
//! after a restart, and on any activator with the same pools, unless two hashes meet: flows that the kernel tracks live on.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use ipnet::{Ipv4Net, Ipv6Net};
use rustc_hash::FxHashMap;

/// Clients at most, however large the pools: bounds the memory of the table.
pub const MAX_CLIENTS: u32 = 65_536;

/// The pool's network address and the TUN interface's own address come first.
const RESERVED: u32 = 2;

/// A released address rests, so that a late reply to its last holder does not reach the next one.
pub const REST: Duration = Duration::from_secs(30);

/// A client: index of its addresses in both pools, less than [`MAX_CLIENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(u32);

/// Both pools.
#[derive(Debug)]
pub struct ClientPool {
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
    capacity: u32,
    /// Whom each was given to last.
    holders: FxHashMap<u32, Holder>,
    assigned: usize,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    owner: u64,
    released: Option<Instant>,
}

/// Why a pool cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it has room for {0} addresses; choose a prefix of at most {1} bits")]
pub struct PoolTooSmall(u64, u8);

impl ClientPool {
    /// Pools over these prefixes.
    ///
    /// # Errors
    /// When one has no room for a single client: longer than /29 (IPv4) or /124 (IPv6).
    pub fn new(ipv4: Ipv4Net, ipv6: Ipv6Net) -> Result<Self, PoolTooSmall> {
        let ipv4_size = 1_u64 << (32 - u32::from(ipv4.prefix_len()));
        let ipv6_size = 1_u64 << (128 - u32::from(ipv6.prefix_len())).min(32);
        if ipv4_size < 8 {
            return Err(PoolTooSmall(ipv4_size, 29));
        }
        if ipv6_size < 8 {
            return Err(PoolTooSmall(ipv6_size, 124));
        }
        // The last IPv4 address is the broadcast address.
        let room = (ipv4_size - 1).min(ipv6_size) - u64::from(RESERVED);
        Ok(Self {
            ipv4: ipv4.trunc(),
            ipv6: ipv6.trunc(),
            capacity: u32::try_from(room).unwrap_or(MAX_CLIENTS).min(MAX_CLIENTS),
            holders: FxHashMap::default(),
            assigned: 0,
        })
    }

    /// The addresses of the TUN interface itself, with the pools' prefix lengths: the first of each pool.
    #[must_use]
    pub fn interface_addresses(&self) -> (Ipv4Net, Ipv6Net) {
        let ipv4 = Ipv4Addr::from(u32::from(self.ipv4.addr()) + 1);
        let ipv6 = Ipv6Addr::from(u128::from(self.ipv6.addr()) + 1);
        (
            Ipv4Net::new(ipv4, self.ipv4.prefix_len()).unwrap_or(self.ipv4),
            Ipv6Net::new(ipv6, self.ipv6.prefix_len()).unwrap_or(self.ipv6),
        )
    }

    /// The prefixes.
    #[must_use]
    pub const fn prefixes(&self) -> (Ipv4Net, Ipv6Net) {
        (self.ipv4, self.ipv6)
    }

    /// Takes a client out for whom this hash stands, who has none yet: the one it had, else the next one that was never
    /// used or has rested, else the one that rests longest.
    pub fn assign(&mut self, owner: u64, now: Instant) -> Option<Client> {
        let capacity = u64::from(self.capacity.max(1));
        let from = owner % capacity;
        let mut resting: Option<(Instant, u32)> = None;
        let mut found = None;
        for step in 0..capacity {
            let index = ((from + step) % capacity) as u32;
            match self.holders.get(&index) {
                None => found = Some(index),
                Some(Holder { released: None, .. }) => continue,
                Some(Holder {
                    owner: last,
                    released: Some(since),
                }) => {
                    if *last == owner || now.saturating_duration_since(*since) >= REST {
                        found = Some(index);
                    } else if resting.is_none_or(|(longest, _)| *since < longest) {
                        resting = Some((*since, index));
                    }
                }
            }
            if found.is_some() {
                break;
            }
        }
        let index = found.or(resting.map(|(_, index)| index))?;
        let released = None;
        self.holders.insert(index, Holder { owner, released });
        self.assigned += 1;
        Some(Client(index))
    }

    /// Puts a client back.
    pub fn release(&mut self, client: Client, now: Instant) {
        if let Some(holder) = self.holders.get_mut(&client.0)
            && holder.released.replace(now).is_none()
        {
            self.assigned -= 1;
        }
    }

    /// How many are out.
    #[must_use]
    pub const fn assigned(&self) -> usize {
        self.assigned
    }

    /// The client's IPv4 address.
    #[must_use]
    pub fn ipv4_of(&self, client: Client) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.ipv4.addr()) + RESERVED + client.0)
    }

    /// The client's IPv6 address.
    #[must_use]
    pub fn ipv6_of(&self, client: Client) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.ipv6.addr()) + u128::from(RESERVED + client.0))
    }

    /// Whose address this is, handed out or not.
    #[must_use]
    pub fn client_of(&self, address: IpAddr) -> Option<Client> {
        let offset = match address {
            IpAddr::V4(ipv4) => u32::from(ipv4).checked_sub(u32::from(self.ipv4.addr()))?,
            IpAddr::V6(ipv6) => {
                u32::try_from(u128::from(ipv6).checked_sub(u128::from(self.ipv6.addr()))?).ok()?
            }
        };
        let index = offset.checked_sub(RESERVED)?;
        (index < self.capacity).then_some(Client(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(ipv4: &str, ipv6: &str) -> ClientPool {
        ClientPool::new(ipv4.parse().unwrap(), ipv6.parse().unwrap()).unwrap()
    }

    #[test]
    fn addresses_lead_back_to_their_client() {
        let mut pool = pool("100.89.0.0/16", "fd89:7475:726e::/64");
        let now = Instant::now();
        for owner in 0..1000 {
            let client = pool.assign(owner * 7_919, now).unwrap();
            assert_eq!(pool.client_of(pool.ipv4_of(client).into()), Some(client));
            assert_eq!(pool.client_of(pool.ipv6_of(client).into()), Some(client));
        }
        for other in [
            "100.89.0.0",
            "100.89.0.1",
            "100.88.255.255",
            "100.90.0.0",
            "::",
            "fd89:7475:726e::1",
        ] {
            assert_eq!(pool.client_of(other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn neither_network_nor_interface_nor_broadcast_address_is_assigned() {
        let mut pool = pool("192.0.2.8/29", "2001:db8::/64");
        let now = Instant::now();
        let mut all: Vec<Ipv4Addr> = Vec::new();
        while let Some(client) = pool.assign(0, now) {
            all.push(pool.ipv4_of(client));
        }
        let expected: Vec<Ipv4Addr> = (10..=14)
            .map(|last| Ipv4Addr::new(192, 0, 2, last))
            .collect();
        assert_eq!(all, expected);
        assert_eq!(
            pool.interface_addresses().0.addr(),
            Ipv4Addr::new(192, 0, 2, 9)
        );
        assert_eq!(pool.assigned(), 5);
    }

    #[test]
    fn a_released_address_rests_unless_nothing_else_is_left() {
        let mut pool = pool("192.0.2.8/29", "2001:db8::/64");
        let now = Instant::now();
        let first = pool.assign(5, now).unwrap();
        pool.release(first, now);
        let second = pool.assign(10, now).unwrap();
        assert_ne!(first, second, "both hashes begin there");
        assert_eq!(pool.assign(15, now + REST), Some(first));
        for owner in 0..3 {
            pool.assign(owner, now).unwrap();
        }
        assert_eq!(pool.assign(20, now), None);
        pool.release(second, now);
        assert_eq!(pool.assign(20, now), Some(second));
    }

    #[test]
    fn who_comes_back_gets_the_same_address_also_elsewhere() {
        let now = Instant::now();
        let [mut here, mut there] = [0, 1].map(|_| pool("100.89.0.0/16", "fd89:7475:726e::/64"));
        for owner in 0..50 {
            there.assign(owner * 31, now).unwrap();
        }
        let client = here.assign(123_456_789, now).unwrap();
        here.release(client, now);
        assert_eq!(here.assign(123_456_789, now), Some(client));
        assert_eq!(there.assign(123_456_789, now), Some(client));
    }

    #[test]
    fn a_pool_without_room_is_refused() {
        let refused = ClientPool::new(
            "192.0.2.0/30".parse().unwrap(),
            "2001:db8::/64".parse().unwrap(),
        );
        assert!(refused.unwrap_err().to_string().contains("29 bits"));
        ClientPool::new("0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()).unwrap();
    }
}
