//! Mail that belongs to a trace is told: posted, and delivered.

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;
#[path = "../../libs/traces/tests/collector/mod.rs"]
mod collector;

use std::{
    net::TcpListener,
    process::{Command, Stdio},
};

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

/// The real program on a port of its own, told this in its file besides.
fn program(mesh: &Mesh, listen: &str, more: &str) -> Command {
    let config = mesh.path("discovery.toml");
    std::fs::write(&config, mesh.config_text(listen) + more).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_discovery"));
    command.arg("--config").arg(config);
    command
}

#[tokio::test]
async fn the_environment_says_where_the_collector_is() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let collector = Collector::serve(listener);
    let mesh = Mesh::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut command = program(&mesh, &address.to_string(), "");
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
        .env("OTEL_RESOURCE_ATTRIBUTES", "site=cellar")
        .stderr(Stdio::null());
    let mut running = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("it listens", || {
        std::net::TcpStream::connect(address).is_ok()
    })
    .await;
    let app = mesh.join("west/workload/app", address).await;
    let to = app.id();
    let traced = Some(TRACEPARENT.to_owned());
    app.directory
        .post_traced(&to, app.offer(&to, 1), traced)
        .await
        .unwrap();
    eventually("a span", || !collector.spans().is_empty()).await;
    let resource = &collector.spans()[0].resource;
    assert_eq!(
        (resource["service.name"].as_str(), resource["site"].as_str()),
        ("discovery", "cellar")
    );
    running.kill().await.unwrap();
}

#[test]
fn a_collector_that_cannot_be_is_an_error_of_the_configuration() {
    let mesh = Mesh::new();
    for (wrong, field) in [
        ("endpoint = \"collector:4317\"", "traces.endpoint"),
        ("sample = 2.0", "traces.sample"),
        ("endpoints = []", "traces.endpoints"),
    ] {
        let ended = program(&mesh, "127.0.0.1:0", &format!("[traces]\n{wrong}\n"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(64), "{said}");
        assert!(said.contains(field), "{said}");
    }
}
