//! `turnutils_natdiscovery`, coturn's client for RFC 5780, as Debian ships it, against a relay with two addresses.

use anyhow::{Context as _, Result, ensure};
use lab::wait;
use std::fs::File;
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use turnpike_interop as interop;

struct Relay {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free on both addresses a moment ago.
fn free() -> Result<u16> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let port = socket.local_addr()?.port();
    UdpSocket::bind(("127.0.0.2", port))?;
    Ok(port)
}

fn start() -> Result<Relay> {
    let directory = tempfile::tempdir()?;
    let (port, other) = (free()?, free()?);
    let config = directory.path().join("turn-relay.toml");
    let text = format!(
        "listen = [\"udp://127.0.0.1:{port}\"]\nalternate-addresses = [\"127.0.0.2:{other}\"]\n"
    );
    std::fs::write(&config, text)?;
    let log = directory.path().join("log");
    let child = Command::new(interop::binaries().join("turn-relay"))
        .arg("--config")
        .arg(&config)
        .args(["--user", "alice:wonderland"])
        .stdin(Stdio::null())
        .stderr(File::create(&log)?)
        .spawn()?;
    let relay = Relay {
        child,
        port,
        _directory: directory,
    };
    wait::until_true("the relay", Duration::from_secs(10), || {
        Ok(std::fs::read_to_string(&log)?.contains("relaying"))
    })?;
    Ok(relay)
}

fn discovers(flags: &[&str], expected: &[&str]) -> Result<()> {
    let relay = start()?;
    let output = Command::new("timeout")
        .args(["60", "turnutils_natdiscovery"])
        .args(flags)
        .args(["-p", &relay.port.to_string()])
        .args(["-L", "127.0.0.1", "127.0.0.1"])
        .output()
        .context("turnutils_natdiscovery, of Debian's package coturn")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}: {text}", output.status);
    for part in expected {
        ensure!(text.contains(part), "no {part:?} in: {text}");
    }
    Ok(())
}

#[test]
fn it_finds_how_a_nat_maps() -> Result<()> {
    let expected = [
        "No ALG: Mapped == XOR-Mapped",
        "Endpoint Independent Mapping!",
    ];
    discovers(&["-m"], &expected)
}

#[test]
fn it_finds_how_a_nat_filters() -> Result<()> {
    discovers(&["-f"], &["Endpoint Independent Filtering!"])
}

#[test]
fn it_does_so_with_padding() -> Result<()> {
    discovers(&["-m", "-P"], &["Endpoint Independent Mapping!"])
}
