//! What discovery's console shows of this activator: its links, and whom its exports are for. Only sent while there is a console.

use std::time::Duration;

use activator_proto::{
    policy::{ExportTable, Exported},
    who::Who,
};
use discovery_client::Directory;
use protocol::directory::{ReportRequest, ReportedExport, ReportedLink};
use service_kit::status::{LinkStatus, StatusAsker};

use crate::status::Status;

/// Discovery keeps no more of one activator.
const MAX_LINKS: usize = 256;
const MAX_ALLOWED: usize = 32;

/// After the start, and when there was no answer.
const SOON: Duration = Duration::from_secs(5);
/// While there is no console, or discovery is of an earlier version.
const SELDOM: Duration = Duration::from_secs(60);

/// Reports as often as discovery wants it, for good.
pub(crate) async fn run(
    directory: Directory,
    asker: StatusAsker<Status>,
    exports: Vec<ReportedExport>,
) {
    // Activators of one mesh are started together: they need not report together.
    let mut wait = SOON / 5 + Duration::from_millis(getrandom::u64().unwrap_or(0) % 1_000);
    loop {
        tokio::time::sleep(wait).await;
        let Some(status) = asker.ask().await else {
            wait = SOON;
            continue;
        };
        let report = ReportRequest {
            links_in_all: u32::try_from(status.links.len()).unwrap_or(u32::MAX),
            links: status.links.iter().take(MAX_LINKS).map(link).collect(),
            exports: exports.clone(),
        };
        wait = match directory.report(report).await {
            Ok(again) => again.map_or(SELDOM, |again| again.clamp(SOON / 5, SELDOM)),
            Err(error) => {
                tracing::debug!(%error, "not reported to the console");
                if directory.view().connected {
                    SELDOM
                } else {
                    SOON
                }
            }
        };
    }
}

fn link(status: &LinkStatus) -> ReportedLink {
    ReportedLink {
        link: status.link,
        peer: status.peer.clone(),
        open: status.state == LinkStatus::state(true),
        path: status.path.clone().unwrap_or_default(),
        carrier: status.carrier.clone().unwrap_or_default(),
        // Whole microseconds; a round trip of an hour is none.
        rtt_micros: status.rtt_ms.map_or(0, |ms| (ms * 1_000.0) as u32),
        bytes_sent: status.bytes_sent,
        bytes_received: status.bytes_received,
    }
}

/// Whom each export is for.
pub(crate) fn exports(table: &ExportTable) -> Vec<ReportedExport> {
    let reported = |exported: &Exported| {
        let allow = exported.allow();
        let everyone = |who: &Who| who.to_string() == "*";
        ReportedExport {
            service: exported.name().to_string(),
            everyone: allow.is_none_or(|allow| allow.iter().any(everyone)),
            allow: allow
                .unwrap_or_default()
                .iter()
                .take(MAX_ALLOWED)
                .map(ToString::to_string)
                .collect(),
        }
    };
    table.iter().map(reported).collect()
}
