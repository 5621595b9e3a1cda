//! What happened so far, as plain numbers. The shell copies them out for its metrics.

use crate::{Denied, DropReason, Usage};

/// Error codes that this server answers with, in ascending order.
pub const ERROR_CODES: [u16; 17] = [
    300, 400, 401, 403, 405, 420, 437, 438, 440, 441, 442, 443, 446, 447, 486, 500, 508,
];

/// A direction of relayed traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToPeer,
    ToClient,
}

/// Packets and the bytes of application data in them, without any header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
}

impl Traffic {
    pub(crate) fn count(&mut self, packets: usize, bytes_each: usize) {
        self.packets += packets as u64;
        self.bytes += (packets * bytes_each) as u64;
    }
}

/// All counters only grow, except where "now" is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Relayed to peers: the verdict was given; see [`Stats::unsent`].
    pub to_peer: Traffic,
    /// Relayed to clients, likewise.
    pub to_client: Traffic,
    /// By [`DropReason`] as index.
    pub dropped: [u64; DropReason::ALL.len()],
    /// Permissions, channels and Send indications that were refused for their peer, by [`Denied`] as index.
    pub denied: [u64; Denied::ALL.len()],
    /// Allocations that exist now.
    pub allocations: u64,
    /// Permissions that are stored now; some may have expired within the last minute.
    pub permissions: u64,
    /// Channels that are stored now, likewise.
    pub channels: u64,
    pub allocations_created: u64,
    /// Ended by a Refresh with lifetime 0.
    pub allocations_deleted: u64,
    /// Ended by time.
    pub allocations_expired: u64,
    /// Ended with the client's connection.
    pub allocations_disconnected: u64,
    /// Ended because the credential was revoked.
    pub allocations_revoked: u64,
    /// Requests with a revoked credential.
    pub revoked_requests: u64,
    /// ICMP errors that clients were told of.
    pub icmp_relayed: u64,
    /// Allocations that went with their clients to another five-tuple.
    pub allocations_moved: u64,
    /// ICMP errors of no interest, about peers without permission, or too many.
    pub icmp_ignored: u64,
    /// Users that the site was asked about.
    pub lookups: u64,
    /// Requests that would have waited for that, had there been room.
    pub lookups_without_room: u64,
    pub binding_requests: u64,
    pub allocate_requests: u64,
    pub refresh_requests: u64,
    pub create_permission_requests: u64,
    pub channel_bind_requests: u64,
    pub connect_requests: u64,
    pub connection_bind_requests: u64,
    /// TCP connections with peers that came up, from either side.
    pub peer_connections_made: u64,
    /// Of those that peers began: closed at once, without permission or room.
    pub peer_connections_refused: u64,
    /// Joined to a client's connection.
    pub peer_connections_bound: u64,
    /// Closed because nobody bound them in time.
    pub peer_connections_unbound: u64,
    /// By position in [`ERROR_CODES`].
    pub error_responses: [u64; ERROR_CODES.len()],
    /// Relayed for the users of each realm, where there are several: by the position in
    /// [`Shared::realms`](crate::Shared::realms). Some may be missing that relayed nothing.
    pub realms: Vec<Usage>,
}

impl Stats {
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    pub fn denied(&self, why: Denied) -> u64 {
        self.denied[why as usize]
    }

    pub fn error_responses(&self, code: u16) -> u64 {
        ERROR_CODES
            .iter()
            .position(|&known| known == code)
            .map_or(0, |index| self.error_responses[index])
    }

    /// Takes back what was counted as relayed when the kernel did not take it.
    pub fn unsent(&mut self, direction: Direction, lost: Traffic) {
        let counted = match direction {
            Direction::ToPeer => &mut self.to_peer,
            Direction::ToClient => &mut self.to_client,
        };
        counted.packets -= lost.packets.min(counted.packets);
        counted.bytes -= lost.bytes.min(counted.bytes);
    }

    /// What the users of one realm relayed.
    pub(crate) fn of_realm(&mut self, number: usize) -> &mut Usage {
        if self.realms.len() <= number {
            self.realms.resize(number + 1, Usage::default());
        }
        &mut self.realms[number]
    }

    pub(crate) fn on_dropped(&mut self, reason: DropReason, packets: usize) {
        self.dropped[reason as usize] += packets as u64;
    }

    pub(crate) fn on_error_response(&mut self, code: u16) {
        if let Some(index) = ERROR_CODES.iter().position(|&known| known == code) {
            self.error_responses[index] += 1;
        }
    }
}
