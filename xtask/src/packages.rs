//! The system's own tools that demo and tests use: what is missing is installed.
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell;

/// A tool, or a file by its path, and the Debian package it comes in.
type Tool = (&'static str, &'static str);

/// What the lab and the demo need.
pub(crate) const FOR_LAB: &[Tool] = &[
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("dnsmasq", "dnsmasq-base"),
    ("curl", "curl"),
    ("ping", "iputils-ping"),
];

/// What the tests need beyond that.
pub(crate) const FOR_TESTS: &[Tool] = &[
    ("dig", "bind9-dnsutils"),
    // Clients of the DNS cases, and their upstream.
    ("go", "golang-go"),
    ("musl-gcc", "musl-tools"),
    ("node", "nodejs"),
    ("/usr/bin/python3", "python3-minimal"),
    ("unbound", "unbound"),
    ("tcpdump", "tcpdump"),
    ("ethtool", "ethtool"),
    ("faketime", "faketime"),
    ("dbus-daemon", "dbus-daemon"),
    (
        "/usr/share/doc/libsystemd-shared/copyright",
        "libsystemd-shared",
    ),
    ("turnutils_uclient", "coturn"),
    ("chromium", "chromium"),
    // Pods, and what says whether manifests are right.
    ("podman", "podman"),
    ("catatonit", "catatonit"),
    ("runc", "runc"),
    ("/usr/share/doc/python3-venv/copyright", "python3-venv"),
    // Libraries, by a file that is theirs.
    (
        "/usr/lib/python3/dist-packages/aioice/turn.py",
        "python3-aioice",
    ),
    (
        "/usr/lib/python3/dist-packages/gi/__init__.py",
        "python3-gi",
    ),
    (
        "/usr/share/doc/gir1.2-nice-0.1/copyright",
        "gir1.2-nice-0.1",
    ),
];

/// What `test --compose` needs: an engine, and what makes its base image.
pub(crate) const FOR_COMPOSE: &[Tool] = &[
    ("dockerd", "docker.io"),
    ("docker", "docker.io"),
    ("docker-compose", "docker-compose"),
    ("debootstrap", "debootstrap"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("chromium", "chromium"),
];

/// What `bench dns` needs beyond the lab: rivals and the load.
pub(crate) const FOR_BENCH_DNS: &[Tool] = &[
    ("dnsperf", "dnsperf"),
    ("unbound", "unbound"),
    ("dig", "bind9-dnsutils"),
    ("taskset", "util-linux"),
];

/// What `bench relay` needs: a rival, and what puts everyone in their place.
pub(crate) const FOR_BENCH_RELAY: &[Tool] = &[
    ("turnserver", "coturn"),
    ("taskset", "util-linux"),
    ("setpriv", "util-linux"),
];

/// What `bench tunnel` needs beyond the lab: rivals, their configuration, and the load.
pub(crate) const FOR_BENCH_TUNNEL: &[Tool] = &[
    ("iperf3", "iperf3"),
    ("nebula", "nebula"),
    ("wireguard-go", "wireguard-go"),
    ("wg", "wireguard-tools"),
    ("turnserver", "coturn"),
    ("ethtool", "ethtool"),
];

/// Installs what is missing; without the right to, an error with the one command that does.
pub(crate) fn ensure_installed(tools: &[&[Tool]]) -> Result<()> {
    let missing: Vec<&str> = tools
        .iter()
        .copied()
        .flatten()
        .filter(|(program, _)| !is_on_path(program))
        .map(|&(_, package)| package)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!(
        "apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
    ensure!(
        is_on_path("apt-get"),
        "please install what Debian calls {}",
        missing.join(", ")
    );
    ensure!(
        is_root()?,
        "these tools are missing; as root, run: {install}"
    );
    shell::heading(&format!("Installing {}", missing.join(", ")));
    // The lists of a fresh machine are empty, and those of an old one name versions that are gone.
    apt(&["update", "-q"])?;
    let quiet = NoServices::new();
    let install = ["install", "-q", "-y", "--no-install-recommends"];
    let installed = apt(&[&install, &missing[..]].concat());
    drop(quiet);
    installed?;
    for (program, package) in tools.iter().copied().flatten() {
        ensure!(
            is_on_path(program),
            "{package} is installed, but there is no {program}"
        );
    }
    Ok(())
}

/// An error unless this is root.
pub(crate) fn ensure_root(what: &str) -> Result<()> {
    if !is_root()? {
        bail!(
            "{what} makes network namespaces, which takes root: sudo --preserve-env=PATH cargo xtask ..."
        );
    }
    Ok(())
}

/// While it lives, packages that are installed do not start their services (`policy-rc.d`, as invoke-rc.d(8) says): of
/// coturn, only the clients are wanted.
struct NoServices {
    ours: bool,
}

impl NoServices {
    const POLICY: &str = "/usr/sbin/policy-rc.d";

    fn new() -> Self {
        let mut options = fs::OpenOptions::new();
        // Where there is one already, someone else has decided.
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(Self::POLICY);
        let written = file.and_then(|mut file| file.write_all(b"#!/bin/sh\nexit 101\n"));
        Self {
            ours: written.is_ok(),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(Self::POLICY);
        }
    }
}

fn apt(args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    shell::run(&mut command)
}

fn is_root() -> Result<bool> {
    let status = fs::read_to_string("/proc/self/status").context("reading /proc/self")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .context("no Uid line")?;
    // Real, effective, saved, file system.
    Ok(line.split_whitespace().nth(2) == Some("0"))
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(|directory| Path::new(directory).to_owned());
    env::split_paths(&path)
        .chain(system)
        .any(|directory| directory.join(program).is_file())
}
