//! Which trace something belongs to, here and at the next service.

use std::collections::HashMap;

use opentelemetry::{
    propagation::TextMapPropagator as _,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::{
    propagation::TraceContextPropagator,
    trace::{IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample as _},
};

/// Bytes of a `traceparent`: version, trace, span, flags
/// ([W3C Trace Context](https://www.w3.org/TR/trace-context-1/#traceparent-header)).
pub const TRACEPARENT_LEN: usize = 55;

const NAME: &str = "traceparent";

/// The place of a [`Story`](crate::Story) in a trace: which one, which span in it, below which other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    trace: TraceId,
    span: SpanId,
    /// At another service; none: the trace begins here.
    pub(crate) parent: Option<SpanId>,
    sampled: bool,
}

impl Context {
    /// The beginning of a trace, of which the part `sample` is told.
    pub(crate) fn begin(sample: f64) -> Self {
        let (trace, span) = (RandomIdGenerator::default().new_trace_id(), new_span_id());
        let kind = &opentelemetry::trace::SpanKind::Internal;
        let sampling =
            Sampler::TraceIdRatioBased(sample).should_sample(None, trace, "", kind, &[], &[]);
        Self {
            trace,
            span,
            parent: None,
            sampled: sampling.decision == SamplingDecision::RecordAndSample,
        }
    }

    /// A part of what began at another service; none: that one says nothing of the kind.
    pub(crate) fn join(traceparent: &str) -> Option<Self> {
        // What reads it below would take a sign before a number, too.
        let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        if traceparent.len() != TRACEPARENT_LEN || !traceparent.bytes().all(is_hex) {
            return None;
        }
        let carrier = HashMap::from([(NAME.to_owned(), traceparent.to_owned())]);
        let there = TraceContextPropagator::new().extract(&carrier);
        let there = there.span().span_context().clone();
        there.is_valid().then(|| Self {
            trace: there.trace_id(),
            span: new_span_id(),
            parent: Some(there.span_id()),
            sampled: there.is_sampled(),
        })
    }

    /// What tells another service that its part belongs below this: [`TRACEPARENT_LEN`] bytes, ASCII.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!(
            "00-{}-{}-{:02x}",
            self.trace,
            self.span,
            u8::from(self.sampled)
        )
    }

    /// Whether it is told to a collector: as the service decided where the trace began.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }

    pub(crate) const fn span(&self) -> SpanId {
        self.span
    }

    /// Of this span or of another one of the trace.
    pub(crate) fn of_span(&self, span: SpanId) -> SpanContext {
        SpanContext::new(
            self.trace,
            span,
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        )
    }
}

pub(crate) fn new_span_id() -> SpanId {
    RandomIdGenerator::default().new_span_id()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_one_service_says_the_next_one_joins() {
        let root = Context::begin(1.0);
        let said = root.traceparent();
        assert_eq!(said.len(), TRACEPARENT_LEN);
        let part = Context::join(&said).unwrap();
        assert_eq!((part.trace, part.parent), (root.trace, Some(root.span)));
        assert!(part.sampled && part.span != root.span);
        let given = Context::join(GIVEN).unwrap();
        assert_eq!(given.trace.to_string(), GIVEN[3..35]);
        assert_eq!(given.parent.unwrap().to_string(), GIVEN[36..52]);
    }

    #[test]
    fn who_is_not_sampled_says_so_and_is_believed() {
        let root = Context::begin(0.0);
        assert!(!root.sampled);
        assert!(root.traceparent().ends_with("-00"));
        assert!(!Context::join(&root.traceparent()).unwrap().sampled);
    }

    #[test]
    fn a_part_of_what_begins_is_sampled() {
        let sampled = (0..4_000).filter(|_| Context::begin(0.25).sampled).count();
        assert!((600..1_400).contains(&sampled), "{sampled} of 4000");
    }

    #[test]
    fn whatever_is_no_traceparent_counts_as_nothing() {
        let zeros = "0".repeat(32);
        let wrong = [
            String::new(),
            "x".repeat(55),
            "ä".repeat(28),
            GIVEN[..54].to_owned(),
            format!("{GIVEN}0"),
            format!("{GIVEN}-{}", "0".repeat(16_000)),
            GIVEN.to_uppercase(),
            GIVEN.replace("0af7", "+af7"),
            GIVEN.replace('-', "_"),
            GIVEN.replace("00-0", "ff-0"),
            GIVEN.replace(&GIVEN[3..35], &zeros),
            GIVEN.replace(&GIVEN[36..52], &zeros[..16]),
        ];
        for text in wrong {
            assert_eq!(Context::join(&text), None, "{text}");
        }
    }
}
