//! What happened, as spans: one for the whole, and one below it for each phase.

use std::time::{Instant, SystemTime};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanId, SpanKind, Status},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::context::{Context, new_span_id};

/// Characters of an error, of which a peer may have chosen the words.
const MAX_ERROR: usize = 256;

/// Something that happened in phases, each of which began when the one before it was over.
#[derive(Debug, Clone)]
pub struct Story {
    /// Where it belongs.
    pub context: Context,
    /// What it is called, the same each time.
    pub name: &'static str,
    /// Which side of a conversation it was.
    pub kind: SpanKind,
    /// When it began.
    pub began: Instant,
    /// When it was over.
    pub ended: Instant,
    /// The phases in order, and when each was over. Without that: where it failed if it did, else it did not happen.
    pub phases: Vec<(&'static str, Option<Instant>)>,
    /// Why it came to nothing, as one sentence.
    pub error: Option<String>,
    /// Facts about the whole, few and short.
    pub facts: Vec<(&'static str, String)>,
}

impl Story {
    /// The whole first.
    pub(crate) fn into_spans(self) -> Vec<SpanData> {
        // Dates are only made up here, so that a clock that is set meanwhile bends no span.
        let (now, date) = (Instant::now(), SystemTime::now());
        let at = |instant: Instant| {
            let ago = now.saturating_duration_since(instant);
            date.checked_sub(ago).unwrap_or(date)
        };
        let failed = |error: &Option<String>| match error {
            Some(error) => Status::error(error.chars().take(MAX_ERROR).collect::<String>()),
            None => Status::Unset,
        };
        let span =
            |name, (id, parent): (SpanId, Option<SpanId>), from, to: Instant, status| SpanData {
                span_context: self.context.of_span(id),
                parent_span_id: parent.unwrap_or(SpanId::INVALID),
                parent_span_is_remote: parent.is_some() && parent == self.context.parent,
                span_kind: SpanKind::Internal,
                name: std::borrow::Cow::Borrowed(name),
                start_time: at(from),
                end_time: at(to.max(from)),
                attributes: Vec::new(),
                dropped_attributes_count: 0,
                events: SpanEvents::default(),
                links: SpanLinks::default(),
                status,
                instrumentation_scope: InstrumentationScope::default(),
            };
        let whole = self.context.span();
        let ids = (whole, self.context.parent);
        let mut first = span(self.name, ids, self.began, self.ended, failed(&self.error));
        first.span_kind = self.kind.clone();
        first.attributes = self
            .facts
            .iter()
            .map(|(name, fact)| KeyValue::new(*name, fact.clone()))
            .collect();
        let mut spans = vec![first];
        let mut from = self.began;
        for (name, ended) in &self.phases {
            let ids = (new_span_id(), Some(whole));
            match ended {
                Some(ended) => spans.push(span(name, ids, from, *ended, Status::Unset)),
                None if self.error.is_some() => {
                    spans.push(span(name, ids, from, self.ended, failed(&self.error)));
                    break;
                }
                None => break,
            }
            from = ended.unwrap_or(from);
        }
        spans
    }
}
