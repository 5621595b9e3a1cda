//! Which activators answer, and how fast: what of several is asked first.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use model::NodeId;

/// Who failed is asked last for this long.
const SICK: Duration = Duration::from_secs(10);
/// And for so long not at all in place of another.
const REST: Duration = Duration::from_secs(1);

/// Of the activators in the directory's view, what was seen of them.
#[derive(Debug, Default)]
pub(crate) struct Health {
    failed: HashMap<NodeId, Instant>,
    round_trips: HashMap<NodeId, Duration>,
}

impl Health {
    /// Forgets those who are no more.
    pub(crate) fn retain(&mut self, known: impl Fn(&NodeId) -> bool) {
        self.failed.retain(|node, _| known(node));
        self.round_trips.retain(|node, _| known(node));
    }

    /// A link to it is open.
    pub(crate) fn on_opened(&mut self, node: &NodeId, round_trip: Option<Duration>) {
        self.failed.remove(node);
        if let Some(round_trip) = round_trip {
            self.round_trips.insert(node.clone(), round_trip);
        }
    }

    /// It fell silent, or did not answer.
    pub(crate) fn on_failed(&mut self, node: &NodeId, now: Instant) {
        self.failed.insert(node.clone(), now);
    }

    /// It is another process now.
    pub(crate) fn on_started(&mut self, node: &NodeId) {
        self.failed.remove(node);
    }

    /// Whether it failed just now.
    pub(crate) fn rests(&self, node: &NodeId, now: Instant) -> bool {
        self.failed_within(node, REST, now)
    }

    fn failed_within(&self, node: &NodeId, limit: Duration, now: Instant) -> bool {
        let failed = self.failed.get(node);
        failed.is_some_and(|at| now.saturating_duration_since(*at) < limit)
    }

    /// The lowest is asked first: who is well, then who is near. Who was never measured is tried.
    pub(crate) fn rank(&self, node: &NodeId, now: Instant) -> (bool, Duration) {
        let round_trip = self.round_trips.get(node).copied();
        (
            self.failed_within(node, SICK, now),
            round_trip.unwrap_or_default(),
        )
    }
}
