//! How a link was opened is one trace, told by everybody who took part; without a collector nothing else changes.
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};

use collector::{Collector, Span};
use lab::process::FileKind;
use lab::{Lab, Network, netns, plan, wait};
use scenarios::{ORDERS, RECOVERY, page, page_within};

#[path = "../../../libs/traces/tests/collector/mod.rs"]
mod collector;

const SERVICES: [(&str, &str); 3] = [
    ("discovery", "discovery"),
    ("east/activator", "activator"),
    ("west/dns-signal", "dns_signal"),
];
/// Spans of one machine's services may be told so far out of order: each is dated when it is told.
const SLACK: u64 = 5_000_000;

/// Where discovery is, which everybody reaches.
fn address() -> SocketAddr {
    SocketAddr::new(plan::DISCOVERY.ip(), 4317)
}

fn listen(lab: &Lab) -> TcpListener {
    let listener = netns::inside(&lab.namespace("discovery"), || TcpListener::bind(address()));
    listener.expect("the namespace").expect("the port is free")
}

/// The spans of each trace that a sidecar began, was told of without an error, and has an answer's delivery in it.
fn whole_traces(spans: &[Span]) -> Vec<Vec<Span>> {
    let roots = spans.iter().filter(|span| span.name == "link open");
    let mut found = Vec::new();
    for root in roots.filter(|root| root.error.is_none()) {
        let of_trace = spans.iter().filter(|span| span.trace == root.trace);
        let trace: Vec<Span> = of_trace.cloned().collect();
        let answer = trace.iter().find(|span| span.name == "link answer");
        let below = |name: &str, parent: &[u8]| {
            let mut all = trace.iter();
            all.any(|span| span.name == name && span.parent == parent)
        };
        if let Some(answer) = answer
            && ["post", "deliver"]
                .iter()
                .all(|name| below(name, &root.id) && below(name, &answer.id))
        {
            found.push(trace);
        }
    }
    found
}

/// The trace of an offer that nobody answered, as soon as discovery has told its part.
fn failed_trace(spans: &[Span]) -> Option<Vec<Span>> {
    let unanswered = |span: &&Span| {
        span.name == "link open"
            && span
                .error
                .as_ref()
                .is_some_and(|error| error.contains("no answer"))
    };
    let roots = spans.iter().filter(unanswered);
    let mut traces = roots.map(|root| {
        let of_trace = spans.iter().filter(|span| span.trace == root.trace);
        of_trace.cloned().collect::<Vec<Span>>()
    });
    traces.find(|trace| trace.iter().any(|span| span.name == "post"))
}

fn wait_for_traces(collector: &Collector, count: usize, meanwhile: impl Fn()) -> Vec<Vec<Span>> {
    wait::until("whole traces at the collector", RECOVERY, || {
        meanwhile();
        let traces = whole_traces(&collector.spans());
        Ok((traces.len() >= count).then_some(traces))
    })
    .expect("they come")
}

/// For people: when each span began, since the first, and how long it took.
fn print(trace: &[Span]) {
    let mut spans: Vec<&Span> = trace.iter().collect();
    spans.sort_by_key(|span| (span.start, u64::MAX - span.end));
    let first = spans[0].start;
    let ms = |nanoseconds: u64| nanoseconds as f64 / 1e6;
    for span in spans {
        let (began, took) = (ms(span.start - first), ms(span.end - span.start));
        let service = &span.resource["service.name"];
        eprintln!("{began:8.2} ms {took:8.2} ms  {service}: {}", span.name);
    }
}

fn check(trace: &[Span]) {
    print(trace);
    let one = |name: &str, parent: &[u8]| {
        let is_it = |span: &&Span| span.name == name && span.parent == parent;
        trace
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no `{name}` in {trace:#?}"))
    };
    let open = one("link open", &[]);
    let answer = one("link answer", &open.id);
    let mut from = open.start;
    for phase in [
        "offer",
        "signaling",
        "ICE",
        "DTLS",
        "data channels",
        "first byte",
    ] {
        let span = one(phase, &open.id);
        assert!(
            span.start.abs_diff(from) <= SLACK && span.end >= span.start,
            "{phase}"
        );
        from = span.end;
    }
    assert!(from.abs_diff(open.end) <= SLACK, "the last phase ends it");
    for phase in ["answer", "ICE", "DTLS", "data channels"] {
        let span = one(phase, &answer.id);
        assert!(span.start + SLACK >= answer.start && span.end <= answer.end + SLACK);
    }
    // From one service to the next, in the order in which it happens.
    let way = [
        open.start,
        one("offer", &open.id).end,
        one("post", &open.id).start,
        one("deliver", &open.id).end,
        answer.start,
        one("answer", &answer.id).end,
        one("post", &answer.id).start,
        one("deliver", &answer.id).end,
        one("signaling", &open.id).end,
        one("ICE", &open.id).end,
        open.end,
    ];
    for (step, pair) in way.windows(2).enumerate() {
        assert!(pair[0] <= pair[1] + SLACK, "step {step} of {way:?}");
    }

    let whose = |span: &Span| {
        (
            span.resource["service.name"].clone(),
            span.resource.get("service.instance.id").cloned(),
        )
    };
    for span in trace {
        let (service, instance) = whose(span);
        let expected = match span.name.as_str() {
            "post" | "deliver" => "discovery",
            "link answer" | "answer" => "activator",
            "link open" | "offer" | "signaling" | "first byte" => "dns-signal",
            _ if span.parent == answer.id => "activator",
            _ => "dns-signal",
        };
        assert_eq!(service, expected, "{}", span.name);
        let role = instance.as_deref().and_then(|node| node.split('/').nth(1));
        let role_expected = match expected {
            "activator" => Some("activator"),
            "dns-signal" => Some("workload"),
            _ => None,
        };
        assert_eq!(role, role_expected, "{instance:?}");
        // Nothing that the logs do not say anyway.
        let facts: BTreeSet<&str> = span.facts.keys().map(String::as_str).collect();
        let known = [
            "turnpike.link",
            "turnpike.path",
            "turnpike.peer",
            "turnpike.to",
        ];
        assert!(facts.is_subset(&known.into()), "{facts:?}");
        let text = format!("{:?}", span.facts);
        assert!(
            !text.contains("10.0.0.") && !text.contains("orders"),
            "{text}"
        );
    }
    assert_eq!(open.facts["turnpike.link"], answer.facts["turnpike.link"]);
    assert!(open.facts.contains_key("turnpike.path"), "{open:?}");
}

fn count(lab: &Lab, (process, prefix): (&str, &str), result: &str) -> f64 {
    let metric = format!("{prefix}_trace_spans_total");
    let counts = lab.metric_by_labels(process, &metric).expect("the metric");
    let of_result = counts.iter().filter(|(labels, _)| labels.contains(result));
    of_result.map(|(_, count)| count).sum()
}

fn said(lab: &Lab, process: &str, what: &str) -> usize {
    let log = lab.files().of_process(process, FileKind::Log);
    let text = std::fs::read_to_string(log).expect("the log");
    text.lines().filter(|line| line.contains(what)).count()
}

#[test]
fn a_links_opening_is_one_trace_across_sidecar_discovery_and_activator() {
    let lab = scenarios::lab("traces1");
    for (process, _) in SERVICES {
        lab.stop(process).expect("it stops");
        let section = format!("\n[traces]\nendpoint = \"http://{}\"\n", address());
        lab.edit_config(process, |text| {
            // So that every look at the page after a while opens a link.
            let text = text.replace("idle-timeout = \"60s\"", "idle-timeout = \"1s\"");
            format!("{text}{section}")
        })
        .expect("edited");
        lab.start(process).expect("it starts");
    }
    let name = Network::East.service_name();
    lab.wait_for_name(Network::West, &name, RECOVERY)
        .expect("the name is known");

    // Nobody is there to be told.
    page_within(&lab, "west/app", ORDERS, RECOVERY).expect("a page without a collector");
    for (process, prefix) in SERVICES {
        wait::until_true("spans to be lost", RECOVERY, || {
            Ok(count(&lab, (process, prefix), "lost") >= 1.0)
        })
        .expect("counted");
        assert_eq!(said(&lab, process, "traces are lost"), 1, "{process}");
    }

    let listener = listen(&lab);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let _inside = runtime.enter();
    let collector = Collector::serve(listener);
    let look = || {
        let got = page(&lab, "west/app", ORDERS, &[]);
        got.expect("a page");
        // Longer than a link may be idle.
        std::thread::sleep(std::time::Duration::from_millis(1_500));
    };
    for trace in wait_for_traces(&collector, 2, look) {
        check(&trace);
    }
    for (process, prefix) in SERVICES {
        assert!(count(&lab, (process, prefix), "sent") >= 1.0, "{process}");
        assert_eq!(said(&lab, process, "the collector takes traces again"), 1);
    }

    // An activator that answers no more.
    lab.kill9("east/activator").expect("it is killed");
    let failed = wait::until("the failure at the collector", RECOVERY, || {
        let _ = page(&lab, "west/app", ORDERS, &["-m", "2"]);
        Ok(failed_trace(&collector.spans()))
    })
    .expect("it comes");
    let error = |name: &str| {
        let span = failed.iter().find(|span| span.name == name);
        span.map(|span| span.error.as_deref().unwrap_or_default())
    };
    assert_eq!(error("offer"), Some(""));
    for name in ["link open", "signaling"] {
        assert!(
            error(name).is_some_and(|text| text.contains("no answer")),
            "{failed:#?}"
        );
    }
    assert_eq!(error("post"), Some(""), "discovery took the offer");
    for name in ["ICE", "link answer"] {
        assert_eq!(error(name), None, "{failed:#?}");
    }
    lab.start("east/activator").expect("it starts");
    page_within(&lab, "west/app", ORDERS, RECOVERY).expect("a page again");

    // What was not told yet is told at the end.
    wait::until_true("the link to be idle", RECOVERY, || {
        Ok(lab
            .metric_by_labels("west/dns-signal", "dns_signal_links")?
            .iter()
            .all(|(_, open)| *open == 0.0))
    })
    .expect("it closes");
    let before = whole_traces(&collector.spans()).len();
    page(&lab, "west/app", ORDERS, &[]).expect("a page");
    lab.stop("west/dns-signal").expect("it stops");
    wait_for_traces(&collector, before + 1, || {});
}
