//! New settings for a server that runs. Nobody is dropped by them, except whose credential is revoked; what a peer may
//! no longer be reached by is taken away.

use crate::{AllocationId, EndReason, Extensions, RealmUser, Server, ServerConfig};
use std::time::Instant;

/// What new settings ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The user of each allocation that was ended because its credential is revoked, or its realm is no more.
    pub revoked: Vec<RealmUser>,
    /// Permissions and channels to peers that are no longer allowed.
    pub permissions: usize,
    pub channels: usize,
    /// TCP connections with such peers (RFC 6062), in whichever state.
    pub peer_connections: usize,
}

impl Server {
    /// Goes on with new settings. From the old ones stay what allocations rest on (`shared`, `relay_port`, `short_cut`) and
    /// what must be the same for the whole life of a process (`nonce_key`, `seed`).
    ///
    /// Allocations live on, with the lifetimes they were granted and beyond limits that are lower now; those of revoked
    /// credentials end, and those of realms that are no more. Costs a look at every allocation.
    pub fn replace_config(&mut self, now: Instant, new: ServerConfig) -> Replaced {
        // Where clients are listened for does not change.
        let discovery = std::mem::take(&mut self.config.extensions.discovery);
        self.config = ServerConfig {
            extensions: Extensions {
                discovery,
                ..new.extensions
            },
            shared: self.config.shared.clone(),
            relay_port: self.config.relay_port,
            short_cut: self.config.short_cut,
            nonce_key: self.config.nonce_key,
            seed: self.config.seed,
            ..new
        };
        let realms = &self.config.realms;
        self.lookups.retain(|name, lookups| {
            lookups.forget_answers();
            realms.named(name.as_bytes()).is_some()
        });
        self.nonces.set_lifetime(self.config.limits.nonce_lifetime);
        self.gate.set_limits(self.config.limits.answers);
        self.enforce_policy(now)
    }

    /// Ends what the settings do not allow.
    pub(crate) fn enforce_policy(&mut self, now: Instant) -> Replaced {
        let mut replaced = Replaced::default();
        let all: Vec<_> = self.table.iter().map(|(id, _)| id).collect();
        for id in all {
            self.enforce_policy_on(id, now, &mut replaced);
        }
        replaced
    }

    /// Gives the allocation the present settings of its realm. Ends it if its credential is revoked or there is no such
    /// realm any more, and otherwise what it has of peers that are not allowed.
    pub(crate) fn enforce_policy_on(
        &mut self,
        id: AllocationId,
        now: Instant,
        replaced: &mut Replaced,
    ) {
        if let Some(user) = self.revoked_user_of(id) {
            self.end(id, EndReason::Revoked, now);
            replaced.revoked.push(user);
        } else {
            self.forget_denied_peers(id, now, replaced);
            replaced.peer_connections += self.end_denied_connections(id);
        }
    }

    fn revoked_user_of(&mut self, id: AllocationId) -> Option<RealmUser> {
        let allocation = self.table.get_mut(id)?;
        match self.config.realms.named(allocation.user.realm.as_bytes()) {
            Some(realm) => allocation.realm = realm.clone(),
            None => return Some(allocation.user.clone()),
        }
        let kid = allocation.session.as_ref().map(|session| &session.kid);
        let user = Some(&allocation.user.name);
        let mut names = [user, allocation.credential.as_ref(), kid]
            .into_iter()
            .flatten();
        let is_revoked = names.any(|name| allocation.realm.revocations.contains(name));
        is_revoked.then(|| allocation.user.clone())
    }

    fn forget_denied_peers(&mut self, id: AllocationId, now: Instant, replaced: &mut Replaced) {
        let Some(allocation) = self.table.get_mut(id) else {
            return;
        };
        let policy = &allocation.realm.peer_policy;
        let permissions = allocation
            .permissions
            .retain(|ip| policy.check_host(ip).is_ok());
        let channels = allocation
            .channels
            .retain(|peer| policy.check(peer).is_ok());
        if permissions + channels == 0 {
            return;
        }
        self.stats.permissions -= permissions as u64;
        self.stats.channels -= channels as u64;
        replaced.permissions += permissions;
        replaced.channels += channels;
        self.publish_ends(id, now);
    }
}
