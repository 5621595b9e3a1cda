//! aioice (Python, written from the RFCs) and libnice (C, of GStreamer and many others) as Debian ships them, against the
//! real binary: two ends with an allocation each, and nothing between them but the relay.

use anyhow::Result;
use interop::python::{Script, echoes};
use interop::relay::Relay;
use std::net::SocketAddr;
use turnpike_interop as interop;

const MESSAGES: u64 = 50;

fn aioice(server: impl Fn(&Relay) -> SocketAddr, transport: &[&str]) -> Result<()> {
    let relay = Relay::start()?;
    let server = server(&relay);
    echoes(&relay, Script::Aioice, server, transport, MESSAGES)
}

fn libnice(server: impl Fn(&Relay) -> SocketAddr, transport: &str) -> Result<()> {
    let relay = Relay::start()?;
    let server = server(&relay);
    echoes(&relay, Script::Libnice, server, &[transport], MESSAGES)
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
