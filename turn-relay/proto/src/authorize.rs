//! Whether a user may reach a peer: the same question for every way to it. The policy first, and then whether it asks for
//! too many peers in a short time, as one does who looks for hosts or open ports.

use crate::request::Refusal;
use crate::{AllocationId, Denied, DropReason, Server};
use model::PeerAddr;
use std::net::IpAddr;
use std::time::Instant;

impl Server {
    /// Nanoseconds since the start, as accounts count time.
    #[inline]
    pub(crate) fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_nanos() as u64
    }

    /// For a permission, which is for all ports.
    pub(crate) fn authorize_host(
        &mut self,
        id: AllocationId,
        ip: IpAddr,
        now: Instant,
    ) -> Result<(), Refusal> {
        let allocation = self.table.get(id).ok_or(Refusal::AllocationMismatch)?;
        let allowed = allocation.realm.peer_policy.check_host(ip);
        let result = allowed.and_then(|()| self.check_new_peer(id, ip, 0, now));
        result.map_err(|why| self.on_denied(why))
    }

    /// For a channel, or a connection to a peer.
    pub(crate) fn authorize(
        &mut self,
        id: AllocationId,
        peer: PeerAddr,
        now: Instant,
    ) -> Result<(), Refusal> {
        let allocation = self.table.get(id).ok_or(Refusal::AllocationMismatch)?;
        let allowed = allocation.realm.peer_policy.check(peer);
        let (ip, port) = (peer.0.ip(), peer.0.port());
        let result = allowed.and_then(|()| self.check_new_peer(id, ip, port, now));
        result.map_err(|why| self.on_denied(why))
    }

    /// For a Send indication to an address that has a permission.
    pub(crate) fn authorize_data(
        &mut self,
        id: AllocationId,
        peer: PeerAddr,
        now: Instant,
    ) -> Result<(), DropReason> {
        let Some(allocation) = self.table.get(id) else {
            return Err(DropReason::NoAllocation);
        };
        if let Err(why) = allocation.realm.peer_policy.check_permitted(peer) {
            self.on_denied(why);
            return Err(DropReason::DeniedPeer);
        }
        if allocation.last_sent == Some(peer) {
            return Ok(());
        }
        if let Err(why) = self.check_new_peer(id, peer.0.ip(), peer.0.port(), now) {
            self.on_denied(why);
            return Err(DropReason::Scanning);
        }
        if let Some(allocation) = self.table.get_mut(id) {
            allocation.last_sent = Some(peer);
        }
        Ok(())
    }

    fn check_new_peer(
        &self,
        id: AllocationId,
        ip: IpAddr,
        port: u16,
        now: Instant,
    ) -> Result<(), Denied> {
        let nanos = self.nanos(now);
        let allocation = self.table.get(id);
        let may = allocation.is_none_or(|a| a.account.may_ask_for(ip, port, nanos));
        may.then_some(()).ok_or(Denied::Scanning)
    }

    fn on_denied(&mut self, why: Denied) -> Refusal {
        self.stats.denied[why as usize] += 1;
        Refusal::Forbidden
    }
}
