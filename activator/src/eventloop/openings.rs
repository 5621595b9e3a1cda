//! What is told of a link's opening: the activator's part of what began at the sidecar.

use std::time::Instant;

use link::CloseReason;
use net::Clock;
use protocol::document::Offer;
use traces::{SpanKind, Story, Traces};

use super::EventLoop;
use crate::links::{ActiveLink, LinkTrace};

/// The phases after the answer, and the step that ends each ([`ActiveLink::steps`]).
const PHASES: [(&str, &str); 3] = [
    ("ICE", "ice-connected"),
    ("DTLS", "dtls-connected"),
    ("data channels", "open"),
];

impl EventLoop {
    /// The answer is there to be posted; what that belongs to. A sidecar that says nothing of a trace has none, and one begins
    /// here.
    pub(super) fn begin_trace(&self, active: &mut ActiveLink, offer: &Offer) -> Option<String> {
        let joined = self.traces.join(&offer.traceparent);
        let context = joined.or_else(|| self.traces.begin())?;
        let answered = Clock.now();
        active.trace = Some(LinkTrace { context, answered });
        Some(context.traceparent())
    }
}

/// The link is open, or closed: told once, by what was the case first.
pub(super) fn tell(
    traces: &Traces,
    active: &mut ActiveLink,
    closed: Option<&CloseReason>,
    now: Instant,
) {
    let Some(LinkTrace { context, answered }) = active.trace.take() else {
        return;
    };
    let at = |name| {
        let mut steps = active.steps.iter();
        let reached = steps.find(|(step, _)| *step == name);
        reached.map(|(_, after)| active.created + *after)
    };
    let after = PHASES.map(|(phase, step)| (phase, at(step)));
    let path = active.link.path();
    let path = path.map(|path| ("turnpike.path", path.to_string()));
    traces.tell(Story {
        context,
        name: "link answer",
        kind: SpanKind::Server,
        began: active.created,
        ended: now,
        phases: [("answer", Some(answered))]
            .into_iter()
            .chain(after)
            .collect(),
        error: closed.map(ToString::to_string),
        facts: [
            ("turnpike.link", active.offered_as.to_string()),
            ("turnpike.peer", active.peer.to_string()),
        ]
        .into_iter()
        .chain(path)
        .collect(),
    });
}
