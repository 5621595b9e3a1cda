//! Clients of Debian's Python: each script makes two ends with an allocation each, and has one echo what the other says.

use crate::relay::{Relay, USER};
use anyhow::{Context as _, Result, ensure};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// Which.
#[derive(Clone, Copy, Debug)]
pub enum Script {
    Aioice,
    Libnice,
}

/// Runs a script, with Debian's Python: others do not see Debian's packages. `how` is what it takes after the address.
///
/// # Errors
/// What it said, if not all came back, through the relay.
pub fn echoes(
    relay: &Relay,
    script: Script,
    server: SocketAddr,
    how: &[&str],
    messages: u64,
) -> Result<()> {
    let script = match script {
        Script::Aioice => include_str!("with_aioice.py"),
        Script::Libnice => include_str!("with_libnice.py"),
    };
    let output = Command::new("timeout")
        .args(["80", "/usr/bin/python3", "-W", "ignore", "-c", script])
        .args([&server.ip().to_string(), &server.port().to_string()])
        .args(how)
        .args([USER.0, USER.1, &messages.to_string()])
        // Its certificate is its own authority.
        .env("SSL_CERT_FILE", relay.certificate())
        .stdin(Stdio::null())
        .output()
        .context("/usr/bin/python3")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let right = said.contains(&format!("echoed {messages}"));
    ensure!(output.status.success() && right, "{said}{complained}");
    // Each of them went through the relay, there and back.
    relay.wait_for("relayed_packets_total{direction=\"to_client\"}", |count| {
        count >= 2 * messages
    })
}
