//! The queue to the collector, and the task that empties it.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time,
};

use crate::{Context, Story};

/// Spans that wait, each of less than a kilobyte: of a thousand links that open at once.
const WAITING: usize = 8_192;
/// Spans of one message: far below the 4 MiB that gRPC takes.
const BATCH: usize = 512;
/// From a span to its message, so that others go with it.
const LINGER: Duration = Duration::from_millis(500);
/// For one message, with its repetitions: a collector that is started anew loses nothing.
pub(crate) const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// For all that is left at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(400);

/// For metrics.
#[derive(Debug, Default)]
pub struct TraceStats {
    /// Spans that the collector took.
    pub sent: AtomicU64,
    /// Spans that found no room in the queue, or no collector.
    pub lost: AtomicU64,
}

impl TraceStats {
    /// The counters by what became of the spans, for a metric with the label `result`.
    #[must_use]
    pub fn by_result(&self) -> [(&'static str, u64); 2] {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [("sent", count(&self.sent)), ("lost", count(&self.lost))]
    }
}

/// Where stories are handed over, from any thread. The default is off: nothing is told to anybody.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Queue>>);

#[derive(Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    sample: f64,
    stats: Arc<TraceStats>,
}

/// The task that talks to the collector.
#[derive(Debug)]
pub struct Exporting(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

/// The way to the collector, checked, for [`Collector::start`].
#[derive(Debug)]
pub struct Collector {
    /// None: nothing is to be told.
    pub(crate) exporter: Option<SpanExporter>,
    pub(crate) sample: f64,
}

impl Collector {
    /// Starts the task, if there is somebody to tell. `service` and `instance` (a node id) say of all spans whose they are:
    /// `service.name` and `service.instance.id`; `OTEL_RESOURCE_ATTRIBUTES` may say more.
    #[must_use]
    pub fn start(
        self,
        service: &'static str,
        instance: Option<String>,
        stats: Arc<TraceStats>,
    ) -> (Traces, Exporting) {
        let Some(mut exporter) = self.exporter else {
            return (Traces::default(), Exporting(None));
        };
        let instance = instance.map(|instance| KeyValue::new("service.instance.id", instance));
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder()
            .with_service_name(service)
            .with_attributes(instance.into_iter().chain([version]))
            .build();
        exporter.set_resource(&resource);
        let (spans, waiting) = mpsc::channel(WAITING);
        let (stop, stopped) = oneshot::channel();
        let task = Task {
            exporter,
            waiting,
            stats: Arc::clone(&stats),
            failing: false,
        };
        let task = tokio::spawn(task.run(stopped));
        let queue = Queue {
            spans,
            sample: self.sample,
            stats,
        };
        (Traces(Some(Arc::new(queue))), Exporting(Some((stop, task))))
    }
}

impl Traces {
    /// For something that begins here, sampled or not. `None`: traces are off.
    #[must_use]
    pub fn begin(&self) -> Option<Context> {
        self.0.as_ref().map(|queue| Context::begin(queue.sample))
    }

    /// For a part of what began at another service, which said this. `None`: traces are off, or it said nothing of the
    /// kind.
    #[must_use]
    pub fn join(&self, traceparent: &str) -> Option<Context> {
        self.0.as_ref().and_then(|_| Context::join(traceparent))
    }

    /// Never waits. A story of a trace that is not sampled is not told; one that finds no room is lost as a whole, and
    /// counted.
    pub fn tell(&self, story: Story) {
        let Some(queue) = self.0.as_ref().filter(|_| story.context.is_sampled()) else {
            return;
        };
        let spans = story.into_spans();
        match queue.spans.try_reserve_many(spans.len()) {
            Ok(room) => room.zip(spans).for_each(|(room, span)| room.send(span)),
            Err(_) => {
                _ = queue
                    .stats
                    .lost
                    .fetch_add(spans.len() as u64, Ordering::Relaxed)
            }
        }
    }
}

impl Exporting {
    /// Sends what waits, and ends: within 400 ms, whatever the collector does.
    pub async fn end(self) {
        let Some((stop, mut task)) = self.0 else {
            return;
        };
        let _ = stop.send(());
        if time::timeout(FLUSH_TIMEOUT, &mut task).await.is_err() {
            tracing::warn!("the collector did not take the last traces in time");
            task.abort();
        }
    }
}

struct Task {
    exporter: SpanExporter,
    waiting: mpsc::Receiver<SpanData>,
    stats: Arc<TraceStats>,
    /// The last message was not taken.
    failing: bool,
}

impl Task {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut stopping = false;
        let mut batch = Vec::new();
        loop {
            if !stopping {
                tokio::select! {
                    () = self.gather(&mut batch) => {}
                    _ = &mut stopped => {
                        self.waiting.close();
                        stopping = true;
                    }
                }
            }
            while batch.len() < BATCH
                && let Ok(span) = self.waiting.try_recv()
            {
                batch.push(span);
            }
            if !batch.is_empty() {
                self.export(std::mem::take(&mut batch)).await;
            } else if stopping {
                return;
            }
        }
    }

    /// Until there is a span, and a moment longer.
    async fn gather(&mut self, batch: &mut Vec<SpanData>) {
        match self.waiting.recv().await {
            Some(span) => batch.push(span),
            // Nobody is left to tell anything; the end is near.
            None => future::pending().await,
        }
        time::sleep(LINGER).await;
    }

    async fn export(&mut self, batch: Vec<SpanData>) {
        let count = batch.len() as u64;
        // The exporter's own timeout is not for a connection that does not come about.
        let exported = match time::timeout(EXPORT_TIMEOUT, self.exporter.export(batch)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not answer".to_owned()),
        };
        let was_failing = std::mem::replace(&mut self.failing, exported.is_err());
        match exported {
            Ok(()) => {
                self.stats.sent.fetch_add(count, Ordering::Relaxed);
                if was_failing {
                    tracing::info!("the collector takes traces again");
                }
            }
            Err(reason) => {
                self.stats.lost.fetch_add(count, Ordering::Relaxed);
                if !was_failing {
                    tracing::warn!(%reason, "traces are lost: the collector does not take them");
                }
            }
        }
    }
}
