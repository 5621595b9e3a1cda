//! From the start to the end: signals, the drain, and the successor.
//!
//! SIGINT ends at once. SIGTERM begins a drain, if one is configured: new allocations are refused, those that exist are
//! refreshed for what is left of it, `/readyz` says so, and the end comes with the last allocation, after `drain-seconds`, or
//! with a second SIGTERM. SIGUSR2 starts a successor
//! ([`crate::handover`]).

use crate::control::{Control, ControlSender, ask_all};
use crate::handover::Estate;
use crate::metrics::Published;
use crate::notify;
use crate::usage::UsageSender;
use anyhow::Context;
use net::Clock;
use service_kit::{Readiness, Task};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

/// How often is looked whether a drain is over.
const LOOK: Duration = Duration::from_millis(50);
/// A period that nobody waits for.
const FAR: Duration = Duration::from_secs(365 * 86_400);
/// How often a drain says in the log how far it is.
const SAY: Duration = Duration::from_secs(10);

/// How the event loops end: all of them, each with its result, and then the end of the channel.
pub(crate) type Ended = mpsc::UnboundedReceiver<anyhow::Result<()>>;

/// The signals that this module is about. From when they are made on, they no longer end the process by themselves.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    succeed: Signal,
}

impl Signals {
    /// # Errors
    /// When they cannot be caught.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            succeed: signal(SignalKind::user_defined2())?,
        })
    }
}

/// A relay that runs.
pub(crate) struct Running {
    pub(crate) signals: Signals,
    pub(crate) ended: Ended,
    pub(crate) loops: Vec<ControlSender>,
    pub(crate) published: Vec<Arc<Published>>,
    pub(crate) readiness: Readiness,
    /// How long a drain may take; none at all if zero.
    pub(crate) drain: Duration,
    pub(crate) estate: Arc<Estate>,
    /// Where the periods of usage records end, and how long they are.
    pub(crate) usage: Option<(UsageSender, Duration)>,
}

/// Why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to stop. The event loops still run.
    Told,
    /// A successor goes on.
    Succeeded,
}

#[derive(Debug)]
struct Drain {
    until: Instant,
    say_at: Instant,
    /// Keeps the service unready.
    _unready: Task,
}

impl Running {
    /// Until it should stop.
    ///
    /// # Errors
    /// When an event loop ends by itself.
    pub(crate) async fn until_over(&mut self) -> anyhow::Result<End> {
        let mut drain: Option<Drain> = None;
        let mut looks = tokio::time::interval(LOOK);
        let period = self.usage.as_ref().map_or(Duration::MAX, |usage| usage.1);
        let first = tokio::time::Instant::now() + period.min(FAR);
        let mut periods = tokio::time::interval_at(first, period.min(FAR));
        loop {
            tokio::select! {
                _ = self.signals.interrupt.recv() => {
                    tracing::info!(signal = "SIGINT", "told to stop");
                    return Ok(End::Told);
                }
                _ = self.signals.terminate.recv() => {
                    tracing::info!(signal = "SIGTERM", "told to stop");
                    if drain.is_some() || self.drain.is_zero() || self.allocations() == 0 {
                        return Ok(End::Told);
                    }
                    drain = Some(self.start_drain());
                }
                _ = self.signals.succeed.recv() => {
                    if drain.is_some() {
                        tracing::warn!("no successor is started during a drain");
                    } else if self.hand_over().await {
                        return Ok(End::Succeeded);
                    }
                }
                result = self.ended.recv() => {
                    let result = result.context("all event loops are gone")?;
                    return Err(result.err().context("an event loop stopped by itself")?);
                }
                _ = periods.tick(), if self.usage.is_some() => self.end_period().await,
                _ = looks.tick(), if drain.is_some() => {
                    if drain.as_mut().is_none_or(|drain| self.is_drained(drain)) {
                        return Ok(End::Told);
                    }
                }
            }
        }
    }

    /// All event loops tell what users did, and then it is written.
    async fn end_period(&self) {
        ask_all(&self.loops, |done| Control::TellUsage { done }).await;
        if let Some((usage, _)) = &self.usage {
            usage.period();
        }
    }

    fn allocations(&self) -> u64 {
        self.published.iter().map(|shard| shard.allocations()).sum()
    }

    fn start_drain(&self) -> Drain {
        let now = Clock.now();
        let until = now + self.drain;
        for event_loop in &self.loops {
            event_loop.send(Control::Drain { until });
        }
        notify::stopping();
        let (allocations, limit) = (self.allocations(), self.drain.as_secs());
        tracing::info!(
            allocations,
            limit_seconds = limit,
            "draining: new allocations are refused; a second SIGTERM, or SIGINT, ends at once"
        );
        Drain {
            until,
            say_at: now + SAY,
            _unready: self.readiness.task("draining"),
        }
    }

    fn is_drained(&self, drain: &mut Drain) -> bool {
        let (now, allocations) = (Clock.now(), self.allocations());
        if allocations == 0 {
            tracing::info!("drained");
            return true;
        }
        if now >= drain.until {
            tracing::warn!(
                allocations,
                "drain-seconds are over, and allocations are left"
            );
            return true;
        }
        if now >= drain.say_at {
            drain.say_at = now + SAY;
            let seconds_left = (drain.until - now).as_secs();
            tracing::info!(allocations, seconds_left, "draining");
        }
        false
    }

    /// Whether there is a successor now.
    async fn hand_over(&self) -> bool {
        let estate = self.estate.clone();
        let done = tokio::task::spawn_blocking(move || estate.hand_over()).await;
        match done.map_err(anyhow::Error::from).and_then(|done| done) {
            Ok(successor) => {
                tracing::info!(successor, "a successor goes on");
                true
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(%error, "no successor: this process goes on");
                false
            }
        }
    }
}
