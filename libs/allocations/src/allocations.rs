//! The allocations on all relays.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use model::{PeerAddr, RelayAccess, RelayName, RelayTransport, RelayWay, RelayedAddr};
use net::{BurstBatch, Poller};
use rustls::ClientConfig;
use turn_client::{LostReason, Reserve};

use crate::{
    access::AccessFetcher,
    relay::{Relay, RelayStats},
};

/// Something happened to an allocation.
#[derive(Debug)]
pub enum AllocationEvent {
    /// There is one.
    Allocated {
        /// On this relay.
        relay: RelayName,
        /// One or two addresses, of different families.
        relayed: Vec<RelayedAddr>,
        /// How the relay is spoken to.
        transport: RelayTransport,
    },
    /// The same allocation is reached another way.
    Moved {
        /// On this relay.
        relay: RelayName,
        /// How the relay is spoken to now.
        transport: RelayTransport,
    },
    /// It will soon be gone, because the relay drains.
    Ending {
        /// On this relay.
        relay: RelayName,
        /// What is left of it.
        left: Duration,
    },
    /// There is none.
    Lost {
        /// On this relay.
        relay: RelayName,
        /// Why.
        reason: LostReason,
        /// There was one.
        held: bool,
    },
    /// [`Allocations::renew`] is wanted.
    NeedCredential {
        /// For this relay.
        relay: RelayName,
    },
}

impl AllocationEvent {
    /// Tells the log of it.
    pub fn log(&self) {
        match self {
            Self::Allocated {
                relay,
                relayed,
                transport,
            } => {
                let addresses: Vec<String> = relayed.iter().map(ToString::to_string).collect();
                tracing::info!(%relay, %transport, relayed = %addresses.join(" "), "allocation gained");
            }
            Self::Moved { relay, transport } => {
                tracing::info!(%relay, %transport, "allocation moved");
            }
            Self::Ending { relay, left } => {
                let seconds = left.as_secs();
                tracing::info!(%relay, seconds, "the relay drains: its links move to others");
            }
            Self::Lost {
                relay,
                reason,
                held,
            } => {
                let what = if *held {
                    "allocation lost"
                } else {
                    "no allocation yet"
                };
                tracing::warn!(%relay, %reason, "{what}");
            }
            Self::NeedCredential { relay } => {
                tracing::debug!(%relay, "the relay wants another credential");
            }
        }
    }
}

/// All of them. There are few: a search is a walk.
#[derive(Debug)]
pub struct Allocations {
    relays: Vec<Relay>,
    tls: Option<Arc<ClientConfig>>,
    batch: BurstBatch,
    scratch: Vec<u8>,
}

impl Allocations {
    /// None yet. Without `tls`, TLS is not used.
    pub fn new(tls: Option<Arc<ClientConfig>>) -> Self {
        Self {
            relays: Vec::new(),
            tls,
            batch: BurstBatch::new(),
            scratch: Vec::new(),
        }
    }

    /// Does what a reservation wants done.
    ///
    /// # Errors
    /// The relay for whose allocation there can be no socket.
    pub fn reserve(
        &mut self,
        wish: Reserve,
        fetcher: &AccessFetcher,
        poller: &Poller,
        now: Instant,
    ) -> Result<(), RelayName> {
        match wish {
            Reserve::FetchAccess { relay, uris } => fetcher.fetch(relay, uris),
            Reserve::AccessFailed {
                relay,
                reason,
                retry_in,
            } => {
                tracing::warn!(%relay, %reason, ?retry_in, "no access to the relay yet");
            }
            Reserve::RelayIgnored { relay, reason } => {
                tracing::warn!(%relay, %reason, "the relay cannot be used");
            }
            Reserve::Allocate { relay, access } => {
                if let Err(error) = self.start(relay.clone(), &access, poller, now) {
                    tracing::error!(%relay, %error, "no socket for the allocation");
                    return Err(relay);
                }
            }
            Reserve::RenewCredential { relay, access } => self.renew(&relay, &access, now),
            Reserve::Release { relay } => {
                tracing::info!(%relay, "allocation released");
                self.close(&relay, now);
            }
            Reserve::GiveBack { relay } => {
                if let Some(relay) = self.find(&relay) {
                    relay.mind.give_back(now);
                }
            }
        }
        Ok(())
    }

    /// Starts an allocation.
    ///
    /// # Errors
    /// When there can be no socket.
    pub fn start(
        &mut self,
        name: RelayName,
        access: &RelayAccess,
        poller: &Poller,
        now: Instant,
    ) -> io::Result<()> {
        let tls = self.tls.clone();
        let relay = Relay::start(name, access, tls, seed(), poller, now)?;
        self.relays.push(relay);
        Ok(())
    }

    /// Goes on with another credential.
    pub fn renew(&mut self, name: &RelayName, access: &RelayAccess, now: Instant) {
        if let Some(relay) = self.find(name) {
            relay.renew(access, now);
        }
    }

    /// Tells the relay to delete the allocation, and forgets it once that is sent.
    pub fn close(&mut self, name: &RelayName, now: Instant) {
        if let Some(relay) = self.find(name) {
            relay.mind.close(now);
            relay.relayed.clear();
            relay.closing = true;
        }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.relays.is_empty()
    }

    /// The relayed addresses held on this relay now.
    pub fn relayed(&self, name: &RelayName) -> &[RelayedAddr] {
        let found = self.relays.iter().find(|relay| relay.is(name));
        found.map_or(&[], |relay| relay.relayed.as_slice())
    }

    /// How the relay is spoken to on which this is a relayed address of ours.
    pub fn transport_of(&self, relayed: SocketAddr) -> Option<RelayTransport> {
        let ours = |relay: &&Relay| relay.relayed.iter().any(|held| held.0 == relayed);
        self.relays.iter().find(ours).map(Relay::transport)
    }

    /// Lets a peer through, for one more link. `false`: it cannot be, for want of a relayed address of its family
    /// for example.
    pub fn permit(&mut self, name: &RelayName, peer: SocketAddr, now: Instant) -> bool {
        let Some(relay) = self.find(name) else {
            return false;
        };
        if let Some(links) = relay.peers.get_mut(&peer) {
            *links += 1;
            return true;
        }
        let permitted = relay.mind.permit(PeerAddr(peer), now);
        if permitted {
            relay.peers.insert(peer, 1);
        }
        permitted
    }

    /// One link fewer needs this peer.
    pub fn release(&mut self, name: &RelayName, peer: SocketAddr) {
        let Some(relay) = self.find(name) else { return };
        if let Some(links) = relay.peers.get_mut(&peer) {
            *links -= 1;
            if *links == 0 {
                relay.peers.remove(&peer);
                relay.mind.release_peer(PeerAddr(peer));
            }
        }
    }

    /// Takes one batch from each socket that the poller found ready; calls `each` with local relayed address, peer,
    /// and the burst: payloads and the bytes of each but the last.
    pub fn receive(
        &mut self,
        poller: &Poller,
        now: Instant,
        mut each: impl FnMut(SocketAddr, SocketAddr, BytesMut, usize),
    ) {
        let Self { relays, batch, .. } = self;
        for relay in relays {
            relay.receive(poller, batch, now, &mut each);
        }
    }

    /// Sends datagrams of `segment` bytes, the last may be shorter, from a relayed address to a peer: a burst at once,
    /// one alone with the next flush or before the next burst. What the mind does not send it counts itself.
    /// `false`: the address is not a relayed one of ours.
    pub fn send(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
        segment: usize,
    ) -> bool {
        let ours = |relay: &&mut Relay| relay.relayed.iter().any(|relayed| relayed.0 == local);
        let Some(relay) = self.relays.iter_mut().find(ours) else {
            return false;
        };
        relay.send_to_peer(PeerAddr(remote), payload, segment.max(1), &mut self.scratch);
        true
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        self.relays.iter_mut().filter_map(Relay::poll_timeout).min()
    }

    /// Does what is due. Those that cannot get on with the port they have are started anew from another.
    pub fn handle_timeout(&mut self, poller: &Poller, now: Instant) {
        for relay in &mut self.relays {
            relay.handle_timeout(poller, now);
            relay.renew_port(seed, poller, now);
        }
    }

    /// The next thing that happened to any of them.
    pub fn poll_event(&mut self, now: Instant) -> Option<AllocationEvent> {
        let mut live = self.relays.iter_mut().filter(|relay| !relay.closing);
        live.find_map(|relay| relay.poll_event(now))
    }

    /// Sends what is queued, as far as the kernel takes it, and has the poller say when it takes more.
    pub fn flush(&mut self, poller: &Poller) {
        for relay in &mut self.relays {
            relay.flush(poller);
        }
        self.relays.retain(|relay| !relay.is_done());
    }

    /// Each relay's counters, number of peers, and how it is spoken to.
    pub fn stats(
        &self,
    ) -> impl Iterator<Item = (&RelayName, RelayStats, usize, Option<&RelayWay>)> {
        self.relays.iter().map(|relay| {
            let peers = relay.peers.len();
            (&relay.name, relay.stats(), peers, relay.way())
        })
    }

    fn find(&mut self, name: &RelayName) -> Option<&mut Relay> {
        self.relays.iter_mut().find(|relay| relay.is(name))
    }
}

/// From the operating system; a fallback that is merely different each time is good enough for a seed.
fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()) << 32 | 0x9e37_79b9)
}
