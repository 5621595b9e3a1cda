//! Allocations on relays, where the agent needs them: what comes through them, and what becomes of them.

use std::time::{Duration, Instant};

use allocations::AllocationEvent;
use net::Clock;
use turn_client::Reserve;

use super::EventLoop;

/// How long deleting them may take at the end.
const CLOSING_DEADLINE: Duration = Duration::from_millis(200);

impl EventLoop {
    pub(super) fn reserve(&mut self, wish: Reserve) {
        let now = Clock.now();
        let Self {
            allocations,
            fetcher,
            poller,
            ..
        } = self;
        if let Err(relay) = allocations.reserve(wish, fetcher, poller, now) {
            self.agent.handle_not_started(&relay, now);
        }
    }

    /// One batch of each relay that has something.
    pub(super) fn receive_relayed(&mut self, now: Instant) {
        let Self {
            allocations,
            agent,
            poller,
            ..
        } = self;
        allocations.receive(poller, now, |local, remote, payload, segment| {
            agent.handle_datagrams(local, remote, payload, segment, now);
        });
    }

    /// Timers, and what happened to allocations.
    pub(super) fn look_after_allocations(&mut self, now: Instant) {
        self.allocations.handle_timeout(&self.poller, now);
        while let Some(event) = self.allocations.poll_event(now) {
            event.log();
            match event {
                AllocationEvent::Allocated {
                    relay,
                    relayed,
                    transport,
                } => {
                    self.agent.handle_allocated(relay, relayed, transport, now);
                }
                AllocationEvent::Moved { relay, transport } => {
                    self.agent.handle_moved(relay, transport, now);
                }
                AllocationEvent::Ending { relay, .. } => self.agent.handle_ending(&relay, now),
                AllocationEvent::Lost { relay, reason, .. } => {
                    self.agent.handle_lost(&relay, &reason, now);
                }
                AllocationEvent::NeedCredential { relay } => {
                    self.agent.handle_credential_refused(&relay, now);
                }
            }
        }
    }

    /// Mostly sent already; a full socket takes the last words a moment later.
    ///
    /// # Errors
    /// When the poller fails.
    pub(super) fn give_back_allocations(&mut self) -> anyhow::Result<()> {
        let deadline = Clock.now() + CLOSING_DEADLINE;
        while !self.allocations.is_empty() && Clock.now() < deadline {
            self.poller.wait(Some(deadline))?;
            self.receive_relayed(Clock.now());
            self.flush();
        }
        Ok(())
    }
}
