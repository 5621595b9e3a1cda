//! The packet path: frames between links and services, rewritten in place.

pub mod pool;
pub mod nat;

use std::{sync::Arc, time::Instant};

use crate::{answer::VirtualIps, links::LinkKey, policy::Export, stats::ForwardStats};
use nat::{BindError, NatTable};

/// Rewrites frames.
#[derive(Debug)]
pub struct Forwarder {
    nat: NatTable,
    stats: ForwardStats,
}

impl Forwarder {
    /// A forwarder over this table.
    #[must_use]
    pub fn new(nat: NatTable, _mtu: u16) -> Self {
        Self { nat, stats: ForwardStats::default() }
    }

    /// Binds virtual IPs of a link to a service.
    ///
    /// # Errors
    /// When a bound is reached.
    pub fn bind(
        &mut self,
        link: LinkKey,
        export: &Arc<Export>,
        virtual_ips: VirtualIps,
        now: Instant,
    ) -> Result<(), BindError> {
        self.nat.bind(link, export, virtual_ips, now)
    }

    /// Forgets a link.
    pub fn remove_link(&mut self, link: LinkKey, now: Instant) {
        self.nat.remove(link, now);
    }

    /// Who is who.
    #[must_use]
    pub const fn nat(&self) -> &NatTable {
        &self.nat
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> &ForwardStats {
        &self.stats
    }
}
