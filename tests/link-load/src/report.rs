//! What all nodes have reached, and what is printed of it.
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

/// Written by the nodes, read by whoever waits for them.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Counts>);

/// How many nodes have got how far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    /// They know the activator.
    pub(crate) joined: u32,
    /// Links that are open now.
    pub(crate) open: u32,
    /// From the call to open to the link being open.
    pub(crate) opening: Vec<Duration>,
    /// From a packet that was sent to its answer: the first on each link, and the one after it stood idle.
    pub(crate) echoes: [Vec<Duration>; 2],
    /// Packets that were sent again, because no answer came.
    pub(crate) lost: u32,
    /// By which way packets go, when the first answer came.
    pub(crate) paths: BTreeMap<String, u32>,
    /// Offers that led to no link, by reason.
    pub(crate) failed: BTreeMap<String, u32>,
    /// Links that ended although nobody ended them, by reason.
    pub(crate) ended: BTreeMap<String, u32>,
}

impl Board {
    /// For one change, or one look.
    pub(crate) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds, of many.
#[derive(Debug, Serialize)]
pub(crate) struct Times {
    count: usize,
    median_ms: u64,
    p99_ms: u64,
    last_ms: u64,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |share: usize| {
            let index = (all.len() * share / 100).min(all.len().saturating_sub(1));
            all.get(index).map_or(0, |time| time.as_millis() as u64)
        };
        Self {
            count: all.len(),
            median_ms: at(50),
            p99_ms: at(99),
            last_ms: at(100),
        }
    }
}

/// Kibibytes that a process has for itself (`RssAnon`): before the links, and with all of them idle.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) before_kib: u64,
    pub(crate) idle_kib: u64,
    pub(crate) per_link_kib: f64,
}

/// The whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) links: u32,
    pub(crate) joined_ms: u64,
    opening: Times,
    paths: BTreeMap<String, u32>,
    first_echo: Times,
    /// Seconds of idling, and links that were open after them.
    pub(crate) idle_s: u64,
    pub(crate) open_after_idle: u32,
    second_echo: Times,
    packets_sent_again: u32,
    offers_failed: BTreeMap<String, u32>,
    links_ended: BTreeMap<String, u32>,
    pub(crate) activator: Option<Memory>,
    pub(crate) discovery: Option<Memory>,
}

impl Report {
    /// Of what the nodes counted; the rest is the caller's.
    pub(crate) fn new(links: u32, joined: Duration, counts: Counts) -> Self {
        let [first, second] = counts.echoes;
        Self {
            links,
            joined_ms: joined.as_millis() as u64,
            opening: Times::of(counts.opening),
            paths: counts.paths,
            first_echo: Times::of(first),
            idle_s: 0,
            open_after_idle: 0,
            second_echo: Times::of(second),
            packets_sent_again: counts.lost,
            offers_failed: counts.failed,
            links_ended: counts.ended,
            activator: None,
            discovery: None,
        }
    }

    /// One object.
    pub(crate) fn json(&self) -> String {
        // Strings, numbers and maps of these: nothing that cannot be written.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}
