//! Where virtual IPs come from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use thiserror::Error;

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

    /// The zones that hold the reverse names of all addresses, and of no others: at most 128 below `in-addr.arpa` and 8 below
    /// `ip6.arpa`, without the final dot.
    pub fn reverse_zones(&self) -> Vec<String> {
        let ipv4 = self
            .ipv4
            .subnets(self.ipv4.prefix_len().next_multiple_of(8));
        let ipv4 = ipv4.into_iter().flatten().map(|zone| {
            let labels = zone.network().octets().into_iter();
            let labels = labels.take(usize::from(zone.prefix_len() / 8));
            let labels: Vec<String> = labels.rev().map(|octet| octet.to_string()).collect();
            format!("{}.in-addr.arpa", labels.join("."))
        });
        let ipv6 = self
            .ipv6
            .subnets(self.ipv6.prefix_len().next_multiple_of(4));
        let ipv6 = ipv6.into_iter().flatten().map(|zone| {
            let nibbles = format!("{:032x}", zone.network().to_bits());
            let nibbles = nibbles.chars().take(usize::from(zone.prefix_len() / 4));
            let labels: Vec<String> = nibbles.map(String::from).collect();
            let labels: Vec<String> = labels.into_iter().rev().collect();
            format!("{}.ip6.arpa", labels.join("."))
        });
        ipv4.chain(ipv6).collect()
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

    /// The pair of a place, counted from 0.
    pub(super) fn pair(&self, place: u32) -> VirtualIpPair {
        self.at(place + FIRST)
    }

    fn at(&self, offset: u32) -> VirtualIpPair {
        VirtualIpPair {
            ipv4: Ipv4Addr::from_bits(self.ipv4.network().to_bits() + offset),
            ipv6: Ipv6Addr::from_bits(self.ipv6.network().to_bits() + u128::from(offset)),
        }
    }

    /// Which place an address is of.
    pub(super) fn place_of(&self, address: IpAddr) -> Option<u32> {
        self.prefix_len_around(address)?;
        let offset = match address {
            IpAddr::V4(address) => u128::from(address.to_bits() - self.ipv4.network().to_bits()),
            IpAddr::V6(address) => address.to_bits() - self.ipv6.network().to_bits(),
        };
        let place = u32::try_from(offset).ok()?.checked_sub(FIRST)?;
        (place < self.places()).then_some(place)
    }
}
