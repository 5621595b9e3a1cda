//! Relays that drain: what is held there is left for something that lasts, and then given back.
//!
//! ```text
//!   held ── the relay grants less ──▶ ending ── nothing is on it any more ──▶ given back ── later ──▶ held
//!                                       └── nothing else in its network: used until it is gone
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use model::{NetworkName, RelayName, RelayedAddr};

use super::{Foothold, Reservation, Reservations, Reserve};

/// How often it is looked whether something is still on a relay that drains.
const LOOK: Duration = Duration::from_millis(500);

impl Reservation {
    fn lasts(&self) -> bool {
        self.is_held() && !self.ending
    }

    fn ends(&self) -> bool {
        self.is_held() && self.ending
    }
}

impl Reservations {
    /// The allocation will soon be gone, because the relay drains.
    pub fn handle_ending(&mut self, relay: &RelayName, now: Instant) {
        if let Some(held) = self.by_relay.get_mut(relay) {
            held.ending = true;
            self.leave_at = Some(now);
        }
    }

    /// What has to be left now for something that lasts: footholds on relays that drain, in whose networks there are
    /// others. They are given again every 500 ms, until [`Self::give_back`].
    pub fn poll_leave(&mut self, now: Instant) -> Vec<Foothold> {
        if self.leave_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        let mut all = self.by_relay.values();
        let again = all.any(Reservation::ends);
        self.leave_at = again.then_some(now + LOOK);
        let left =
            |held: &Reservation| held.ends() && self.lasting_in(&held.network).next().is_some();
        let all = self.by_relay.iter().filter(|(_, held)| left(held));
        all.map(|(relay, held)| (relay.clone(), held.relayed.clone()))
            .collect()
    }

    /// Nothing is on this relay any more that drains.
    pub fn give_back(&self, relay: &RelayName, outputs: &mut VecDeque<impl From<Reserve>>) {
        let held = self.by_relay.get(relay);
        if held.is_some_and(Reservation::ends) {
            let relay = relay.clone();
            outputs.push_back(Reserve::GiveBack { relay }.into());
        }
    }

    /// The relays in `network` on which an allocation is up; those that drain only where there are no others.
    pub fn footholds_in<'a>(
        &'a self,
        network: &'a NetworkName,
    ) -> impl Iterator<Item = (&'a RelayName, &'a [RelayedAddr])> {
        let none_lasts = self.lasting_in(network).next().is_none();
        self.held_in(network)
            .filter(move |(_, held)| held.lasts() || none_lasts)
            .map(|(relay, held)| (relay, &*held.relayed))
    }

    fn lasting_in<'a>(
        &'a self,
        network: &'a NetworkName,
    ) -> impl Iterator<Item = (&'a RelayName, &'a Reservation)> {
        self.held_in(network).filter(|(_, held)| held.lasts())
    }

    fn held_in<'a>(
        &'a self,
        network: &'a NetworkName,
    ) -> impl Iterator<Item = (&'a RelayName, &'a Reservation)> {
        let all = self.by_relay.iter();
        all.filter(move |(_, held)| held.network == *network && held.is_held())
    }
}
