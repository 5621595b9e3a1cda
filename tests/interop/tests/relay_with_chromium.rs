//! Headless Chromium: two peers of one page that may use relayed candidates only, through our relay over UDP, TCP and TLS.

use anyhow::{Result, ensure};
use browser::Chromium;
use interop::relay::{Relay, USER};
use serde_json::json;
use std::net::SocketAddr;
use turnpike_interop as interop;

const MESSAGES: u64 = 100;

/// The relay is on loopback, where a page looks for nothing by itself; its certificate is its own authority.
const FLAGS: [&str; 2] = [
    "--allow-loopback-in-peer-connection",
    "--ignore-certificate-errors",
];

fn two_peers_talk(relay: &Relay, url: &str, kind: &str) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let mut browser = Chromium::start_here(directory.path(), &FLAGS)?;
    browser.evaluate(include_str!("relayed_page.js"))?;
    let server = json!({"urls": [url], "username": USER.0, "credential": USER.1});
    let kinds = browser.evaluate(&format!("relayed({server}, {MESSAGES})"))?;
    ensure!(kinds == json!([format!("relay {kind}")]), "{kinds}");
    // Each message went out of one allocation and into the other, and came back likewise.
    relay.wait_for("relayed_packets_total{direction=\"to_client\"}", |count| {
        count >= 2 * MESSAGES
    })
}

fn url(scheme: &str, server: SocketAddr, transport: &str) -> String {
    format!("{scheme}:{server}?transport={transport}")
}

#[test]
fn two_peers_talk_over_udp() -> Result<()> {
    let relay = Relay::start()?;
    two_peers_talk(&relay, &url("turn", relay.listen[0], "udp"), "udp")
}

#[test]
fn two_peers_talk_over_tcp() -> Result<()> {
    let relay = Relay::start()?;
    two_peers_talk(&relay, &url("turn", relay.tcp[0], "tcp"), "tcp")
}

#[test]
fn two_peers_talk_over_tls() -> Result<()> {
    let relay = Relay::start()?;
    two_peers_talk(&relay, &url("turns", relay.tls[0], "tcp"), "tls")
}
