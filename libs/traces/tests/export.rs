//! What is told gets to the collector whole, and who tells never waits.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod collector;

use std::{
    net::TcpListener,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use collector::Collector;
use identity::Authority;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use traces::{Context, Exporting, SpanKind, Story, TraceStats, Traces, TracesConfig};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(endpoint: &str) -> (Traces, Exporting, Arc<TraceStats>) {
    let config = TracesConfig {
        endpoint: Some(endpoint.to_owned()),
        ..TracesConfig::default()
    };
    let stats = Arc::new(TraceStats::default());
    let collector = config.check().unwrap();
    let (traces, exporting) = collector.start("tester", Some("a/b/c".into()), stats.clone());
    (traces, exporting, stats)
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    (listener, endpoint)
}

fn story(context: Context, error: Option<&str>) -> Story {
    let began = Instant::now()
        .checked_sub(Duration::from_millis(30))
        .unwrap();
    let after = |ms| Some(began + Duration::from_millis(ms));
    Story {
        context,
        name: "whole",
        kind: SpanKind::Server,
        began,
        ended: began + Duration::from_millis(30),
        phases: vec![
            ("first", after(10)),
            ("second", after(20)),
            ("third", None),
            ("fourth", None),
        ],
        error: error.map(str::to_owned),
        facts: vec![("fact", "value".to_owned())],
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn lost(stats: &TraceStats) -> u64 {
    stats.lost.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_story_gets_to_the_collector_as_a_span_with_one_below_it_for_each_phase() {
    let (listener, endpoint) = listen();
    let collector = Collector::serve(listener);
    let (traces, exporting, stats) = start(&endpoint);
    let root = traces.begin().unwrap();
    traces.tell(story(root, None));
    let part = traces.join(&root.traceparent()).unwrap();
    traces.tell(story(part, Some("it went wrong")));
    eventually("two stories", || collector.spans().len() == 7).await;
    let spans = collector.spans();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    // What did not happen is told only where it was what failed.
    let told = [
        "whole", "first", "second", "whole", "first", "second", "third",
    ];
    assert_eq!(names, told);
    assert!(spans.iter().all(|span| span.trace == spans[0].trace));
    assert!(spans[0].parent.is_empty(), "it began here");
    assert_eq!(spans[3].parent, spans[0].id, "it is a part of the other");
    for (whole, phases) in [(&spans[0], &spans[1..3]), (&spans[3], &spans[4..7])] {
        assert_eq!(whole.facts["fact"], "value");
        assert_eq!(whole.resource["service.name"], "tester");
        assert_eq!(whole.resource["service.instance.id"], "a/b/c");
        let mut from = whole.start;
        for phase in phases {
            assert_eq!(
                (&phase.parent, phase.start),
                (&whole.id, from),
                "{}",
                phase.name
            );
            from = phase.end;
        }
    }
    assert_eq!(spans[0].end - spans[0].start, 30_000_000);
    let errors: Vec<_> = spans.iter().filter(|span| span.error.is_some()).collect();
    assert_eq!(errors.len(), 2, "the whole and the phase it was in");
    assert!(
        errors
            .iter()
            .all(|span| span.error.as_deref() == Some("it went wrong"))
    );
    assert_eq!(
        spans[6].end, spans[3].end,
        "the last phase ended with the whole"
    );
    exporting.end().await;
    assert_eq!(stats.by_result(), [("sent", 7), ("lost", 0)]);
}

#[tokio::test]
async fn what_is_told_right_before_the_end_gets_there() {
    let (listener, endpoint) = listen();
    let collector = Collector::serve(listener);
    let (traces, exporting, _) = start(&endpoint);
    traces.tell(story(traces.begin().unwrap(), None));
    eventually("a connection", || collector.spans().len() == 3).await;
    for _ in 0..200 {
        traces.tell(story(traces.begin().unwrap(), None));
    }
    exporting.end().await;
    assert_eq!(collector.spans().len(), 603, "in more than one message");
}

#[tokio::test]
async fn without_a_collector_it_is_lost_and_counted_and_later_ones_get_there() {
    let (listener, endpoint) = listen();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (traces, exporting, stats) = start(&endpoint);
    traces.tell(story(traces.begin().unwrap(), None));
    eventually("the loss", || lost(&stats) == 3).await;
    let collector = Collector::serve(TcpListener::bind(address).unwrap());
    traces.tell(story(traces.begin().unwrap(), None));
    eventually("the next one", || collector.spans().len() == 3).await;
    exporting.end().await;
    assert_eq!(stats.by_result(), [("sent", 3), ("lost", 3)]);
}

#[tokio::test]
async fn a_collector_that_is_silent_holds_up_nobody() {
    // Connections come about, and nothing is ever read.
    let (_listener, endpoint) = listen();
    let (traces, exporting, stats) = start(&endpoint);
    for _ in 0..4_000 {
        traces.tell(story(traces.begin().unwrap(), None));
    }
    // Nobody else ran meanwhile: what is beyond the queue is lost at once, story by story.
    assert_eq!(lost(&stats), 12_000 - 8_192 / 3 * 3);
    let limit = PATIENCE;
    tokio::time::timeout(limit, exporting.end())
        .await
        .expect("it ends");
}

#[tokio::test]
async fn traces_that_are_off_or_not_sampled_tell_nothing() {
    let off = TracesConfig {
        endpoint: Some(String::new()),
        ..TracesConfig::default()
    };
    let (traces, exporting) = off.check().unwrap().start("tester", None, Arc::default());
    assert_eq!(traces.begin(), None);
    let given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(traces.join(given), None);
    exporting.end().await;

    let (listener, endpoint) = listen();
    let collector = Collector::serve(listener);
    let none = TracesConfig {
        endpoint: Some(endpoint),
        sample: 0.0,
        ..TracesConfig::default()
    };
    let (traces, exporting) = none.check().unwrap().start("tester", None, Arc::default());
    let context = traces.begin().unwrap();
    assert!(!context.is_sampled() && context.traceparent().ends_with("-00"));
    traces.tell(story(context, None));
    // Another service decided that this is told.
    traces.tell(story(traces.join(given).unwrap(), None));
    exporting.end().await;
    let spans = collector.spans();
    assert_eq!(spans.len(), 3);
    assert!(spans.iter().all(|span| span.trace[..2] == [0x0a, 0xf7]));
}

#[tokio::test]
async fn over_tls_only_a_collector_that_the_file_vouches_for_is_told() {
    let now = net::Clock.unix_time();
    let day = Duration::from_secs(86_400);
    let [authority, other] =
        [(); 2].map(|()| Authority::new("demo".parse().unwrap(), now).unwrap());
    let issued = authority
        .issue_server(&["127.0.0.1".into()], day, now)
        .unwrap();
    let identity = Identity::from_pem(&issued.certificate_pem, &issued.key_pem);
    let tls = ServerTlsConfig::new().identity(identity);
    let (listener, endpoint) = listen();
    let server = Server::builder().tls_config(tls).unwrap();
    let collector = Collector::serve_with(server, listener);
    let directory = tempfile::tempdir().unwrap();
    for (authority, expected) in [
        (&other, [("sent", 0), ("lost", 3)]),
        (&authority, [("sent", 3), ("lost", 0)]),
    ] {
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, authority.certificate_pem()).unwrap();
        let config = TracesConfig {
            endpoint: Some(endpoint.replace("http", "https")),
            ca_file: Some(ca_file),
            ..TracesConfig::default()
        };
        let stats = Arc::new(TraceStats::default());
        let (traces, exporting) = config.check().unwrap().start("tester", None, stats.clone());
        traces.tell(story(traces.begin().unwrap(), None));
        eventually("a verdict", || {
            stats.by_result() != [("sent", 0), ("lost", 0)]
        })
        .await;
        assert_eq!(stats.by_result(), expected);
        exporting.end().await;
    }
    assert_eq!(collector.spans().len(), 3);
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_by_its_field() {
    let with = |endpoint: &str, ca_file: Option<&str>, sample| TracesConfig {
        endpoint: Some(endpoint.to_owned()),
        ca_file: ca_file.map(PathBuf::from),
        sample,
    };
    for (config, field, said) in [
        (
            with("http://[::1]:4317", None, 1.5),
            "traces.sample",
            "use 0 to 1",
        ),
        (
            with("http://[::1]:4317", None, f64::NAN),
            "traces.sample",
            "use 0 to 1",
        ),
        (
            with("127.0.0.1:4317", None, 1.0),
            "traces.endpoint",
            "http://",
        ),
        (with("not a url", None, 1.0), "traces.endpoint", "not a URL"),
        (
            with("https://[::1]:4317", None, 1.0),
            "traces.endpoint",
            "ca-file",
        ),
        (
            with("https://[::1]:4317", Some("/nowhere"), 1.0),
            "traces.ca-file",
            "No such file",
        ),
    ] {
        let error = config.check().unwrap_err();
        assert_eq!(error.field(), Some(field));
        assert!(error.to_string().contains(said), "{error}");
    }
}
