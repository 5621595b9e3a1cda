//! An activator's allocation on one relay and the socket under it, as the activator's shell keeps them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use model::{PeerAddr, RelayAccess, RelayName, RelayTransport, RelayedAddr};
use turn_client::{Allocation, AllocationConfig, Credential, Event, Families, Received};

use crate::relay::Counts;

/// No allocation is started from another port more often than this.
const NEW_PORT_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) name: RelayName,
    pub(crate) server: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) mind: Allocation,
    pub(crate) relayed: Vec<RelayedAddr>,
    /// How many links each peer is permitted for.
    peers: HashMap<SocketAddr, usize>,
    access: RelayAccess,
    started: Instant,
    wants_new_port: bool,
    pub(crate) from_peers: Counts,
}

/// What an allocation has to say.
#[derive(Debug)]
pub(crate) enum Said {
    Allocated(Vec<RelayedAddr>),
    Lost,
    NeedCredential,
}

impl Standing {
    pub(crate) fn start(
        name: RelayName,
        access: RelayAccess,
        local: SocketAddr,
        seed: u64,
        now: Instant,
    ) -> Self {
        Self {
            name,
            server: access.ways[0].server.0,
            local,
            mind: mind(&access, local, seed, now),
            relayed: Vec::new(),
            peers: HashMap::new(),
            access,
            started: now,
            wants_new_port: false,
            from_peers: Counts::default(),
        }
    }

    pub(crate) fn renew(&mut self, access: RelayAccess, now: Instant) {
        self.mind.set_credential(credential(&access), now);
        self.access = access;
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr, now: Instant) -> bool {
        if let Some(links) = self.peers.get_mut(&peer) {
            *links += 1;
            return true;
        }
        let permitted = self.mind.permit(PeerAddr(peer), now);
        if permitted {
            self.peers.insert(peer, 1);
        }
        permitted
    }

    pub(crate) fn release(&mut self, peer: SocketAddr) {
        if let Some(links) = self.peers.get_mut(&peer) {
            *links -= 1;
            if *links == 0 {
                self.peers.remove(&peer);
                self.mind.release_peer(PeerAddr(peer));
            }
        }
    }

    /// A datagram on its socket; what a peer sent, with the relayed address it came by.
    pub(crate) fn receive<'a>(
        &mut self,
        datagram: &'a [u8],
        now: Instant,
    ) -> Option<(SocketAddr, SocketAddr, &'a [u8])> {
        let Received::FromPeer { peer, payload } = self.mind.handle_datagram(now, datagram) else {
            return None;
        };
        self.from_peers.count(payload.len());
        let same_family = |local: &&RelayedAddr| local.0.is_ipv4() == peer.0.is_ipv4();
        let local = self.relayed.iter().find(same_family)?;
        Some((local.0, peer.0, payload))
    }

    /// A message to the relay that carries this to a peer.
    pub(crate) fn wrap(&mut self, peer: SocketAddr, payload: &[u8]) -> Option<Vec<u8>> {
        let peer = PeerAddr(peer);
        if let Some(header) = self.mind.channel_header(peer, payload.len()) {
            return Some([&header, payload].concat());
        }
        let mut message = Vec::new();
        self.mind
            .encode_to_peer(peer, payload, &mut message)
            .then_some(message)
    }

    pub(crate) fn poll_said(&mut self) -> Option<Said> {
        loop {
            match self.mind.poll_event()? {
                Event::Allocated { relayed, .. } => {
                    self.relayed.clone_from(&relayed);
                    return Some(Said::Allocated(relayed));
                }
                Event::Lost { reason } => {
                    self.relayed.clear();
                    for (peer, _) in self.peers.drain() {
                        self.mind.release_peer(PeerAddr(peer));
                    }
                    self.wants_new_port = reason.needs_new_port();
                    return Some(Said::Lost);
                }
                Event::NeedCredential => return Some(Said::NeedCredential),
                Event::PeerReady(_) | Event::Moved | Event::NotMoved => {}
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.mind.poll_timeout().is_some_and(|due| due <= now) {
            self.mind.handle_timeout(now);
        }
    }

    /// Whether it has to be started from another port, which is the caller's to find.
    pub(crate) fn wants_new_port(&self, now: Instant) -> bool {
        self.wants_new_port && now.saturating_duration_since(self.started) >= NEW_PORT_INTERVAL
    }

    pub(crate) fn move_to(&mut self, local: SocketAddr, seed: u64, now: Instant) {
        self.started = now;
        self.wants_new_port = false;
        self.local = local;
        self.mind = mind(&self.access, local, seed, now);
    }

    /// Peers that links hold.
    pub(crate) fn peers(&self) -> usize {
        self.peers.len()
    }
}

fn mind(access: &RelayAccess, local: SocketAddr, seed: u64, now: Instant) -> Allocation {
    let config = AllocationConfig {
        mobile: true,
        transport: RelayTransport::Udp,
        server: access.ways[0].server.0,
        local,
        families: Families::Both,
        seed,
    };
    Allocation::new(config, credential(access), now)
}

fn credential(access: &RelayAccess) -> Credential {
    Credential {
        username: access.username.clone(),
        password: access.password.clone(),
    }
}
