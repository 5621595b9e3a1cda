//! Where the peer can be reached: what it says of itself, and what is learned from its checks; bounded, since a peer gets
//! new addresses for as long as it lives.

use std::net::SocketAddr;

use protocol::document::Candidate as WireCandidate;

use super::Ice;
use super::pair::{self, Pair, Remote, candidate_priority};
use crate::candidate::{CandidateKind, from_wire};
use crate::config::MAX_REMOTE_CANDIDATES;
use crate::output::LinkError;

/// Remote addresses of one link, said by the peer or learned from its checks.
pub(super) const MAX_REMOTES: usize = 2 * MAX_REMOTE_CANDIDATES;

impl Ice {
    /// Takes in a remote candidate. A peer gets new addresses for as long as it lives: where there are too many, those of
    /// NATs go first, and of them the one that it gave first, or that was silent for longest; what carries packets stays.
    pub(crate) fn add_remote(&mut self, wire: &WireCandidate) -> Result<(), LinkError> {
        let (kind, address) = from_wire(wire)?;
        self.is_no_longer_leaving(address);
        let priority = match wire.priority {
            0 => candidate_priority(kind, address.ip()),
            given => given,
        };
        let remote = Remote {
            address,
            priority,
            relayed: kind == CandidateKind::Relayed,
        };
        let is_it = |known: &Remote| known.address == address;
        if !self.described.iter().any(is_it) {
            if self.described.len() >= MAX_REMOTE_CANDIDATES {
                self.forget_first_described();
            }
            self.described.push(remote);
        }
        if self.remotes.len() >= MAX_REMOTES && !self.remotes.iter().any(is_it) {
            self.forget_quietest(address);
        }
        self.learn(remote);
        Ok(())
    }

    /// The addresses the peer gave.
    pub(crate) fn remotes(&self) -> Vec<SocketAddr> {
        self.described.iter().map(|known| known.address).collect()
    }

    pub(super) fn learn(&mut self, remote: Remote) {
        let same = |known: &&mut Remote| known.address == remote.address;
        if let Some(known) = self.remotes.iter_mut().find(same) {
            if remote.relayed && !known.relayed {
                // Its checks came before the description that says what it is.
                *known = remote;
                let of = |pair: &&mut Pair| pair.remote == remote.address;
                for pair in self.pairs.iter_mut().filter(of) {
                    pair.relayed = true;
                }
                let choice = self.choice;
                self.pairs.retain(|pair| choice.allows(pair.relayed));
                self.pair_up();
            }
        } else if self.remotes.len() < MAX_REMOTES {
            self.remotes.push(remote);
            self.pair_up();
        }
    }

    /// The pair that an authentic check came on. The peer's NAT gives it new addresses as often as it likes: when there is
    /// no room for one more, those go that were silent for longest.
    pub(super) fn admit(&mut self, path: (SocketAddr, SocketAddr), priority: u32) -> Option<usize> {
        let remote = Remote {
            address: path.1,
            priority,
            relayed: pair::is_relayed(priority),
        };
        self.learn(remote);
        while self.position(path).is_none() {
            self.forget_quietest(path.1)?;
            self.learn(remote);
            self.pair_up();
        }
        self.position(path)
    }

    /// Makes room in what the peer said of itself.
    fn forget_first_described(&mut self) {
        let used = self.selected.map(|(_, remote)| remote);
        let others = self.described.iter().enumerate();
        let others = others.filter(|(_, known)| Some(known.address) != used);
        let first = others.min_by_key(|(at, known)| (!known.is_reflexive(), *at));
        if let Some((first, _)) = first {
            self.described.remove(first);
        }
    }

    /// Makes room for a remote address: of the others that are not used, the one goes that was silent for longest.
    fn forget_quietest(&mut self, kept: SocketAddr) -> Option<()> {
        let used = self.selected.map(|(_, remote)| remote);
        let heard = |address: SocketAddr| {
            let of = |pair: &&Pair| pair.remote == address;
            let heard = self.pairs.iter().filter(of).map(|pair| pair.heard);
            heard.max().flatten()
        };
        let others = self.remotes.iter();
        let others = others.filter(|it| it.address != kept && Some(it.address) != used);
        let quietest = others
            .min_by_key(|other| (!other.is_reflexive(), heard(other.address)))?
            .address;
        self.remotes.retain(|known| known.address != quietest);
        self.pairs.retain(|pair| pair.remote != quietest);
        Some(())
    }
}
