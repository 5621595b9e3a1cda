//! An OpenTelemetry collector for tests: takes OTLP over gRPC, and keeps what it gets.

#![allow(clippy::unwrap_used, reason = "a test may end so")]
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Status as SpanStatus, status::StatusCode},
};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// A span, with what its resource says.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) resource: BTreeMap<String, String>,
    pub(crate) name: String,
    pub(crate) trace: Vec<u8>,
    pub(crate) id: Vec<u8>,
    /// Empty: it has none.
    pub(crate) parent: Vec<u8>,
    /// Nanoseconds since 1970.
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) facts: BTreeMap<String, String>,
    pub(crate) error: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Serves until the runtime ends.
    pub(crate) fn serve(listener: TcpListener) -> Self {
        Self::serve_with(Server::builder(), listener)
    }

    /// The same, perhaps over TLS.
    pub(crate) fn serve_with(mut server: Server, listener: TcpListener) -> Self {
        let collector = Self::default();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let service = TraceServiceServer::new(collector.clone());
        let server = server.add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        collector
    }

    /// In the order in which they came.
    pub(crate) fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        for of_resource in request.into_inner().resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let resource = texts(&resource.attributes);
            let scopes = of_resource.scope_spans.into_iter();
            kept.extend(scopes.flat_map(|scope| scope.spans).map(|span| Span {
                resource: resource.clone(),
                name: span.name,
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                facts: texts(&span.attributes),
                error: span.status.as_ref().and_then(error),
            }));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some((attribute.key.clone(), text.clone())),
        _ => None,
    };
    attributes.iter().filter_map(text).collect()
}

fn error(status: &SpanStatus) -> Option<String> {
    (status.code == StatusCode::Error as i32).then(|| status.message.clone())
}
