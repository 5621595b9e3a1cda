//! The console, asked as a browser or a stranger asks it. What it looks like is seen in Chromium (`tests/scenarios`).

#![allow(clippy::unwrap_used, reason = "a test may end so")]

mod common;

use std::{net::SocketAddr, time::Duration};

use common::{Mesh, Node, PATIENCE, Running, node, now, within};
use identity::document;
use model::Role;
use protocol::{
    directory::{ReportRequest, ReportedExport, ReportedLink},
    document::{Foothold, Registration, Service, document::Body},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const HOSTILE: &str = "<img src=x onerror=alert(1)>";

async fn with_console(mesh: &Mesh) -> (Running, SocketAddr) {
    let mut config = mesh.config("127.0.0.1:0");
    config.console = Some("127.0.0.1:0".parse().unwrap());
    let running = mesh.start_with(config).await;
    let console = running.console.unwrap();
    (running, console)
}

/// The answer's head and body.
async fn ask(console: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(console).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn get(console: SocketAddr, path: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {console}\r\nConnection: close\r\n\r\n");
    ask(console, &request).await
}

async fn picture(console: SocketAddr) -> serde_json::Value {
    let (_, json) = get(console, "/picture.json").await;
    serde_json::from_str(&json).unwrap()
}

/// The picture, when it is so.
async fn picture_when(
    console: SocketAddr,
    mut is_so: impl FnMut(&serde_json::Value) -> bool,
) -> serde_json::Value {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let picture = picture(console).await;
        if is_so(&picture) {
            return picture;
        }
        assert!(tokio::time::Instant::now() < deadline, "{picture:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn register(gateway: &Node, service: &str) {
    let identity = gateway.directory.identity();
    let body = Registration {
        network: "east".into(),
        node: "gw".into(),
        footholds: vec![Foothold {
            relay: "west".into(),
            network: "west".into(),
            relayed_addresses: vec!["10.0.0.2:50000".into()],
        }],
        services: vec![Service {
            name: service.into(),
            ipv4: true,
            tcp_ports: vec![8080],
            ..Service::default()
        }],
        ..Registration::default()
    };
    let signed = document(Body::Registration(body), None, common::HOUR, now());
    gateway
        .directory
        .publish(Some(identity.sign(&signed).unwrap()));
}

fn report(bytes_sent: u64) -> ReportRequest {
    ReportRequest {
        links: vec![ReportedLink {
            link: 7,
            peer: "west/workload/app".into(),
            open: true,
            path: "relay/udp".into(),
            carrier: HOSTILE.into(),
            rtt_micros: 1_500,
            bytes_sent,
            bytes_received: 0,
        }],
        links_in_all: 300,
        exports: vec![ReportedExport {
            service: HOSTILE.into(),
            everyone: false,
            allow: vec!["west".into()],
        }],
    }
}

#[tokio::test]
async fn a_browser_may_run_our_script_and_nothing_else() {
    let mesh = Mesh::new();
    let (running, console) = with_console(&mesh).await;
    for path in [
        "/",
        "/console.js",
        "/map.js",
        "/pages.js",
        "/console.css",
        "/icon.svg",
        "/picture.json",
        "/nothing",
    ] {
        let (head, _) = get(console, path).await;
        let status = if path == "/nothing" { "404" } else { "200" };
        assert!(
            head.starts_with(&format!("http/1.1 {status}")),
            "{path}: {head}"
        );
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self';",
            "x-content-type-options: nosniff",
            "cross-origin-resource-policy: same-origin",
            "referrer-policy: no-referrer",
        ] {
            assert!(head.contains(header), "{path} is without {header}: {head}");
        }
        assert!(!head.contains("access-control"), "{head}");
        assert!(!head.contains("unsafe"), "{head}");
    }
    // No markup is written by script, and none of ours stands in the page.
    let (_, page) = get(console, "/").await;
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains("style=") && !page.contains("onclick"));
    for script in ["/console.js", "/map.js", "/pages.js"] {
        let (_, text) = get(console, script).await;
        for forbidden in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "http://",
            "https://",
        ] {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains(forbidden), "{script} has {forbidden}");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn it_only_reads_and_answers_to_no_name_of_others() {
    let mesh = Mesh::new();
    let (running, console) = with_console(&mesh).await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let request = format!(
            "{method} /picture.json HTTP/1.1\r\nHost: {console}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let (head, _) = ask(console, &request).await;
        assert!(head.starts_with("http/1.1 405"), "{method}: {head}");
    }
    for host in ["evil.example", "evil.example:9105"] {
        let request =
            format!("GET /picture.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let (head, body) = ask(console, &request).await;
        assert!(head.starts_with("http/1.1 421"), "{host}: {head}");
        assert!(!body.contains("networks"), "{body}");
    }
    running.stop().await;
}

#[tokio::test]
async fn it_shows_registrations_and_reports_and_no_secret() {
    let mesh = Mesh::new();
    let (running, console) = with_console(&mesh).await;
    let gateway = mesh.join("east/activator/gw", running.address).await;
    let app = mesh.join("west/workload/app", running.address).await;
    register(&gateway, HOSTILE);
    let again = gateway.directory.report(report(1_000)).await.unwrap();
    assert_eq!(again, Some(Duration::from_secs(5)));
    let shown = picture_when(console, |picture| picture["services"][0]["name"] == HOSTILE).await;

    let service = &shown["services"][0];
    assert_eq!(service["tcp"][0], 8080);
    assert_eq!(service["exporters"][0]["everyone"], false);
    assert_eq!(service["exporters"][0]["allow"][0], "west");
    let networks = shown["networks"].as_array().unwrap();
    let east = networks.iter().find(|n| n["name"] == "east").unwrap();
    let activator = &east["activators"][0];
    assert_eq!(activator["node"], "east/activator/gw");
    assert!(
        activator["lease_seconds"].as_f64().unwrap() > 1.0,
        "{activator}"
    );
    assert_eq!(activator["footholds"][0]["addresses"][0], "10.0.0.2:50000");
    assert_eq!(activator["links"], 300);
    let west = networks.iter().find(|n| n["name"] == "west").unwrap();
    assert_eq!(
        (&west["workloads"], &west["relays"][0]["holders"]),
        (&1.into(), &1.into())
    );
    let link = &shown["links"][0];
    assert_eq!(link["path"], "relay/udp");
    assert_eq!(link["rtt_ms"], 1.5);
    let text = shown.to_string();
    assert!(!text.contains("0123456789abcdef0123456789abcdef") && !text.contains("PRIVATE"));

    // Who stops is gone with its lease.
    gateway.directory.shutdown().await;
    picture_when(console, |picture| picture["services"][0].is_null()).await;
    drop(app);
    running.stop().await;
}

#[tokio::test]
async fn reports_are_activators_and_not_too_frequent() {
    let mesh = Mesh::new();
    let (running, console) = with_console(&mesh).await;
    let gateway = mesh.join("east/activator/gw", running.address).await;
    let app = mesh.join("west/workload/app", running.address).await;
    assert_eq!(app.id().role, Role::Workload);
    let refused = app.directory.report(report(0)).await.unwrap_err();
    assert!(refused.to_string().contains("only activators"), "{refused}");
    gateway.directory.report(report(0)).await.unwrap();
    let refused = gateway.directory.report(report(0)).await.unwrap_err();
    assert!(refused.to_string().contains("a moment ago"), "{refused}");
    let shown = picture_when(console, |picture| !picture["links"][0].is_null()).await;
    assert_eq!(
        shown["links"][0]["activator"],
        node("east/activator/gw").to_string()
    );
    running.stop().await;
}

#[tokio::test]
async fn without_a_console_nobody_is_asked_to_report() {
    let mesh = Mesh::new();
    let running = mesh.start().await;
    assert_eq!(running.console, None);
    let gateway = mesh.join("east/activator/gw", running.address).await;
    assert_eq!(gateway.directory.report(report(0)).await.unwrap(), None);
    running.stop().await;
}
