//! Mail that belongs to a trace is told: posted, and delivered.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;
#[path = "../../libs/traces/tests/collector/mod.rs"]
mod collector;

use std::net::TcpListener;

use collector::{Collector, Span};
use common::{Mesh, eventually, node};
use discovery_client::Event;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn mail_of_a_trace_is_told_posted_and_delivered_and_no_other_mail() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::serve(listener);
    let mesh = Mesh::new();
    let mut config = mesh.config("127.0.0.1:0");
    config.traces.endpoint = Some(endpoint);
    let server = mesh.start_with(config).await;
    let mut gateway = mesh.join("east/activator/gw", server.address).await;
    let app = mesh.join("west/workload/app", server.address).await;
    let to = gateway.id();
    let not_sampled = TRACEPARENT.replace("-01", "-00");
    let too_long = format!("{TRACEPARENT}-more");
    for (link, traceparent) in [None, Some("rubbish"), Some(&too_long), Some(&not_sampled)]
        .into_iter()
        .enumerate()
    {
        let offer = app.offer(&to, link as u64);
        let traceparent = traceparent.map(str::to_owned);
        app.directory
            .post_traced(&to, offer, traceparent)
            .await
            .unwrap();
    }
    let traced = Some(TRACEPARENT.to_owned());
    let offer = app.offer(&to, 7);
    app.directory
        .post_traced(&to, offer, traced.clone())
        .await
        .unwrap();
    gateway
        .until(|event| match event {
            Event::Message { document, .. } => match document.body {
                Some(protocol::document::document::Body::Offer(offer)) => {
                    (offer.link == 7).then_some(())
                }
                _ => None,
            },
            _ => None,
        })
        .await;
    let nobody = node("east/activator/nobody");
    let offer = app.offer(&nobody, 8);
    app.directory
        .post_traced(&nobody, offer, traced)
        .await
        .unwrap_err();

    eventually("three spans", || collector.spans().len() == 3).await;
    let mut spans = collector.spans();
    spans.sort_by_key(|span| span.error.is_some());
    for span in &spans {
        assert_eq!(span.resource["service.name"], "discovery");
        assert_eq!(span.trace[..2], [0x0a, 0xf7]);
        assert_eq!(span.parent[..2], [0xb7, 0xad]);
    }
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (post, deliver): (&Span, &Span) = (named("post"), named("deliver"));
    assert!(post.start <= deliver.start && post.start < post.end);
    assert_eq!(
        (&post.facts, post.facts["turnpike.to"].as_str()),
        (&deliver.facts, "east/activator/gw")
    );
    let refused = &spans[2];
    assert_eq!(refused.name, "post");
    assert!(
        refused.error.as_ref().unwrap().contains("no node"),
        "{refused:?}"
    );
}
