//! What activators say of themselves for the console: in memory, bounded, forgotten when it is old. Not believed for anything.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use model::NodeId;
use protocol::directory::{ReportRequest, ReportedExport, ReportedLink};

/// How often an activator is to report.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Oftener than this is too often.
const MIN_INTERVAL: Duration = Duration::from_millis(800);
/// Three were missed.
const KEEP: Duration = Duration::from_secs(16);
/// Activators whose reports are kept; links and exports of one of them; links of all.
const MAX_REPORTS: usize = 1_024;
const MAX_LINKS: usize = 256;
const MAX_EXPORTS: usize = 128;
const MAX_ALLOWED: usize = 32;
const MAX_LINKS_IN_ALL: usize = 16_384;
/// The longest network name, a slash, the longest node name.
const MAX_TEXT: usize = 130;

/// Why a report was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReportError {
    #[error("the last report was a moment ago")]
    TooOften,
    #[error("{MAX_REPORTS} activators report already")]
    TooMany,
}

/// A link, and how much passes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Link {
    pub(crate) said: ReportedLink,
    pub(crate) peer: NodeId,
    /// Bytes a second since the report before this one.
    pub(crate) sent_rate: f64,
    pub(crate) received_rate: f64,
}

/// One activator's latest.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) at: Instant,
    pub(crate) links: Vec<Link>,
    pub(crate) links_in_all: usize,
    pub(crate) exports: Vec<ReportedExport>,
}

/// All that are not old.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    kept: BTreeMap<NodeId, Report>,
}

impl Reports {
    /// Keeps what `node` says in place of what it said before.
    pub(crate) fn put(
        &mut self,
        node: &NodeId,
        said: ReportRequest,
        now: Instant,
    ) -> Result<(), ReportError> {
        self.forget(now);
        let before = self.kept.get(node);
        let age = before.map(|report| now.saturating_duration_since(report.at));
        if age.is_some_and(|age| age < MIN_INTERVAL) {
            return Err(ReportError::TooOften);
        }
        if before.is_none() && self.kept.len() >= MAX_REPORTS {
            return Err(ReportError::TooMany);
        }
        let others = self.kept.iter().filter(|(other, _)| *other != node);
        let held: usize = others.map(|(_, report)| report.links.len()).sum();
        let room = MAX_LINKS_IN_ALL.saturating_sub(held).min(MAX_LINKS);
        let links = said.links.into_iter().take(room);
        let links: Vec<Link> = links
            .filter_map(|said| link(said, before, age.unwrap_or_default()))
            .collect();
        let exports = said.exports.iter().take(MAX_EXPORTS);
        let report = Report {
            at: now,
            links_in_all: links.len().max(said.links_in_all as usize),
            links,
            exports: exports.map(export).collect(),
        };
        self.kept.insert(node.clone(), report);
        Ok(())
    }

    /// What is not old.
    pub(crate) fn current(&mut self, now: Instant) -> BTreeMap<NodeId, Report> {
        self.forget(now);
        self.kept.clone()
    }

    fn forget(&mut self, now: Instant) {
        self.kept
            .retain(|_, report| now.saturating_duration_since(report.at) < KEEP);
    }
}

/// A link with its rates; none if its other end is no node.
fn link(said: ReportedLink, before: Option<&Report>, age: Duration) -> Option<Link> {
    let peer: NodeId = said.peer.parse().ok()?;
    let known = before.and_then(|report| {
        let mut links = report.links.iter();
        links.find(|link| link.said.link == said.link && link.peer == peer)
    });
    let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / age.as_secs_f64().max(0.1);
    let (sent_rate, received_rate) = known.map_or((0.0, 0.0), |known| {
        (
            rate(said.bytes_sent, known.said.bytes_sent),
            rate(said.bytes_received, known.said.bytes_received),
        )
    });
    Some(Link {
        said: ReportedLink {
            path: bounded(&said.path),
            carrier: bounded(&said.carrier),
            ..said
        },
        peer,
        sent_rate,
        received_rate,
    })
}

fn export(said: &ReportedExport) -> ReportedExport {
    let allow = said.allow.iter().take(MAX_ALLOWED);
    ReportedExport {
        service: bounded(&said.service),
        everyone: said.everyone,
        allow: allow.map(|who| bounded(who)).collect(),
    }
}

/// The beginning of what somebody says.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activator(number: usize) -> NodeId {
        format!("east/activator/gw-{number}").parse().unwrap()
    }

    fn report(links: usize, bytes_sent: u64) -> ReportRequest {
        let link = |link| ReportedLink {
            link,
            peer: "west/workload/app".into(),
            path: "relay/udp".repeat(100),
            bytes_sent,
            ..ReportedLink::default()
        };
        ReportRequest {
            links: (0..links as u64).map(link).collect(),
            ..ReportRequest::default()
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_reports() {
        let (mut reports, start) = (Reports::default(), Instant::now());
        let node = activator(0);
        reports.put(&node, report(1, 1_000), start).unwrap();
        assert_eq!(reports.current(start)[&node].links[0].sent_rate, 0.0);
        let later = start + INTERVAL;
        reports.put(&node, report(1, 11_000), later).unwrap();
        assert_eq!(reports.current(later)[&node].links[0].sent_rate, 2_000.0);
        // Another link took its number.
        let last = later + INTERVAL;
        reports.put(&node, report(1, 0), last).unwrap();
        assert_eq!(reports.current(last)[&node].links[0].sent_rate, 0.0);
        assert!(reports.current(last + KEEP).is_empty());
    }

    #[test]
    fn nobody_fills_more_than_its_share() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        for number in 0..MAX_REPORTS {
            reports
                .put(&activator(number), report(300, 0), now)
                .unwrap();
        }
        let more = reports.put(&activator(MAX_REPORTS), report(1, 0), now);
        assert_eq!(more, Err(ReportError::TooMany));
        let again = reports.put(&activator(0), report(1, 0), now);
        assert_eq!(again, Err(ReportError::TooOften));
        let kept = reports.current(now);
        let links: usize = kept.values().map(|report| report.links.len()).sum();
        assert_eq!(kept[&activator(0)].links.len(), MAX_LINKS);
        assert_eq!(links, MAX_LINKS_IN_ALL);
        assert_eq!(kept[&activator(0)].links[0].said.path.len(), MAX_TEXT);
    }

    #[test]
    fn a_link_to_nobody_is_not_kept() {
        let (mut reports, now) = (Reports::default(), Instant::now());
        let mut said = report(2, 0);
        said.links[0].peer = "<b>west</b>/workload/app".into();
        reports.put(&activator(0), said, now).unwrap();
        assert_eq!(reports.current(now)[&activator(0)].links.len(), 1);
    }
}
