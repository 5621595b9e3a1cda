//! What is told of links that are opened: from the steps that the agent noted, once a link carries something, or never will.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dns_signal_proto::agent::{LinkNotice, LinkStatus, TimedStep};
use model::NodeId;
use protocol::document::document::Body;
use traces::{Context, SpanKind, Story, Traces};

/// A link that has been open for so long is told of, even if nothing came through it yet.
const FIRST_BYTE_PATIENCE: Duration = Duration::from_secs(2);

/// The phases of opening, and the step that ends each ([`TimedStep::name`]).
const PHASES: [(&str, &str); 6] = [
    ("offer", "offer_sent"),
    ("signaling", "answer_received"),
    ("ICE", "ice_connected"),
    ("DTLS", "dtls_connected"),
    ("data channels", "open"),
    ("first byte", "first_byte"),
];

/// The links that nothing was told of yet. Those are in the agent, too, which bounds them.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    traces: Traces,
    untold: HashMap<u64, Context>,
}

impl Openings {
    pub(crate) fn new(traces: Traces) -> Self {
        Self {
            traces,
            untold: HashMap::new(),
        }
    }

    /// About to be posted: an offer says which trace it belongs to. What else is said while the link is opened belongs
    /// there, too.
    pub(crate) fn on_document(&mut self, link: u64, body: &mut Body) -> Option<String> {
        if let Body::Offer(offer) = body {
            let context = self.traces.begin()?;
            self.untold.insert(link, context);
            offer.traceparent = context.traceparent();
        }
        self.untold.get(&link).map(Context::traceparent)
    }

    pub(crate) fn on_notice(&mut self, notice: LinkNotice, now: Instant) {
        if let LinkNotice::Closed {
            link,
            peer,
            opened,
            reason,
            wanted_at,
            steps,
        } = notice
            && let Some(context) = self.untold.remove(&link)
        {
            let failed = (!opened).then_some((reason, now));
            self.traces
                .tell(story(context, (link, &peer), wanted_at, &steps, failed));
        }
    }

    /// Tells of those that are open by now and have carried something, or had their time.
    pub(crate) fn look_at(&mut self, links: &[LinkStatus], now: Instant) {
        if self.untold.is_empty() {
            return;
        }
        for status in links {
            let reached = |name| at(status.wanted_at, &status.steps, name);
            let patience = |open| now.saturating_duration_since(open) >= FIRST_BYTE_PATIENCE;
            let is_complete =
                reached("first_byte").is_some() || reached("open").is_some_and(patience);
            if is_complete && let Some(context) = self.untold.remove(&status.link) {
                let (link, path) = ((status.link, &status.peer), status.path);
                let mut story = story(context, link, status.wanted_at, &status.steps, None);
                story
                    .facts
                    .extend(path.map(|path| ("turnpike.path", path.to_string())));
                self.traces.tell(story);
            }
        }
    }
}

fn at(wanted_at: Instant, steps: &[TimedStep], name: &str) -> Option<Instant> {
    let step = steps.iter().find(|step| step.name == name)?;
    Some(wanted_at + step.after)
}

fn story(
    context: Context,
    (link, peer): (u64, &NodeId),
    wanted_at: Instant,
    steps: &[TimedStep],
    failed: Option<(String, Instant)>,
) -> Story {
    let phases = PHASES.map(|(phase, step)| (phase, at(wanted_at, steps, step)));
    let reached = phases.iter().filter_map(|(_, ended)| *ended).max();
    let (error, ended) = match failed {
        Some((reason, now)) => (Some(reason), now),
        None => (None, reached.unwrap_or(wanted_at)),
    };
    Story {
        context,
        name: "link open",
        kind: SpanKind::Client,
        began: wanted_at,
        ended,
        phases: phases.into(),
        error,
        facts: vec![
            ("turnpike.link", link.to_string()),
            ("turnpike.peer", peer.to_string()),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_ends_in_the_phase_it_had_got_to() {
        let config = traces::TracesConfig {
            endpoint: Some("http://127.0.0.1:9".to_owned()),
            ..traces::TracesConfig::default()
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let collector = config.check().unwrap();
        let (traces, _exporting) = collector.start("dns-signal", None, std::sync::Arc::default());
        let context = traces.begin().unwrap();
        let peer: NodeId = "east/activator/gw".parse().unwrap();
        let began = Instant::now();
        let millis = Duration::from_millis;
        let step = |name, after| TimedStep {
            name,
            after: millis(after),
        };
        let steps = [
            step("dns_answer", 0),
            step("offer_sent", 1),
            step("answer_received", 5),
        ];
        let failed = Some(("no path".to_owned(), began + millis(900)));
        let told = story(context, (7, &peer), began, &steps, failed);
        let ended: Vec<_> = told.phases.iter().map(|(_, ended)| *ended).collect();
        let (offer, answer) = (Some(began + millis(1)), Some(began + millis(5)));
        assert_eq!(ended, [offer, answer, None, None, None, None]);
        assert_eq!(
            (told.error.as_deref(), told.ended),
            (Some("no path"), began + millis(900))
        );
        let told = story(context, (7, &peer), began, &steps, None);
        assert_eq!((told.error, told.ended), (None, began + millis(5)));
    }
}
