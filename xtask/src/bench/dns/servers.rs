//! Who is measured: dns-signal of a lab's sidecar, and unbound and dnsmasq beside it in the same network namespace. All
//! three know the same name themselves, and forward the rest to the same upstream without keeping its answers.
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{LabOptions, Network, ScopedLab, wait};

const HOST: &str = "west/app";
const SIDECAR: &str = "west/dns-signal";
const NAME: &str = "orders.east.mesh.internal";
/// Everything below it is known to the upstream. Not `.test`: unbound keeps that to itself.
const OUTSIDE: &str = "bench.example.com";
/// Names outside that are asked for: more than one run asks.
const NAMES: u32 = 300_000;
const STARTS_WITHIN: Duration = Duration::from_secs(15);

pub(super) const OURS: &str = "dns-signal";
pub(super) const RIVALS: [&str; 2] = ["unbound", "dnsmasq"];
/// What all three forward to, asked directly.
pub(super) const UPSTREAM: &str = "upstream";
const UPSTREAM_PORT: u16 = 5_303;

/// A server: where it listens on the host's loopback, and its process.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) port: u16,
    pub(super) pid: u32,
    _child: Option<Ended>,
}

/// A process of ours that ends with the benchmark.
#[derive(Debug)]
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Everyone, and what is asked.
#[derive(Debug)]
pub(super) struct Field {
    servers: Vec<Server>,
    upstream: Server,
    ours: String,
    outside: String,
    lab: ScopedLab,
}

impl Field {
    /// Brings the lab and the rivals up, and waits until all of them answer both kinds of names.
    pub(super) fn up(binaries: PathBuf, server_core: usize, load_core: usize) -> Result<Self> {
        let options = LabOptions {
            binaries,
            ..LabOptions::new("benchdns")
        };
        let lab = ScopedLab::up(&options)?;
        let upstream = upstream(&lab, load_core)?;
        let servers = vec![
            dns_signal(&lab, server_core)?,
            unbound(&lab, server_core)?,
            dnsmasq(&lab, server_core)?,
        ];
        for server in &servers {
            wait_for(&lab, server, NAME, "198.18.")?;
            wait_for(&lab, server, &format!("first.{OUTSIDE}"), "192.0.2.")?;
        }
        let write = |name: &str, lines: String| -> Result<String> {
            let path = lab.files().root().join(name);
            fs::write(&path, lines)?;
            Ok(path.display().to_string())
        };
        let outside = (0..NAMES).map(|n| format!("n{n}.{OUTSIDE} A\n"));
        Ok(Self {
            ours: write("ours.queries", format!("{NAME} A\n"))?,
            outside: write("outside.queries", outside.collect())?,
            servers,
            upstream,
            lab,
        })
    }

    /// Those that are measured, in the order in which they take turns.
    pub(super) fn servers(&self) -> &[Server] {
        &self.servers
    }

    pub(super) fn upstream(&self) -> &Server {
        &self.upstream
    }

    /// The file with the name that all of them answer themselves.
    pub(super) fn ours(&self) -> &str {
        &self.ours
    }

    /// The file with names that they forward.
    pub(super) fn outside(&self) -> &str {
        &self.outside
    }

    /// What a command prints in the host where all of them are.
    pub(super) fn output(&self, command: &[&str]) -> Result<String> {
        self.lab.output(HOST, command)
    }
}

fn dns_signal(lab: &ScopedLab, core: usize) -> Result<Server> {
    lab.edit_config(SIDECAR, |text| {
        let lines = text.lines().map(|line| {
            if line.starts_with("upstreams") {
                format!("upstreams = [\"127.0.0.1:{UPSTREAM_PORT}\"]\n")
            } else {
                format!("{line}\n")
            }
        });
        lines.collect()
    })?;
    lab.stop(SIDECAR)?;
    lab.start(SIDECAR)?;
    lab.wait_for_name(Network::West, NAME, STARTS_WITHIN)?;
    let pid = lab
        .process(SIDECAR)?
        .running()
        .context("dns-signal does not run")?;
    // All threads it has; those to come are where the one is that starts them.
    let core = core.to_string();
    lab.output(
        HOST,
        &["taskset", "-a", "-p", "-c", &core, &pid.to_string()],
    )?;
    Ok(Server {
        name: OURS,
        port: 53,
        pid,
        _child: None,
    })
}

fn unbound(lab: &ScopedLab, core: usize) -> Result<Server> {
    let config = lab.files().root().join("unbound.conf");
    let text = format!(
        "server:\n  do-daemonize: no\n  num-threads: 1\n  interface: 127.0.0.1\n  port: 5301\n  chroot: \"\"\n  username: \"\"\n  \
         directory: \"/\"\n  pidfile: \"\"\n  use-syslog: no\n  access-control: 127.0.0.0/8 allow\n  \
         module-config: \"iterator\"\n  do-not-query-localhost: no\n  cache-max-ttl: 0\n  cache-max-negative-ttl: 0\n  \
         local-zone: \"mesh.internal.\" static\n  local-data: \"{NAME}. 5 IN A 198.18.0.9\"\n\
         remote-control:\n  control-enable: no\n\
         forward-zone:\n  name: \".\"\n  forward-addr: 127.0.0.1@{UPSTREAM_PORT}\n"
    );
    fs::write(&config, text)?;
    let config = config.display().to_string();
    start(
        lab,
        RIVALS[0],
        5301,
        core,
        &["unbound", "-d", "-c", &config],
    )
}

fn dnsmasq(lab: &ScopedLab, core: usize) -> Result<Server> {
    let address = format!("--address=/{NAME}/198.18.0.9");
    let upstream = format!("--server=127.0.0.1#{UPSTREAM_PORT}");
    let own = [address.as_str(), &upstream, "--local-ttl=5"];
    start(lab, RIVALS[1], 5302, core, &[&DNSMASQ, &own[..]].concat())
}

/// Knows every name outside, and is quick about it. Its answers are for at once only.
fn upstream(lab: &ScopedLab, core: usize) -> Result<Server> {
    let address = format!("--address=/{OUTSIDE}/192.0.2.7");
    let server = start(
        lab,
        UPSTREAM,
        UPSTREAM_PORT,
        core,
        &[&DNSMASQ, &[&*address][..]].concat(),
    )?;
    wait_for(lab, &server, &format!("first.{OUTSIDE}"), "192.0.2.")?;
    Ok(server)
}

/// The same for both: nothing read, nothing kept, as many under way as there are.
const DNSMASQ: [&str; 9] = [
    "dnsmasq",
    "--no-daemon",
    "--conf-file=/dev/null",
    "--listen-address=127.0.0.1",
    "--bind-interfaces",
    "--no-resolv",
    "--no-hosts",
    "--cache-size=0",
    "--dns-forward-max=1000",
];

fn start(
    lab: &ScopedLab,
    name: &'static str,
    port: u16,
    core: usize,
    command: &[&str],
) -> Result<Server> {
    let core = core.to_string();
    let own_port = format!("--port={port}");
    let mut all = vec!["taskset", "-c", &core];
    all.extend(command);
    // unbound has its own in the file.
    if command.first() == DNSMASQ.first() {
        all.push(&own_port);
    }
    let child = lab.spawn(HOST, &all)?;
    Ok(Server {
        name,
        port,
        pid: child.id(),
        _child: Some(Ended(child)),
    })
}

fn wait_for(lab: &ScopedLab, server: &Server, name: &str, begins: &str) -> Result<()> {
    let port = server.port.to_string();
    let asked = [
        "dig",
        "+short",
        "+time=1",
        "+tries=1",
        "-p",
        &port,
        "@127.0.0.1",
        name,
    ];
    wait::until_true(
        &format!("{} to answer {name}", server.name),
        STARTS_WITHIN,
        || {
            Ok(lab
                .output(HOST, &asked)
                .is_ok_and(|answer| answer.starts_with(begins)))
        },
    )
}
