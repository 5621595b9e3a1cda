//! A symmetric NAT: a mapping per pair of inner address and destination, on a random port, for that destination only
//! ([RFC 4787](https://www.rfc-editor.org/rfc/rfc4787): address and port-dependent mapping and filtering).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::picture::{ROUTER, ip};
use crate::random::Random;

/// A mapping that carried nothing for so long is forgotten; RFC 4787 asks for 120 s, and many give less.
const IDLE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(crate) struct Nat {
    /// By what comes from inside.
    out: HashMap<(SocketAddr, SocketAddr), (u16, Instant)>,
    /// By what comes from outside: the port and who sends.
    back: HashMap<(u16, SocketAddr), SocketAddr>,
    pub(crate) refused: u64,
    /// Nothing but TCP passes.
    pub(crate) no_udp: bool,
}

impl Nat {
    /// The address a datagram from inside is seen with.
    pub(crate) fn outbound(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        random: &mut Random,
        now: Instant,
    ) -> SocketAddr {
        self.expire(now);
        let (port, used) = self.out.entry((from, to)).or_insert_with(|| {
            let port = 1_024 + random.below(60_000) as u16;
            (port, now)
        });
        *used = now;
        self.back.insert((*port, to), from);
        SocketAddr::new(ip(ROUTER), *port)
    }

    /// Whom a datagram from outside is for.
    pub(crate) fn inbound(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        self.expire(now);
        let inner = self.back.get(&(to.port(), from)).copied();
        self.refused += u64::from(inner.is_none());
        inner
    }

    /// The router forgets everything, as when it is switched off and on.
    pub(crate) fn forget(&mut self) {
        self.out.clear();
        self.back.clear();
    }

    pub(crate) fn mappings(&self) -> usize {
        self.out.len()
    }

    fn expire(&mut self, now: Instant) {
        let Self { out, back, .. } = self;
        out.retain(|(_, to), (port, used)| {
            let keep = now.saturating_duration_since(*used) < IDLE;
            if !keep {
                back.remove(&(*port, *to));
            }
            keep
        });
    }
}
