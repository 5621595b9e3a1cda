//! Who uses which service how much, for a flow log: a flow is what one node exchanges with one service, from the first packet
//! until none came for [`IDLE`], or its last link to us is over. A flow that goes on is told in parts, as IPFIX does it
//! ([RFC 7011](https://www.rfc-editor.org/rfc/rfc7011), delta counters): what all parts say together is what there was.
//!
//! Counting costs a packet no look-up, and no table: it happens in the binding that the packet came by.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use model::NodeId;

use crate::links::LinkKey;

/// A flow without a packet for this long is over.
pub const IDLE: Duration = Duration::from_secs(15);

/// How often it is looked for flows that are over, or have gone on for long.
const LOOK: Duration = Duration::from_secs(5);

/// What passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Of IP packets to the service.
    pub bytes_to_service: u64,
    /// Of IP packets from the service.
    pub bytes_from_service: u64,
    /// TCP connections that the node began, or tried to.
    pub connections: u64,
    /// Packets to ports that are not exported.
    pub refused_packets: u64,
}

/// Why a part of a flow is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowEnd {
    /// It goes on, and the next part is told later.
    Active,
    /// No packet for [`IDLE`].
    Idle,
    /// The node has no link to the service any more.
    Closed,
}

impl FlowEnd {
    /// As it is written in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Closed => "closed",
        }
    }
}

/// For the flow log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRecord {
    /// By which link it went, at last.
    pub link: LinkKey,
    /// Who used the service, or would have.
    pub node: NodeId,
    /// The service; of a refused use: its name as the node says it, at most 63 characters.
    pub service: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// See [`FlowRecord`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The node may use the service, and did.
    Accepted {
        /// From its first packet, or the end of the part before, to its last.
        lasted: Duration,
        /// In this time.
        traffic: Traffic,
        /// Why it is told now.
        end: FlowEnd,
    },
    /// The node may not: no packet passed.
    Refused {
        /// As it was told.
        reason: String,
    },
}

/// A flow that is under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    began: Instant,
    last: Instant,
    traffic: Traffic,
}

/// What is to be told, and when the next look is due.
#[derive(Debug, Default)]
pub(super) struct Flows {
    /// How long parts of a flow are; none: nobody wants to know.
    part: Option<Duration>,
    look_at: Option<Instant>,
    records: VecDeque<FlowRecord>,
}

impl Flows {
    pub(super) fn told_every(part: Duration) -> Self {
        Self {
            part: Some(part),
            ..Self::default()
        }
    }

    /// The counters for a packet that passes now.
    pub(super) fn count<'a>(
        &mut self,
        flow: &'a mut Option<Flow>,
        now: Instant,
    ) -> &'a mut Traffic {
        let flow = flow.get_or_insert_with(|| {
            if let Some(part) = self.part {
                self.look_at.get_or_insert(now + part.min(LOOK));
            }
            Flow {
                began: now,
                last: now,
                traffic: Traffic::default(),
            }
        });
        flow.last = now;
        &mut flow.traffic
    }

    /// Notes a record, if somebody wants to know.
    pub(super) fn tell(&mut self, record: impl FnOnce() -> FlowRecord) {
        if self.part.is_some() {
            self.records.push_back(record());
        }
    }

    pub(super) fn poll(&mut self) -> Option<FlowRecord> {
        self.records.pop_front()
    }

    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.look_at
    }

    /// Begins a look, if one is due: how long parts are. Whoever finds a flow that goes on says so by [`Flows::look_again`].
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        self.look_at.take_if(|due| *due <= now)?;
        self.part
    }

    pub(super) fn look_again(&mut self, now: Instant) {
        if let Some(part) = self.part {
            self.look_at.get_or_insert(now + part.min(LOOK));
        }
    }
}

impl Flow {
    /// Why it has to be told now, if it has to.
    pub(super) fn due(&self, part: Duration, now: Instant) -> Option<FlowEnd> {
        if now.saturating_duration_since(self.last) >= IDLE {
            Some(FlowEnd::Idle)
        } else if now.saturating_duration_since(self.began) >= part {
            Some(FlowEnd::Active)
        } else {
            None
        }
    }

    pub(super) fn verdict(&self, end: FlowEnd) -> Verdict {
        Verdict::Accepted {
            lasted: self.last.saturating_duration_since(self.began),
            traffic: self.traffic,
            end,
        }
    }
}
