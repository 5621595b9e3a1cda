//! Handing a shard's state to a successor, as bytes: another process, perhaps of a later version, goes on where this one
//! stopped. Sockets are the shell's to hand over; here they are named by their positions.
//!
//! What is handed over: allocations over UDP and TCP with their permissions, channels and lifetimes, reserved ports and
//! ports at rest. What is not: allocations over TLS, whose sessions cannot be moved, and allocations with TCP to peers, whose
//! connections cannot; counters; packets. A successor that
//! is configured differently takes what still fits: who is over the quota stays, and who has a relayed address that is no
//! longer configured does not.

mod format;

use crate::allocation::channel::Channel;
use crate::allocation::reservation::Reservation;
use crate::allocation::{Allocation, Relay};
use crate::auth::token::Session;
use crate::auth::{Key, MAX_USER};
use crate::timer::Reason;
use crate::usage::{Counters, Usage};
use crate::{ConnectionId, Family, FiveTuple, Realm, RelayId, Server, Traffic, Transport};
use format::{address, read_address, read_time, time};
use model::{ClientAddr, PeerAddr, RelayedAddr, ServerAddr, UnixTime};
use prost::Message;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stun_types::message::TransactionId;
use thiserror::Error;

/// What a shard leaves to its successor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// For [`Server::import`].
    pub state: Vec<u8>,
    /// The relayed addresses, by position.
    pub relays: Vec<RelayId>,
}

/// A relayed address that was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// In [`Exported::relays`].
    pub position: usize,
    /// Its name here.
    pub relay: RelayId,
    /// What its socket is bound to.
    pub address: SocketAddr,
}

/// What [`Server::import`] took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    pub relays: Vec<Adopted>,
    pub allocations: usize,
    /// Allocations that do not fit this configuration, and so have ended.
    pub left_out: usize,
}

/// Bytes that no relay wrote, or that were damaged. Nothing was taken from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not the state of a relay: {0}")]
pub struct ImportError(&'static str);

impl Server {
    /// All that a successor needs to go on. Nothing is changed: to be called between two turns, when
    /// [`Server::poll_output`] has nothing left.
    pub fn export(&self, now: Instant) -> Exported {
        let shared = &self.config.shared;
        let mut relays = Vec::new();
        let mut state = format::Shard::default();
        for (id, allocation) in self.table.iter() {
            if let Some(written) = self.export_allocation(allocation, now) {
                relays.extend(allocation.relay_ids(id));
                state.allocations.push(written);
            }
        }
        // Once each, also if there is a timer of one before by the same token.
        let tokens: BTreeSet<u64> = self.timers.reservations().collect();
        for token in tokens {
            if let Some(reservation) = shared.reservation(token) {
                let port = format::Port {
                    address: address(shared.bind_address(reservation.port)),
                    until: time(reservation.expires, now),
                };
                let port = Some(port);
                state.reservations.push(format::Reservation { token, port });
            }
        }
        for (port, until) in shared.resting(self.config.relay_port, now) {
            state.resting.push(format::Port {
                address: address(shared.bind_address(port)),
                until: time(until, now),
            });
        }
        let state = state.encode_to_vec();
        Exported { state, relays }
    }

    /// `None` for what cannot be handed over.
    fn export_allocation(
        &self,
        allocation: &Allocation,
        now: Instant,
    ) -> Option<format::Allocation> {
        // By name, each of them: whoever adds a field decides here whether a successor needs it.
        let Allocation {
            path,
            realm: _,
            user,
            credential,
            account: _,
            session,
            transaction,
            relays,
            lifetime,
            expiry_timer: _,
            reservation,
            address_error,
            opening,
            permissions,
            channels,
            last_sent: _,
            icmp: _,
            tcp,
            // A ticket is of this process.
            mobile: _,
            counters,
            published: _,
        } = allocation;
        let (transport, connection) = match path.transport {
            Transport::Udp => (0, 0),
            Transport::Tcp(connection) => (1, connection.0),
            Transport::Tls(_) | Transport::Dtls(_) => return None,
        };
        if opening.is_some() || tcp.is_some() {
            return None;
        }
        let relay = |relay: &Relay| format::Port {
            address: address(self.config.shared.bind_address(relay.port)),
            until: time(relay.expires, now),
        };
        let channel = |channel: &Channel| format::Channel {
            number: channel.number.into(),
            peer: address(channel.peer.0),
            until: time(channel.expires, now),
            permitted_until: time(channel.permitted_until, now),
        };
        let family = |family: &Family| *family as u32 + 1;
        Some(format::Allocation {
            client: address(path.client.0),
            server: address(path.server.0),
            transport,
            connection,
            user: user.name.to_string(),
            // The first realm is the first one there, too, whatever its name.
            realm: Some(user.realm.to_string())
                .filter(|name| **name != *self.config.realms.first().name),
            credential: credential.as_deref().map(str::to_owned),
            session: session.as_deref().map(|session| format::Session {
                kid: session.kid.to_string(),
                key: session.key.as_bytes().to_vec(),
                expires: session.expires.0,
            }),
            transaction: u128::from(*transaction).to_be_bytes().to_vec(),
            relays: relays.iter().flatten().map(relay).collect(),
            // At most `Limits::max_lifetime`.
            lifetime_seconds: lifetime.as_secs() as u32,
            reservation: *reservation,
            address_error: address_error
                .as_ref()
                .map_or(0, |(of, code)| family(of) * 1_000 + u32::from(*code)),
            permissions: permissions
                .iter()
                .map(|(ip, until)| format::Permission {
                    ip: format::ip(ip),
                    until: time(until, now),
                })
                .collect(),
            channels: channels.iter().map(channel).collect(),
            counters: Some(write_counters(counters, permissions.installed(), now)),
        })
    }

    /// Goes on where another left off, which exported `state` a moment before `now`. To be called before anything else
    /// enters, and for all shards of a process before any of them allocates. `is_served` says whether a client can still be
    /// reached; who cannot is left out.
    ///
    /// The shell then has the sockets of [`Imported::relays`] and no others, as if it had opened them.
    ///
    /// # Errors
    /// When these are not the bytes of [`Server::export`]; nothing is taken then.
    pub fn import(
        &mut self,
        state: &[u8],
        now: Instant,
        is_served: impl Fn(FiveTuple) -> bool,
    ) -> Result<Imported, ImportError> {
        let state = format::Shard::decode(state).map_err(|_| ImportError("it cannot be read"))?;
        let mut read = Vec::new();
        let (mut paths, mut bound) = (FxHashSet::default(), FxHashSet::default());
        let (mut position, mut left_out) = (0, 0);
        for written in &state.allocations {
            let first = position;
            position += written.relays.len();
            let (allocation, addresses) = self.read_allocation(written, now)?;
            let unique = addresses.iter().all(|address| bound.insert(*address));
            let has_realm = self.realm_of(written).is_some();
            if !paths.insert(allocation.path) || !unique {
                return Err(ImportError("two allocations are one"));
            }
            let fits = allocation.relays.iter().flatten().count() == addresses.len();
            if fits && has_realm && is_served(allocation.path) {
                read.push((first, allocation, addresses));
            } else {
                left_out += 1;
            }
        }
        let reservations = read_reservations(&state.reservations, now)?;
        let resting = read_ports(&state.resting, now)?;

        // Nothing can go wrong any more.
        let mut imported = Imported {
            left_out,
            allocations: read.len(),
            ..Imported::default()
        };
        let shared = self.config.shared.clone();
        let mut taken = Vec::new();
        for (token, at, expires) in reservations {
            if let Some(port) = shared.port_of(at, self.config.relay_port) {
                taken.push(port);
                shared.reserve(token, Reservation { port, expires });
                self.timers.schedule(expires, Reason::Reservation(token));
            }
        }
        for (first, allocation, addresses) in read {
            taken.extend(allocation.relays.iter().flatten().map(|relay| relay.port));
            let account = allocation.realm.used.inherit(&allocation.user.name);
            let allocation = Allocation {
                account,
                ..allocation
            };
            let families = Family::BOTH.map(|f| allocation.relay(f).map(|_| f));
            let id = self.insert(allocation, now);
            let positions = families.into_iter().flatten().zip(addresses);
            for (at, (family, address)) in positions.enumerate() {
                let relay = RelayId {
                    allocation: id,
                    family,
                };
                let position = first + at;
                imported.relays.push(Adopted {
                    position,
                    relay,
                    address,
                });
            }
            self.publish_ends(id, now);
        }
        let resting = resting.into_iter().filter_map(|(address, until)| {
            Some((shared.port_of(address, self.config.relay_port)?, until))
        });
        shared.claim(&taken, &resting.collect::<Vec<_>>());
        // Here others may be revoked, and other peers allowed.
        self.enforce_policy(now);
        Ok(imported)
    }

    /// Where its user is one of.
    fn realm_of(&self, written: &format::Allocation) -> Option<&Arc<Realm>> {
        let realms = &self.config.realms;
        let name = written.realm.as_deref();
        realms.named(name.unwrap_or(realms.first().name()).as_bytes())
    }

    /// An allocation, with the relayed addresses that it had: those that are not configured here are missing from it.
    fn read_allocation(
        &self,
        written: &format::Allocation,
        now: Instant,
    ) -> Result<(Allocation, Vec<SocketAddr>), ImportError> {
        let connection = ConnectionId(written.connection);
        let transport = match written.transport {
            0 => Transport::Udp,
            1 => Transport::Tcp(connection),
            _ => return Err(ImportError("a transport that cannot be handed over")),
        };
        let client = read_address(&written.client).ok_or(ImportError("a client's address"))?;
        let server = read_address(&written.server).ok_or(ImportError("a server's address"))?;
        let transaction = <[u8; 16]>::try_from(&written.transaction[..])
            .ok()
            .map(u128::from_be_bytes)
            .filter(|id| id >> 96 == 0)
            .ok_or(ImportError("a transaction"))?;
        let credential = written.credential.as_deref().unwrap_or_default();
        if written.user.len().max(credential.len()) > MAX_USER {
            return Err(ImportError("a user"));
        }
        // One that there is not is left out with what is read.
        let realm = self.realm_of(written);
        let realm = realm.unwrap_or(self.config.realms.first()).clone();
        let lifetime = Duration::from_secs(written.lifetime_seconds.into());
        if read_time(lifetime.as_micros() as i64, now).is_none() {
            return Err(ImportError("a lifetime"));
        }
        let mut relays = [None; 2];
        let mut addresses = Vec::new();
        for (address, expires) in read_ports(&written.relays, now)? {
            let index = Family::of(address) as usize;
            // In this order, and one of each at most.
            if relays[index..].iter().any(Option::is_some) || addresses.len() > index {
                return Err(ImportError("relayed addresses"));
            }
            addresses.push(address);
            let port = self.config.shared.port_of(address, self.config.relay_port);
            relays[index] = port.map(|port| Relay {
                advertised: RelayedAddr(self.config.shared.advertised_address(port)),
                port,
                expires,
                open: true,
            });
        }
        if addresses.is_empty() {
            return Err(ImportError("an allocation without relayed address"));
        }
        let counters = written.counters.as_ref();
        let mut counters = counters.map_or_else(|| Counters::new(now), |w| read_counters(w, now));
        counters.relayed = relays.map(|relay| relay.map(|relay: Relay| relay.advertised.0));
        let mut allocation = Allocation {
            path: FiveTuple {
                client: ClientAddr(client),
                server: ServerAddr(server),
                transport,
            },
            user: realm.user(&written.user),
            realm,
            credential: written.credential.as_deref().map(Into::into),
            account: Default::default(),
            session: written.session.as_ref().map(read_session).transpose()?,
            transaction: TransactionId::from(transaction),
            relays,
            lifetime,
            expiry_timer: now,
            reservation: written.reservation,
            address_error: read_address_error(written.address_error)?,
            opening: None,
            permissions: Default::default(),
            channels: Default::default(),
            last_sent: None,
            icmp: Default::default(),
            tcp: None,
            mobile: None,
            counters,
            published: Vec::new(),
        };
        allocation.expiry_timer = allocation.expires().unwrap_or(now);
        for permission in &written.permissions {
            let ip = format::read_ip(&permission.ip).ok_or(ImportError("a permission"))?;
            let until = read_time(permission.until, now).ok_or(ImportError("a permission"))?;
            allocation.permissions.restore(ip, until);
        }
        let installed = written.counters.as_ref().map_or(0, |c| c.permissions);
        allocation.permissions.set_installed(installed);
        for channel in &written.channels {
            let channel = read_channel(channel, now).ok_or(ImportError("a channel"))?;
            if !allocation.channels.restore(channel) {
                return Err(ImportError("two channels are one"));
            }
        }
        Ok((allocation, addresses))
    }
}

fn read_session(written: &format::Session) -> Result<Box<Session>, ImportError> {
    let key = Key::of_token(&written.key).ok_or(ImportError("a token"))?;
    if written.kid.len() > MAX_USER {
        return Err(ImportError("a token"));
    }
    Ok(Box::new(Session {
        kid: written.kid.as_str().into(),
        key,
        expires: UnixTime(written.expires),
    }))
}

fn write_counters(counters: &Counters, permissions: u32, now: Instant) -> format::Counters {
    let age = |since: Instant| now.saturating_duration_since(since).as_micros() as u64;
    let of = |usage: &Usage| {
        let (there, back) = (usage.to_peer, usage.to_client);
        [there.packets, there.bytes, back.packets, back.bytes]
    };
    format::Counters {
        age: age(counters.created),
        told_age: age(counters.told_at),
        traffic: [of(&counters.used), of(&counters.told)].concat(),
        permissions,
    }
}

fn read_counters(written: &format::Counters, now: Instant) -> Counters {
    // Before the machine started is long ago as well.
    let since = |age| now.checked_sub(Duration::from_micros(age)).unwrap_or(now);
    // So that they can grow, whatever is written.
    let number = |at: usize| written.traffic.get(at).map_or(0, |n| n % (1 << 62));
    let traffic = |at: usize| Traffic {
        packets: number(at),
        bytes: number(at + 1),
    };
    let usage = |at: usize| Usage {
        to_peer: traffic(at),
        to_client: traffic(at + 2),
    };
    Counters {
        created: since(written.age),
        used: usage(0),
        told: usage(4),
        told_at: since(written.told_age),
        relayed: [None; 2],
    }
}

fn read_channel(written: &format::Channel, now: Instant) -> Option<Channel> {
    let number = u16::try_from(written.number).ok()?;
    Some(Channel {
        number: Some(number).filter(|number| (0x4000..0x8000).contains(number))?,
        peer: PeerAddr(read_address(&written.peer)?),
        expires: read_time(written.until, now)?,
        permitted_until: read_time(written.permitted_until, now)?,
    })
}

fn read_address_error(written: u32) -> Result<Option<(Family, u16)>, ImportError> {
    let code = (written % 1_000) as u16;
    match written / 1_000 {
        0 if code == 0 => Ok(None),
        1 => Ok(Some((Family::V4, code))),
        2 => Ok(Some((Family::V6, code))),
        _ => Err(ImportError("an address error")),
    }
}

fn read_ports(
    written: &[format::Port],
    now: Instant,
) -> Result<Vec<(SocketAddr, Instant)>, ImportError> {
    let read =
        |port: &format::Port| Some((read_address(&port.address)?, read_time(port.until, now)?));
    let ports = written.iter().map(read).collect::<Option<_>>();
    ports.ok_or(ImportError("a port"))
}

fn read_reservations(
    written: &[format::Reservation],
    now: Instant,
) -> Result<Vec<(u64, SocketAddr, Instant)>, ImportError> {
    let mut reservations = FxHashMap::default();
    for reservation in written {
        let port = reservation.port.clone();
        let port = port.ok_or(ImportError("a reservation"))?;
        for (address, expires) in read_ports(&[port], now)? {
            reservations.insert(reservation.token, (address, expires));
        }
    }
    let each = reservations.into_iter();
    Ok(each
        .map(|(token, (at, until))| (token, at, until))
        .collect())
}
