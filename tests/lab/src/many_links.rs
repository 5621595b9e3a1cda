//! Many links to one activator: `link-load` in the host of west's workload calls east's service.
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::lab::Lab;
use crate::plan::{self, Network, Segment};

/// The activator that is called.
const ACTIVATOR: &str = "east/activator";

/// Milliseconds until something, on so many links.
#[derive(Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Times {
    pub count: u32,
    pub median_ms: u64,
    pub p99_ms: u64,
    pub last_ms: u64,
}

/// Kibibytes that a process keeps for itself.
#[derive(Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Memory {
    pub before_kib: u64,
    pub idle_kib: u64,
    pub per_link_kib: f64,
}

/// What `link-load` prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// That were called for.
    pub links: u32,
    /// Until every node had a connection to discovery and knew the activator.
    pub joined_ms: u64,
    /// From the call for all links at once to each being open.
    pub opening: Times,
    /// The first packet on each, there and back.
    pub first_echo: Times,
    /// Links that were open after they had stood idle.
    pub open_after_idle: u32,
    /// The packet on each after that.
    pub second_echo: Times,
    /// Packets that nothing came back for within a second.
    pub packets_sent_again: u32,
    /// Offers that came to nothing and were made again, by reason.
    pub offers_failed: std::collections::BTreeMap<String, u32>,
    /// Open links that ended, by reason.
    pub links_ended: std::collections::BTreeMap<String, u32>,
    /// Of the activator.
    pub activator: Memory,
    /// Of discovery.
    pub discovery: Memory,
}

/// Opens `links` links at once, within `open_within` at most, and lets them stand idle for `hold`.
///
/// # Errors
/// When the nodes cannot come to discovery. Links that do not open are in the outcome.
pub fn run(lab: &Lab, links: u32, open_within: Duration, hold: Duration) -> Result<Outcome> {
    let program = lab.binaries().join("link-load").display().to_string();
    let pid = |process: &str| {
        let pid = lab.process(process)?.running();
        pid.map(|pid| pid.to_string())
            .with_context(|| format!("{process} does not run"))
    };
    let (address, _) = Segment::Inside(Network::West).addresses(10);
    let mut command = lab.command("west/app", &program)?;
    command
        .args(["--links", &links.to_string()])
        .args(["--discovery", &format!("https://{}", plan::DISCOVERY)])
        .arg("--mesh-directory")
        .arg(lab.files().mesh())
        .args(["--network", Network::West.name()])
        .args(["--address", &address.to_string()])
        .args(["--to", Network::East.name()])
        .args(["--service", Network::East.service()])
        .args(["--port", &plan::UDP_ECHO_PORT.to_string()])
        .args(["--open-within", &open_within.as_secs().to_string()])
        .args(["--hold", &hold.as_secs().to_string()])
        .args(["--activator", &pid(ACTIVATOR)?])
        .args(["--discovery-process", &pid("discovery")?]);
    let output = command.output().context("running link-load")?;
    let (said, complaint) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&said).with_context(|| format!("link-load: {complaint}"))
}
