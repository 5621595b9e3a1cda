//! A second link to another activator of the same network: kept ready, or opened when the first falls silent.
//!
//! ```text
//!   link used ── nothing answers ──▶ next open? ── yes ──▶ next is used from now on
//!                                        └── no ──▶ one is opened, to another activator; used once it is open,
//!                                                   if the first is still silent
//! ```
//!
//! What is sent meanwhile goes by the first link: it may be back before the second is there.

use std::time::Instant;

use link::CloseReason;
use model::{NetworkName, NodeId};
use wire::frame::Frame;

use super::Agent;

impl Agent {
    /// A link is open: the first of its network, or one that may take over.
    pub(super) fn on_opened(&mut self, key: u64, now: Instant) {
        let Some(session) = self.links.get(key) else {
            return;
        };
        let (node, network) = (session.node.clone(), session.node.network.clone());
        self.health.on_opened(&node, session.link.rtt());
        self.replace_if_silent(&network, now);
        self.keep_standby(&network, now);
    }

    /// Nothing answers on this link, on no path.
    pub(super) fn on_silent(&mut self, key: u64, now: Instant) {
        let Some(session) = self.links.get(key) else {
            return;
        };
        let (node, network) = (session.node.clone(), session.node.network.clone());
        self.health.on_failed(&node, now);
        self.replace_if_silent(&network, now);
    }

    /// Uses the next link of a network whose link is silent, or opens one.
    pub(super) fn replace_if_silent(&mut self, network: &NetworkName, now: Instant) {
        let Some(remote) = self.remotes.get_mut(network) else {
            return;
        };
        let (link, next) = (remote.link, remote.next);
        let silent = link.and_then(|key| self.links.get(key));
        if !silent.is_some_and(|session| session.opened && session.link.is_silent()) {
            return;
        }
        let Some(next) = next else {
            return self.open_next(network, now);
        };
        let Some(session) = self.links.get_mut(next) else {
            return;
        };
        if session.link.is_open() && !session.link.is_silent() {
            session.standby = false;
            let kept = link.and_then(|key| Some(self.links.get_mut(key)?.link.take_kept()));
            if let Some(remote) = self.remotes.get_mut(network) {
                (remote.link, remote.next) = (Some(next), None);
            }
            self.stats.links_replaced += 1;
            self.flush_waiting(next, now);
            self.send_again(kept.into_iter().flatten(), now);
        }
    }

    /// A network's link is over: its next one is used, whether it is open yet or not. `false`: there is none.
    pub(super) fn take_over(
        &mut self,
        network: &NetworkName,
        reason: &CloseReason,
        now: Instant,
    ) -> bool {
        let Some(next) = self
            .remotes
            .get_mut(network)
            .and_then(|remote| remote.next.take())
        else {
            return false;
        };
        let Some(session) = self.links.get_mut(next) else {
            return false;
        };
        session.standby = false;
        if matches!(reason, CloseReason::LocalClosed(why) if why == super::IDLE) {
            // Nobody used the one, nobody needs the other.
            self.close_link(next, super::IDLE, now);
            return false;
        }
        if let Some(remote) = self.remotes.get_mut(network) {
            remote.link = Some(next);
        }
        self.stats.links_replaced += 1;
        self.flush_waiting(next, now);
        true
    }

    /// Takes up what a link sent that nobody answered.
    pub(super) fn send_again(&mut self, frames: impl Iterator<Item = Vec<u8>>, now: Instant) {
        for frame in frames {
            let to = Frame::decode(&frame).map(|frame| frame.packet.destination());
            if let Ok(to) = to {
                let _ = self.handle_frame(&frame, to, now);
            }
        }
    }

    /// Opens a second link where one shall be kept and there is none.
    pub(super) fn keep_standby(&mut self, network: &NetworkName, now: Instant) {
        let Some(remote) = self.remotes.get(network) else {
            return;
        };
        let link = remote.link.and_then(|key| self.links.get(key));
        let open = link.is_some_and(|session| session.link.is_open());
        if self.config.standby && open && remote.next.is_none() {
            self.open_next(network, now);
        }
    }

    /// Opens a link to an activator of the network that is not the one in use, for all that the link in
    /// use leads to.
    fn open_next(&mut self, network: &NetworkName, now: Instant) {
        let Some(current) = self
            .remotes
            .get(network)
            .and_then(|remote| self.links.get(remote.link?))
        else {
            return;
        };
        let rank = |node: &NodeId| {
            let usable = *node != current.node && !self.health.rests(node, now);
            usable.then(|| self.health.rank(node, now))
        };
        let chosen = self.peers.choose(network, &self.config.network, rank);
        let Some((node, registration)) = chosen else {
            return;
        };
        let (node, instance) = (node.clone(), registration.instance);
        let destinations = current.destinations();
        let Ok(key) = self.make_offer(&node, instance, &destinations, now, now) else {
            return;
        };
        if let Some(session) = self.links.get_mut(key) {
            session.standby = self.config.standby;
        }
        if let Some(remote) = self.remotes.get_mut(network) {
            remote.next = Some(key);
        }
    }
}
