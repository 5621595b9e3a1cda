//! What CreatePermission and ChannelBind have in common, and what all but Allocate begin with.

use crate::allocation::Allocation;
use crate::request::{Refusal, Request};
use crate::{AllocationId, Server};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use turn_types::message::REFRESH;

impl Request<'_, '_> {
    /// The allocation of the five-tuple, if it is the sender's.
    pub(super) fn own_allocation<'s>(
        &self,
        server: &'s mut Server,
    ) -> Result<(AllocationId, &'s mut Allocation), Refusal> {
        let found = server
            .table
            .find(self.path)
            .ok_or(Refusal::AllocationMismatch)?;
        let is_own = match (&found.1.session, &self.by.session) {
            (None, None) => found.1.user == self.by.user,
            // A token names its issuer and not its holder. Who has another one may be the same client, whose first is
            // about to end; it says so with a Refresh.
            (Some(held), Some(shown)) => {
                let may_be = held.key == shown.key
                    || held.kid == shown.kid
                    || self.message.method() == REFRESH;
                may_be && found.1.user.realm == self.by.user.realm
            }
            _ => false,
        };
        if !is_own {
            return Err(Refusal::WrongCredentials);
        }
        found.1.session = self.by.session.clone().map(Box::new);
        Ok(found)
    }

    /// A lifetime, as far as the token that it is asked with goes (RFC 7635 section 4.1.1).
    pub(super) fn within_token(&self, lifetime: Duration) -> Duration {
        let Some(session) = &self.by.session else {
            return lifetime;
        };
        let left = session.expires.0.saturating_sub(self.now.unix.0);
        lifetime.min(Duration::from_secs(left))
    }
}

impl Server {
    /// Whether permissions for these addresses fit; makes room of expired ones if not.
    pub(super) fn check_permission_room(
        &mut self,
        id: AllocationId,
        peers: &[IpAddr],
        now: Instant,
    ) -> Result<(), Refusal> {
        let limit = self.config.limits.permissions;
        let allocation = self.table.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        let permissions = &mut allocation.permissions;
        let new = |permissions: &crate::allocation::permission::Permissions| {
            peers
                .iter()
                .filter(|ip| !permissions.contains(**ip))
                .count()
        };
        if permissions.len() + new(permissions) <= limit {
            return Ok(());
        }
        let held = permissions.len();
        permissions.sweep(now);
        self.stats.permissions -= (held - permissions.len()) as u64;
        if permissions.len() + new(permissions) <= limit {
            Ok(())
        } else {
            Err(Refusal::InsufficientCapacity)
        }
    }

    /// Installs or refreshes permissions: all or none.
    pub(super) fn permit(
        &mut self,
        id: AllocationId,
        peers: &[IpAddr],
        now: Instant,
    ) -> Result<(), Refusal> {
        self.check_permission_room(id, peers, now)?;
        let allocation = self.table.get_mut(id).ok_or(Refusal::AllocationMismatch)?;
        let held = allocation.permissions.len();
        for ip in peers {
            let until = allocation.permissions.install(*ip, now);
            allocation.channels.permit(*ip, until);
        }
        self.stats.permissions += (allocation.permissions.len() - held) as u64;
        if peers.iter().any(|ip| self.config.shared.is_own(*ip)) {
            self.publish_ends(id, now);
        }
        Ok(())
    }
}
