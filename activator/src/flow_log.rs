//! The flow log: who used which exported service, as JSON lines in `flow-file`.

use std::{path::Path, sync::Arc, time::Duration};

use activator_proto::forward::flow::{FlowRecord, Verdict};
use net::Clock;
use serde::Serialize;
use service_kit::{ConfigError, RecordSender, RecordStats, RecordWriter};

/// What the event loop hands over.
#[derive(Debug)]
pub(crate) struct Told {
    flow: FlowRecord,
    path: Option<link::Path>,
    /// Seconds since 1970.
    time: u64,
}

/// One line. `time` is when it was told, in seconds since 1970.
#[derive(Debug, Serialize)]
struct Line<'a> {
    record: &'static str,
    time: u64,
    peer: String,
    service: &'a str,
    link: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(flatten)]
    verdict: LineVerdict<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
enum LineVerdict<'a> {
    Accepted {
        seconds: f64,
        bytes_to_service: u64,
        bytes_from_service: u64,
        connections: u64,
        refused_packets: u64,
        end: &'static str,
    },
    Refused {
        reason: &'a str,
    },
}

/// The event loop's end. Without `flow-file` there is none.
#[derive(Debug)]
pub(crate) struct FlowLog(RecordSender<Told>);

impl FlowLog {
    pub(crate) const fn new(sender: RecordSender<Told>) -> Self {
        Self(sender)
    }

    /// Never waits. `path`: of the flow's link, if it has one.
    pub(crate) fn tell(&self, flow: FlowRecord, path: Option<link::Path>) {
        let time = Clock.unix_time().0;
        self.0.send(Told { flow, path, time });
    }
}

/// Opens the file, and starts to write.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn start(
    file: &Path,
    stats: Arc<RecordStats>,
) -> Result<RecordWriter<Told>, ConfigError> {
    RecordWriter::start("flow-file", file, stats, |told: Option<Told>, file| {
        if let Some(told) = told {
            file.write(&[line(&told)]);
        }
    })
}

fn line(Told { flow, path, time }: &Told) -> Line<'_> {
    Line {
        record: "flow",
        time: *time,
        peer: flow.node.to_string(),
        service: &flow.service,
        link: flow.link.0,
        path: path.map(|path| path.to_string()),
        verdict: match &flow.verdict {
            Verdict::Accepted {
                lasted,
                traffic,
                end,
            } => LineVerdict::Accepted {
                seconds: seconds(*lasted),
                bytes_to_service: traffic.bytes_to_service,
                bytes_from_service: traffic.bytes_from_service,
                connections: traffic.connections,
                refused_packets: traffic.refused_packets,
                end: end.as_str(),
            },
            Verdict::Refused { reason } => LineVerdict::Refused { reason },
        },
    }
}

/// With three digits after the point.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}
