//! What the console draws, as it is in JSON. No secret is in it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::verdict::Finding;

/// Everything.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Picture {
    pub(crate) mesh: String,
    pub(crate) version: &'static str,
    pub(crate) revision: u64,
    /// Discovery's clock, seconds since 1970.
    pub(crate) time: u64,
    pub(crate) networks: Vec<Network>,
    pub(crate) services: Vec<Service>,
    pub(crate) links: Vec<Link>,
    /// As the activators count them.
    pub(crate) links_in_all: usize,
    /// What is there and is not drawn.
    pub(crate) left_out: usize,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Network {
    pub(crate) name: String,
    pub(crate) relays: Vec<Relay>,
    pub(crate) activators: Vec<Activator>,
    /// Enrolled, with a certificate that has not ended.
    pub(crate) workloads: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct Relay {
    pub(crate) name: String,
    pub(crate) urls: Vec<String>,
    /// Activators that hold an allocation there, and those that do not get one.
    pub(crate) holders: usize,
    pub(crate) troubled: usize,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Activator {
    /// `network/activator/name`.
    pub(crate) node: String,
    pub(crate) instance: String,
    pub(crate) certificate: String,
    pub(crate) certificate_ends: u64,
    /// Left of its lease.
    pub(crate) lease_seconds: f64,
    pub(crate) footholds: Vec<Foothold>,
    pub(crate) troubles: Vec<Trouble>,
    pub(crate) links: usize,
    /// Absent: it does not report, or has not yet.
    pub(crate) reported_seconds_ago: Option<f64>,
    /// Why its registration is not believed.
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Foothold {
    pub(crate) relay: String,
    pub(crate) network: String,
    pub(crate) addresses: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Trouble {
    pub(crate) relay: String,
    pub(crate) network: String,
    pub(crate) what: &'static str,
    pub(crate) remedy: &'static str,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct Service {
    pub(crate) network: String,
    pub(crate) name: String,
    pub(crate) exporters: Vec<Exporter>,
    pub(crate) ipv4: bool,
    pub(crate) ipv6: bool,
    pub(crate) tcp: BTreeSet<u32>,
    pub(crate) udp: BTreeSet<u32>,
    /// The worst first.
    pub(crate) findings: Vec<Finding>,
}

/// An activator that exports a service, and to whom.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Exporter {
    pub(crate) activator: String,
    /// Absent: it has not reported.
    pub(crate) everyone: Option<bool>,
    pub(crate) allow: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Link {
    pub(crate) activator: String,
    pub(crate) peer: String,
    /// The activator's number for it.
    pub(crate) link: u64,
    pub(crate) open: bool,
    pub(crate) path: String,
    pub(crate) carrier: String,
    pub(crate) rtt_ms: Option<f64>,
    /// Bytes a second from the service's network, and to it.
    pub(crate) sent_rate: f64,
    pub(crate) received_rate: f64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}
