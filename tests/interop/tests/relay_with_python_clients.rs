//! aioice (Python, written from the RFCs) and libnice (C, of GStreamer and many others) as Debian ships them, against the
//! real binary: two ends with an allocation each, and nothing between them but the relay.

use anyhow::{Context as _, Result, ensure};
use interop::relay::{Relay, USER};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use turnpike_interop as interop;

const MESSAGES: u64 = 50;

/// Runs a script, with Debian's Python: others do not see Debian's packages.
fn echoes(relay: &Relay, script: &str, server: SocketAddr, transport: &[&str]) -> Result<()> {
    let output = Command::new("timeout")
        .args(["80", "/usr/bin/python3", "-W", "ignore", "-c", script])
        .args([&server.ip().to_string(), &server.port().to_string()])
        .args(transport)
        .args([USER.0, USER.1, &MESSAGES.to_string()])
        // Its certificate is its own authority.
        .env("SSL_CERT_FILE", relay.certificate())
        .stdin(Stdio::null())
        .output()
        .context("/usr/bin/python3")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let right = said.contains(&format!("echoed {MESSAGES}"));
    ensure!(output.status.success() && right, "{said}{complained}");
    // Each of them went through the relay, there and back.
    relay.wait_for("relayed_packets_total{direction=\"to_client\"}", |count| {
        count >= 2 * MESSAGES
    })
}

fn aioice(server: impl Fn(&Relay) -> SocketAddr, transport: &[&str]) -> Result<()> {
    let relay = Relay::start()?;
    echoes(
        &relay,
        include_str!("with_aioice.py"),
        server(&relay),
        transport,
    )
}

fn libnice(server: impl Fn(&Relay) -> SocketAddr, transport: &str) -> Result<()> {
    let relay = Relay::start()?;
    let script = include_str!("with_libnice.py");
    echoes(&relay, script, server(&relay), &[transport])
}

#[test]
fn aioice_over_udp() -> Result<()> {
    aioice(|relay| relay.listen[0], &["udp", "no"])
}

#[test]
fn aioice_over_udp_and_ipv6() -> Result<()> {
    // Its allocation is of IPv4: it asks for no other.
    aioice(|relay| relay.listen[1], &["udp", "no"])
}

#[test]
fn aioice_over_tcp() -> Result<()> {
    aioice(|relay| relay.tcp[0], &["tcp", "no"])
}

#[test]
fn aioice_over_tls() -> Result<()> {
    aioice(|relay| relay.tls[0], &["tcp", "yes"])
}

#[test]
fn libnice_relay_only_over_udp() -> Result<()> {
    libnice(|relay| relay.listen[0], "udp")
}

#[test]
fn libnice_relay_only_over_tcp() -> Result<()> {
    libnice(|relay| relay.tcp[0], "tcp")
}
