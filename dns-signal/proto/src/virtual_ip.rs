//! Virtual IPs: the local address that a remote service has for this sidecar.
//!
//! A name's place in the pool is a hash of the name; when another name has that place, the next free one. So a name has
//! the same address after a restart and on every sidecar unless two names collide, and [`VirtualIps::encode`] keeps
//! even the outcome of collisions. An address is never given to another name: clients may remember it.
//!
//! The n-th place is the n-th host address in both pools, so the two families are paired by arithmetic, not by a table.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::service::ServiceId;

/// Names that can have an address at once, however large the pools: about 10 MB.
pub const MAX_ASSIGNMENTS: usize = 65_536;

/// Offset of the first place: the network address (in IPv6 the subnet-router anycast address) and the device come first.
const FIRST: u32 = 2;

/// The two ranges that virtual IPs come from. The first host address of each is the TUN device's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pools {
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
}

/// Why a range cannot be a pool.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PoolError {
    /// No place is left after network, device and broadcast address.
    #[error("{0} has no room: an IPv4 pool is a /30 or larger")]
    Ipv4TooSmall(Ipv4Net),
    /// No place is left after anycast and device address.
    #[error("{0} has no room: an IPv6 pool is a /126 or larger")]
    Ipv6TooSmall(Ipv6Net),
    /// The address has bits set outside the prefix: which range is meant is unclear.
    #[error("{0} has bits beyond its prefix; the range is {1}")]
    NotARange(String, String),
    /// Unicast only.
    #[error("{0} is not a range for hosts")]
    NotForHosts(String),
}

/// A service's two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VirtualIpPair {
    /// From the IPv4 pool.
    pub ipv4: Ipv4Addr,
    /// From the IPv6 pool.
    pub ipv6: Ipv6Addr,
}

impl Pools {
    /// Two ranges; places are as many as the smaller one has.
    ///
    /// # Errors
    /// When a range has no room for a single service, or is not one for hosts.
    pub fn new(ipv4: Ipv4Net, ipv6: Ipv6Net) -> Result<Self, PoolError> {
        if ipv4 != ipv4.trunc() {
            return Err(PoolError::NotARange(
                ipv4.to_string(),
                ipv4.trunc().to_string(),
            ));
        }
        if ipv6 != ipv6.trunc() {
            return Err(PoolError::NotARange(
                ipv6.to_string(),
                ipv6.trunc().to_string(),
            ));
        }
        let (low, high) = (ipv4.network(), ipv4.broadcast());
        if low.octets()[0] == 0 || low.is_loopback() || high.octets()[0] >= 224 {
            return Err(PoolError::NotForHosts(ipv4.to_string()));
        }
        if ipv6.contains(&Ipv6Addr::LOCALHOST) || ipv6.network().is_multicast() {
            return Err(PoolError::NotForHosts(ipv6.to_string()));
        }
        if ipv4.prefix_len() > 30 {
            return Err(PoolError::Ipv4TooSmall(ipv4));
        }
        if ipv6.prefix_len() > 126 {
            return Err(PoolError::Ipv6TooSmall(ipv6));
        }
        Ok(Self { ipv4, ipv6 })
    }

    /// The IPv4 range.
    pub fn ipv4(&self) -> Ipv4Net {
        self.ipv4
    }

    /// The IPv6 range.
    pub fn ipv6(&self) -> Ipv6Net {
        self.ipv6
    }

    /// The TUN device's own addresses: the first host address of each range.
    pub fn device(&self) -> VirtualIpPair {
        self.at(1)
    }

    /// Whether an address is of a pool, the device's own and unassigned ones included.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefix_len_around(address).is_some()
    }

    pub(crate) fn prefix_len_around(&self, address: IpAddr) -> Option<u8> {
        match address {
            IpAddr::V4(address) => self.ipv4.contains(&address).then(|| self.ipv4.prefix_len()),
            IpAddr::V6(address) => self.ipv6.contains(&address).then(|| self.ipv6.prefix_len()),
        }
    }

    /// How many services can have an address, as far as the ranges are concerned.
    pub fn places(&self) -> u32 {
        let ipv4 = (1_u64 << (32 - self.ipv4.prefix_len())) - u64::from(FIRST) - 1;
        let ipv6 = (1_u128 << (128 - self.ipv6.prefix_len()).min(64)) - u128::from(FIRST);
        u32::try_from(u128::from(ipv4).min(ipv6)).unwrap_or(u32::MAX)
    }

    fn at(&self, offset: u32) -> VirtualIpPair {
        VirtualIpPair {
            ipv4: Ipv4Addr::from_bits(self.ipv4.network().to_bits() + offset),
            ipv6: Ipv6Addr::from_bits(self.ipv6.network().to_bits() + u128::from(offset)),
        }
    }

    fn place_of(&self, address: IpAddr) -> Option<u32> {
        self.prefix_len_around(address)?;
        let offset = match address {
            IpAddr::V4(address) => u128::from(address.to_bits() - self.ipv4.network().to_bits()),
            IpAddr::V6(address) => address.to_bits() - self.ipv6.network().to_bits(),
        };
        let place = u32::try_from(offset).ok()?.checked_sub(FIRST)?;
        (place < self.places()).then_some(place)
    }
}

/// No place is free: raise the pool's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no virtual IP is free")]
pub struct PoolExhausted;

/// Which service has which virtual IP, both ways. Bounded by [`MAX_ASSIGNMENTS`] and the pools' size.
#[derive(Clone, Debug)]
pub struct VirtualIps {
    pools: Pools,
    limit: usize,
    by_service: HashMap<ServiceId, u32>,
    by_place: FxHashMap<u32, ServiceId>,
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
        self.by_service
            .get(id)
            .map(|place| self.pools.at(place + FIRST))
    }

    /// The service an address stands for.
    pub fn service_of(&self, address: IpAddr) -> Option<&ServiceId> {
        self.by_place.get(&self.pools.place_of(address)?)
    }

    /// The service's addresses, now and for good. The second value says whether they are new, and so to be persisted.
    ///
    /// # Errors
    /// When no place is free.
    pub fn assign(&mut self, id: &ServiceId) -> Result<(VirtualIpPair, bool), PoolExhausted> {
        if let Some(pair) = self.get(id) {
            return Ok((pair, false));
        }
        if self.by_service.len() >= self.limit {
            return Err(PoolExhausted);
        }
        let places = self.pools.places();
        let home = home(id, places);
        // Below the limit a free place exists within `len + 1` steps.
        let place = (0..places)
            .map(|step| u32::try_from((u64::from(home) + u64::from(step)) % u64::from(places)))
            .filter_map(Result::ok)
            .find(|place| !self.by_place.contains_key(place))
            .ok_or(PoolExhausted)?;
        self.put(id.clone(), place);
        Ok((self.pools.at(place + FIRST), true))
    }

    fn put(&mut self, id: ServiceId, place: u32) {
        self.by_place.insert(place, id.clone());
        self.by_service.insert(id, place);
    }

    /// The table as text, to be kept over a restart: a line that names the pools, then `ADDRESS SERVICE.NETWORK` per
    /// service, sorted.
    pub fn encode(&self) -> String {
        let mut lines: Vec<_> = self.by_place.iter().collect();
        lines.sort_unstable_by_key(|(place, _)| **place);
        let mut text = self.heading();
        for (place, id) in lines {
            text.push_str(&format!("{} {id}\n", self.pools.at(place + FIRST).ipv4));
        }
        text
    }

    fn heading(&self) -> String {
        format!(
            "turnpike virtual IPs 1 {} {}\n",
            self.pools.ipv4, self.pools.ipv6
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
        let (address, id) = line.split_once(' ')?;
        let place = self.pools.place_of(IpAddr::V4(address.parse().ok()?))?;
        let id: ServiceId = id.parse().ok()?;
        let is_free = !self.by_place.contains_key(&place) && !self.by_service.contains_key(&id);
        (is_free && self.by_service.len() < self.limit).then(|| self.put(id, place))
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
