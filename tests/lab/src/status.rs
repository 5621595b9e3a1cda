//! What `lab status` says.
use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use crate::nat::NatKind;

/// A lab at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// The lab's name.
    pub name: String,
    /// What its routers do.
    pub nat: NatKind,
    /// All hosts, the public ones first.
    pub hosts: Vec<HostStatus>,
}

/// A host and what runs there.
#[derive(Debug, Clone, Serialize)]
pub struct HostStatus {
    /// `west/app`.
    pub name: String,
    /// Its network namespace.
    pub namespace: String,
    /// Whether the namespace exists.
    pub up: bool,
    /// All its addresses.
    pub addresses: Vec<IpAddr>,
    /// What runs there, or should.
    pub processes: Vec<ProcessStatus>,
}

/// A process of a host.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStatus {
    /// `west/relay`.
    pub name: String,
    /// Absent when it does not run.
    pub pid: Option<u32>,
    /// Whether it runs.
    pub alive: bool,
    /// Where its output goes.
    pub log: String,
}

impl Status {
    /// Whether everything that should run runs.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.hosts
            .iter()
            .all(|host| host.up && host.processes.iter().all(|process| process.alive))
    }

    /// For people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("lab {}, NAT {}\n", self.name, self.nat);
        for host in &self.hosts {
            let addresses: Vec<_> = host.addresses.iter().map(IpAddr::to_string).collect();
            let down = if host.up { "" } else { "  (down)" };
            let _ = writeln!(text, "{:16} {}{down}", host.name, addresses.join(" "));
            for process in &host.processes {
                let state = process
                    .pid
                    .map_or("ended".to_owned(), |pid| format!("pid {pid}"));
                let _ = writeln!(text, "    {:18} {state:12} {}", process.name, process.log);
            }
        }
        text
    }
}
