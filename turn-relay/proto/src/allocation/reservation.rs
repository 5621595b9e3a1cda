//! Ports that wait for a second Allocate request (EVEN-PORT and RESERVATION-TOKEN, RFC 8656 sections 18.7 and 18.8).

use crate::shared::Port;
use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

/// RFC 8656 section 7.2: at least 30 seconds.
pub(crate) const LIFETIME: Duration = Duration::from_secs(30);

/// A port that is taken from its pool and has no socket yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reservation {
    pub(crate) port: Port,
    pub(crate) expires: Instant,
}

/// By token. Every entry was paid for with an allocation, and lasts 30 seconds.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    by_token: FxHashMap<u64, Reservation>,
}

impl Reservations {
    pub(crate) fn insert(&mut self, token: u64, reservation: Reservation) {
        self.by_token.insert(token, reservation);
    }

    pub(crate) fn get(&self, token: u64) -> Option<Reservation> {
        self.by_token.get(&token).copied()
    }

    pub(crate) fn take(&mut self, token: u64) -> Option<Reservation> {
        self.by_token.remove(&token)
    }
}
