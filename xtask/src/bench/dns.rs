//! `bench dns`: one name of the mesh, answered by dns-signal in the lab, beside unbound and dnsmasq with the same name
//! as local data, in the same network namespace, in turns; and what forwarding adds to a name outside of the mesh.
use std::fs;
use std::process::Child;

use anyhow::{Context as _, Result, ensure};
use lab::plan::UPSTREAM_DNS;
use lab::{Lab, LabOptions, ScopedLab, wait};

use super::cpu::cpu_seconds;
use crate::{build, packages, shell};

const HOST: &str = "west/app";
const OURS: &str = "orders.east.mesh.internal";
const OUTSIDE: &str = "www.example.com";
const ROUNDS: usize = 5;
const SECONDS: &str = "3";

/// A server to measure: where it listens in the host's namespace, and its process.
struct Server {
    name: &'static str,
    port: u16,
    pid: u32,
    _child: Option<Ended>,
}

/// A process of ours that ends with the benchmark.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What one run of dnsperf said.
#[derive(Clone, Copy, Debug)]
struct Run {
    per_second: f64,
    average_ms: f64,
    cpu_us: f64,
}

pub(super) fn run() -> Result<()> {
    packages::ensure_root("the benchmark")?;
    packages::ensure_installed(&[packages::FOR_LAB, packages::FOR_BENCH_DNS])?;
    let options = LabOptions {
        binaries: build::release_binaries()?,
        ..LabOptions::new("benchdns")
    };
    let lab = ScopedLab::up(&options)?;
    let queries = |name: &str| -> Result<String> {
        let path = lab.files().root().join(format!("{name}.queries"));
        fs::write(&path, format!("{name} A\n"))?;
        Ok(path.display().to_string())
    };
    let (ours, outside) = (queries(OURS)?, queries(OUTSIDE)?);
    let servers = [dns_signal(&lab)?, unbound(&lab)?, dnsmasq(&lab)?];

    shell::heading(&format!(
        "A name of the mesh, as fast as it goes; medians of {ROUNDS}"
    ));
    table(&lab, &servers, &ours, &["-c", "8", "-q", "200"])?;
    shell::heading("The same at 10 000 queries a second");
    table(&lab, &servers, &ours, &["-c", "8", "-Q", "10000"])?;
    shell::heading("A name outside of the mesh, at 1 000 queries a second");
    forwarded(&lab, &servers[0], &outside)
}

fn table(lab: &Lab, servers: &[Server], queries: &str, load: &[&str]) -> Result<()> {
    let mut runs = vec![Vec::new(); servers.len()];
    for _ in 0..ROUNDS {
        for (server, runs) in servers.iter().zip(&mut runs) {
            runs.push(dnsperf(
                lab,
                "127.0.0.1",
                server.port,
                Some(server.pid),
                queries,
                load,
            )?);
        }
    }
    let medians: Vec<Run> = runs.iter().map(|runs| median(runs)).collect();
    println!(
        "{:<12} {:>12} {:>14} {:>14} {:>8}",
        "", "queries/s", "CPU per query", "mean latency", "ratio"
    );
    for (server, run) in servers.iter().zip(&medians) {
        println!(
            "{:<12} {:>12.0} {:>11.1} us {:>11.3} ms {:>8.2}",
            server.name,
            run.per_second,
            run.cpu_us,
            run.average_ms,
            run.per_second / medians[0].per_second
        );
    }
    Ok(())
}

fn forwarded(lab: &Lab, ours: &Server, queries: &str) -> Result<()> {
    let load = ["-c", "4", "-Q", "1000"];
    let upstream = UPSTREAM_DNS.ip().to_string();
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(dnsperf(
            lab,
            &upstream,
            UPSTREAM_DNS.port(),
            None,
            queries,
            &load,
        )?);
        through.push(dnsperf(
            lab,
            "127.0.0.1",
            ours.port,
            Some(ours.pid),
            queries,
            &load,
        )?);
    }
    let (direct, through) = (median(&direct).average_ms, median(&through).average_ms);
    println!(
        "asked directly {direct:.3} ms, through dns-signal {through:.3} ms: {:.3} ms added",
        through - direct
    );
    Ok(())
}

fn median(runs: &[Run]) -> Run {
    let of = |value: fn(&Run) -> f64| {
        let mut values: Vec<f64> = runs.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Run {
        per_second: of(|run| run.per_second),
        average_ms: of(|run| run.average_ms),
        cpu_us: of(|run| run.cpu_us),
    }
}

fn dnsperf(
    lab: &Lab,
    server: &str,
    port: u16,
    pid: Option<u32>,
    queries: &str,
    load: &[&str],
) -> Result<Run> {
    let before = pid.map(cpu_seconds).transpose()?;
    let port = port.to_string();
    let common = [
        "dnsperf", "-s", server, "-p", &port, "-d", queries, "-l", SECONDS,
    ];
    let said = lab.output(HOST, &[&common[..], load].concat())?;
    let number = |label: &str| -> Result<f64> {
        let line = said
            .lines()
            .find(|line| line.trim_start().starts_with(label));
        let value = line.and_then(|line| line.split(':').nth(1)?.split_whitespace().next());
        value
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("dnsperf did not say `{label}`:\n{said}"))
    };
    let (sent, completed) = (number("Queries sent")?, number("Queries completed")?);
    ensure!(
        completed > 0.0 && completed >= sent * 0.99,
        "{completed} of {sent} queries were answered"
    );
    let cpu = match (pid, before) {
        (Some(pid), Some(before)) => cpu_seconds(pid)? - before,
        _ => 0.0,
    };
    Ok(Run {
        per_second: number("Queries per second")?,
        average_ms: number("Average Latency (s)")? * 1_000.0,
        cpu_us: cpu / completed * 1e6,
    })
}

fn dns_signal(lab: &Lab) -> Result<Server> {
    let pid = lab
        .process("west/dns-signal")?
        .running()
        .context("dns-signal does not run")?;
    Ok(Server {
        name: "dns-signal",
        port: 53,
        pid,
        _child: None,
    })
}

fn unbound(lab: &Lab) -> Result<Server> {
    let config = lab.files().root().join("unbound.conf");
    let text = format!(
        "server:\n  do-daemonize: no\n  num-threads: 1\n  interface: 127.0.0.1\n  port: 5301\n  chroot: \"\"\n  username: \"\"\n  \
         directory: \"/\"\n  pidfile: \"\"\n  use-syslog: no\n  access-control: 127.0.0.0/8 allow\n  \
         local-zone: \"mesh.internal.\" static\n  local-data: \"{OURS}. 5 IN A 198.18.0.9\"\nremote-control:\n  control-enable: no\n"
    );
    fs::write(&config, text)?;
    let config = config.display().to_string();
    rival(lab, "unbound", 5301, &["unbound", "-d", "-c", &config])
}

fn dnsmasq(lab: &Lab) -> Result<Server> {
    let address = format!("--address=/{OURS}/198.18.0.9");
    let command = [
        "dnsmasq",
        "--no-daemon",
        "--conf-file=/dev/null",
        "--port=5302",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--no-resolv",
        "--no-hosts",
        &address,
    ];
    rival(lab, "dnsmasq", 5302, &command)
}

fn rival(lab: &Lab, name: &'static str, port: u16, command: &[&str]) -> Result<Server> {
    let child = lab.spawn(HOST, command)?;
    let server = Server {
        name,
        port,
        pid: child.id(),
        _child: Some(Ended(child)),
    };
    let port = port.to_string();
    wait::until_true(
        &format!("{name} to answer"),
        std::time::Duration::from_secs(10),
        || {
            let asked = [
                "dig",
                "+short",
                "+time=1",
                "+tries=1",
                "-p",
                &port,
                "@127.0.0.1",
                OURS,
            ];
            Ok(lab
                .output(HOST, &asked)
                .is_ok_and(|answer| answer.starts_with("198.18.")))
        },
    )?;
    Ok(server)
}
