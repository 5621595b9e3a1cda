//! Traces for an OpenTelemetry collector, told after the fact: a service notes when what happened, as it does anyway, and hands
//! the whole [`Story`] over once it is complete. So no span is alive while packets flow, and none is in their way.
//!
//! In the order of the modules: what the configuration says ([`TracesConfig`]), which trace something belongs to, here and
//! at the next service ([`Context`]), what is told of it ([`Story`]), and how it gets to the collector ([`Traces`],
//! [`Exporting`]): over OTLP/gRPC, in batches, from a bounded queue. Who tells never waits; what finds no room, or no collector, is
//! lost and counted ([`TraceStats`]).
//!
//! The formats are OpenTelemetry's own crates': OTLP 1, and W3C Trace Context level 1 for `traceparent`.

#![forbid(unsafe_code)]

mod config;
mod context;
mod story;
mod export;

pub use config::TracesConfig;
pub use context::{Context, TRACEPARENT_LEN};
pub use export::{Collector, Exporting, TraceStats, Traces};
pub use opentelemetry::trace::SpanKind;
pub use story::Story;
