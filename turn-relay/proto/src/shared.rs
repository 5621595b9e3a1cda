//! What the shards of a process have in common: ports, reservations, and what each realm and user holds. Locked when an
//! allocation is made or ends, never for a packet.

use crate::account::{RealmUse, RelayLimits, RelayShare, UsageLimits};
use crate::allocation::port_pool::PortPool;
use crate::allocation::reservation::{Reservation, Reservations};
use crate::config::RelayAddress;
use crate::peer_connection::PeerConnections;
use crate::random::Random;
use crate::short_cut::Ends;
use crate::usage::Usage;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// To be given to every [`Server`](crate::Server) of a process.
#[derive(Debug)]
pub struct Shared {
    addresses: Vec<RelayAddress>,
    /// By position in `addresses`, if allocations are told apart by address and not by port; otherwise empty.
    networks: Vec<IpNet>,
    /// By position in `addresses`.
    pools: Vec<Mutex<PortPool>>,
    /// A client's second Allocate may reach another shard than the first, because it comes from another port.
    reservations: Mutex<Reservations>,
    /// What all realms together use.
    relay: Arc<RelayShare>,
    /// With their names; by number. The first one is there before it has a name, and none is forgotten.
    realms: Mutex<Vec<(Box<str>, Arc<RealmUse>)>>,
    ends: Ends,
    peer_connections: Mutex<PeerConnections>,
}

/// What a realm has, over all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealmHolds {
    pub name: Box<str>,
    /// Now.
    pub allocations: u32,
    /// What TCP to peers carried (RFC 6062), without packets.
    pub joined: Usage,
}

/// Which port of which relay address; or which address of which relay network, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) pool: u16,
    /// The port; or the number of the address in its network.
    pub(crate) number: u16,
    /// Beside the number of an address: the shard's port.
    pub(crate) beside: Option<u16>,
}

/// Which ports are wanted (RFC 8656 section 18.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortKind {
    Any,
    Even,
    /// An even port, and the next one for a reservation.
    EvenOfPair,
}

impl Shared {
    /// At most 65 535 addresses, each with all ports of the range; `allocations_per_user` for each user at a time,
    /// and otherwise the default [`UsageLimits`].
    pub fn new(
        addresses: Vec<RelayAddress>,
        ports: &RangeInclusive<u16>,
        allocations_per_user: u32,
    ) -> Self {
        let pools = addresses
            .iter()
            .map(|_| Mutex::new(PortPool::new(ports.clone())))
            .collect();
        Self {
            addresses,
            networks: Vec::new(),
            pools,
            reservations: Mutex::default(),
            relay: Arc::default(),
            realms: Mutex::default(),
            ends: Ends::default(),
            peer_connections: Mutex::default(),
        }
        .limited(allocations_per_user)
    }

    /// Allocations told apart by their addresses out of these networks, all of which lead to this machine: 65 534 of each
    /// at most, without the first and the last. Each shard has one port for all of its own:
    /// [`ServerConfig::relay_port`](crate::ServerConfig::relay_port).
    pub fn of_networks(networks: Vec<IpNet>, allocations_per_user: u32) -> Self {
        let of_network = |network: &IpNet| RelayAddress {
            bind: network.addr(),
            advertised: network.addr(),
        };
        let pool = |network: &IpNet| {
            let bits = u32::from(network.max_prefix_len() - network.prefix_len());
            let last = 1u32.checked_shl(bits).map_or(u32::MAX, |count| count - 1);
            let last = last.saturating_sub(1).min(u32::from(u16::MAX) - 1);
            Mutex::new(PortPool::new(1..=last as u16))
        };
        Self {
            addresses: networks.iter().map(of_network).collect(),
            pools: networks.iter().map(pool).collect(),
            networks,
            reservations: Mutex::default(),
            relay: Arc::default(),
            realms: Mutex::default(),
            ends: Ends::default(),
            peer_connections: Mutex::default(),
        }
        .limited(allocations_per_user)
    }

    /// Takes a port of the first address, from a random one on, that is of this family and has one. `Err(true)` if there
    /// are such addresses but no port.
    pub(crate) fn take_port(
        &self,
        ipv4: bool,
        kind: PortKind,
        beside: Option<u16>,
        random: &mut Random,
        now: Instant,
    ) -> Result<Port, bool> {
        let count = self.addresses.len();
        let start = random.below(count);
        let mut found = false;
        for step in 0..count {
            let index = (start + step) % count;
            if self.addresses[index].bind.is_ipv4() != ipv4 {
                continue;
            }
            found = true;
            let mut pool = lock(&self.pools[index]);
            let number = match kind {
                // The next port is no allocation's to give away.
                PortKind::EvenOfPair if beside.is_some() => None,
                PortKind::Even if beside.is_some_and(|port| port % 2 == 1) => None,
                PortKind::Even if beside.is_some() => pool.take(random, now),
                PortKind::Any => pool.take(random, now),
                PortKind::Even => pool.take_even(false, random, now),
                PortKind::EvenOfPair => pool.take_even(true, random, now),
            };
            if let Some(number) = number {
                let pool = index as u16;
                return Ok(Port {
                    pool,
                    number,
                    beside,
                });
            }
        }
        Err(found)
    }

    pub(crate) fn release_port(&self, port: Port, now: Instant) {
        lock(&self.pools[usize::from(port.pool)]).release(port.number, now);
    }

    /// What a socket for this port binds to.
    pub(crate) fn bind_address(&self, port: Port) -> SocketAddr {
        let ip = self.addresses[usize::from(port.pool)].bind;
        self.address(port, ip)
    }

    /// What the client is told.
    pub(crate) fn advertised_address(&self, port: Port) -> SocketAddr {
        let ip = self.addresses[usize::from(port.pool)].advertised;
        self.address(port, ip)
    }

    fn address(&self, port: Port, ip: IpAddr) -> SocketAddr {
        let Some(number) = port.beside else {
            return SocketAddr::new(ip, port.number);
        };
        let ip = match ip {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() + u32::from(port.number)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() + u128::from(port.number)).into()),
        };
        SocketAddr::new(ip, number)
    }

    /// How a peer at this address knows a relayed address: with the address that sockets are bound to, or with the one
    /// that clients are told. `None` if the peer is not on this relay.
    pub(crate) fn as_known_to(&self, port: Port, peer: IpAddr) -> Option<SocketAddr> {
        if self.in_networks(peer) || self.addresses.iter().any(|own| own.bind == peer) {
            Some(self.bind_address(port))
        } else if self.addresses.iter().any(|own| own.advertised == peer) {
            Some(self.advertised_address(port))
        } else {
            None
        }
    }

    /// Whether relayed addresses are on this address.
    pub(crate) fn is_own(&self, ip: IpAddr) -> bool {
        let mut own = self.addresses.iter();
        self.in_networks(ip) || own.any(|own| own.bind == ip || own.advertised == ip)
    }

    fn in_networks(&self, ip: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&ip))
    }

    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }

    pub(crate) fn peer_connections(&self) -> MutexGuard<'_, PeerConnections> {
        lock(&self.peer_connections)
    }

    pub(crate) fn reserve(&self, token: u64, reservation: Reservation) {
        lock(&self.reservations).insert(token, reservation);
    }

    pub(crate) fn reservation(&self, token: u64) -> Option<Reservation> {
        lock(&self.reservations).get(token)
    }

    pub(crate) fn take_reservation(&self, token: u64) -> Option<Reservation> {
        lock(&self.reservations).take(token)
    }

    /// What the users of the first realm may use from now on; who has more already keeps it.
    pub fn set_limits(&self, limits: UsageLimits) {
        let mut realms = lock(&self.realms);
        if realms.is_empty() {
            realms.push((Box::default(), Arc::new(RealmUse::new(0, &self.relay))));
        }
        realms[0].1.limits().set(limits);
        self.review(&realms);
    }

    /// The same for a realm by its name.
    pub fn set_limits_of(&self, realm: &str, limits: UsageLimits) {
        self.realm(realm).limits().set(limits);
        self.review(&lock(&self.realms));
    }

    /// What all realms together may use from now on.
    pub fn set_relay_limits(&self, limits: RelayLimits) {
        self.relay.set(limits);
        self.review(&lock(&self.realms));
    }

    fn review(&self, realms: &[(Box<str>, Arc<RealmUse>)]) {
        self.relay.review(realms.iter().map(|(_, realm)| &**realm));
    }

    fn limited(self, allocations_per_user: u32) -> Self {
        self.set_limits(UsageLimits {
            allocations_per_user,
            ..UsageLimits::default()
        });
        self
    }

    /// Whether packets are to be metered at all.
    #[inline]
    pub(crate) fn meters(&self) -> bool {
        self.relay.meters()
    }

    /// What the users of a realm use. The first name that is asked for is the first realm's.
    pub(crate) fn realm(&self, name: &str) -> Arc<RealmUse> {
        let mut realms = lock(&self.realms);
        if let Some((first, realm)) = realms.first_mut().filter(|(first, _)| first.is_empty()) {
            *first = name.into();
            return realm.clone();
        }
        if let Some((_, realm)) = realms.iter().find(|(known, _)| **known == *name) {
            return realm.clone();
        }
        let realm = Arc::new(RealmUse::new(realms.len(), &self.relay));
        realms.push((name.into(), realm.clone()));
        realm
    }

    /// What each realm uses that there ever was, by the number that [`Stats::realms`](crate::Stats::realms) has.
    pub fn realms(&self) -> Vec<RealmHolds> {
        let each = lock(&self.realms);
        let each = each.iter().map(|(name, realm)| RealmHolds {
            name: name.clone(),
            allocations: realm.held(),
            joined: realm.joined(),
        });
        each.collect()
    }

    /// The reverse of [`Shared::bind_address`]: `None` for an address that is not configured.
    pub(crate) fn port_of(&self, address: SocketAddr, beside: Option<u16>) -> Option<Port> {
        let is_it = |index: &usize| match self.networks.get(*index) {
            Some(network) => network.contains(&address.ip()),
            None => self.addresses[*index].bind == address.ip(),
        };
        let index = (0..self.addresses.len()).find(is_it)?;
        let number = match (beside, self.addresses[index].bind, address.ip()) {
            (None, _, _) if self.networks.is_empty() => address.port(),
            (Some(port), IpAddr::V4(first), IpAddr::V4(ip)) if port == address.port() => {
                u16::try_from(ip.to_bits() - first.to_bits()).ok()?
            }
            (Some(port), IpAddr::V6(first), IpAddr::V6(ip)) if port == address.port() => {
                u16::try_from(ip.to_bits() - first.to_bits()).ok()?
            }
            _ => return None,
        };
        let pool = index as u16;
        Some(Port {
            pool,
            number,
            beside,
        })
    }

    /// All ports at rest, and until when.
    pub(crate) fn resting(&self, beside: Option<u16>, now: Instant) -> Vec<(Port, Instant)> {
        let mut all = Vec::new();
        for (index, pool) in self.pools.iter().enumerate() {
            let port = |number| Port {
                pool: index as u16,
                number,
                beside,
            };
            let pool = lock(pool);
            all.extend(
                pool.resting(now)
                    .map(|(number, until)| (port(number), until)),
            );
        }
        all
    }

    /// Takes ports that are in use already, and lets others rest.
    pub(crate) fn claim(&self, taken: &[Port], resting: &[(Port, Instant)]) {
        for (index, pool) in self.pools.iter().enumerate() {
            let is_here = |port: &Port| usize::from(port.pool) == index;
            let taken = taken.iter().filter(|port| is_here(port));
            let resting = resting.iter().filter(|(port, _)| is_here(port));
            let taken = taken.map(|port| port.number).collect();
            let resting = resting.map(|(port, until)| (port.number, *until));
            lock(pool).claim(&taken, &resting.collect());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is complete before anything could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
