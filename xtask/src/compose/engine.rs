//! A container engine of our own: dockerd in a network, mount and process namespace that die with this program.
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::wait;

const START_DEADLINE: Duration = Duration::from_secs(60);
const REMOVE_DEADLINE: Duration = Duration::from_secs(20);
/// Where sockets are, for their paths must be short.
const RUN: &str = "/run";
const RUN_PREFIX: &str = "turnpike-compose-";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Into namespaces that end when this program does, however it ends.
const INTO_NAMESPACES: [&str; 10] = [
    "--pdeathsig",
    "KILL",
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "--kill-child",
    "sh",
];

/// The first process of the namespace. dockerd finds no containerd of the machine's, so it starts its own; it has no
/// default bridge, and nothing but loopback: what containers need is in the image.
const FIRST: &str = r#"
set -e
mkdir -p /run/containerd
mount -t tmpfs tmpfs /run/containerd
ip link set lo up
dockerd --data-root "$1" --exec-root /run/containerd/docker --pidfile /run/containerd/docker.pid \
    --host "unix://$2" --bridge none --cgroup-parent "$3" &
wait $!
"#;

/// A running dockerd; everything of it is gone when this is dropped.
#[derive(Debug)]
pub(super) struct Engine {
    process: Child,
    run: PathBuf,
    data: PathBuf,
    cgroup: String,
    log: PathBuf,
}

/// Whether this machine lets us do at all what an engine does.
///
/// # Errors
/// What it refuses.
pub(super) fn probe() -> Result<()> {
    // A bridge with a cable, a packet filter, and a mount: what containers are made of.
    let what = "mount -t tmpfs tmpfs /mnt && ip link add name bridge0 type bridge && \
                ip link add veth0 type veth peer name veth1 && nft add table inet probe";
    let output = Command::new("setpriv")
        .args(INTO_NAMESPACES)
        .args(["-c", what])
        .stdin(Stdio::null())
        .output()
        .context("running unshare")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "this machine does not let us make namespaces, bridges and mounts: {}",
        said.lines().last().unwrap_or("unshare failed").trim()
    );
    ensure!(
        Path::new("/dev/net/tun").exists(),
        "this machine has no /dev/net/tun"
    );
    Ok(())
}

impl Engine {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer, with its last words.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        remove_leftovers()?;
        let name = format!("{RUN_PREFIX}{}", std::process::id());
        let run = Path::new(RUN).join(&name);
        let data = directory.join("engine");
        // Whatever a run that was killed left there.
        remove_directory(&data)?;
        for made in [&run, &data] {
            fs::create_dir_all(made).with_context(|| format!("making {}", made.display()))?;
        }
        let log = directory.join("dockerd.log");
        let out = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        let process = Command::new("setpriv")
            .args(INTO_NAMESPACES)
            .args(["-c", FIRST, "dockerd"])
            .args([&data, &run.join("docker.sock")])
            .arg(format!("/{name}"))
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("the log, twice")?)
            .stderr(out)
            .spawn()
            .context("starting dockerd")?;
        let mut engine = Self {
            process,
            run,
            data,
            cgroup: name,
            log,
        };
        engine.wait_ready()?;
        Ok(engine)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let mut ended = false;
        let waited = wait::until_true("dockerd to answer", START_DEADLINE, || {
            ended = self.process.try_wait().context("waiting")?.is_some();
            let asked = self.docker().args(["version"]).output();
            Ok(ended || asked.context("running docker")?.status.success())
        });
        if waited.is_ok() && !ended {
            return Ok(());
        }
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(3)..].join("; ");
        let log = self.log.display();
        bail!("dockerd did not get ready; the end of {log}: {last}")
    }

    /// `docker`, speaking to this engine and to no other.
    pub(super) fn docker(&self) -> Command {
        self.client("docker")
    }

    /// The network that is the machine's to this engine: where published ports are.
    pub(super) fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.process.id()).into()
    }

    /// `docker-compose`, likewise.
    pub(super) fn docker_compose(&self) -> Command {
        self.client("docker-compose")
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let socket = self.run.join("docker.sock");
        command
            .env("DOCKER_HOST", format!("unix://{}", socket.display()))
            .env("DOCKER_CONFIG", &self.run)
            .env_remove("DOCKER_CONTEXT")
            .env_remove("COMPOSE_FILE")
            .env_remove("COMPOSE_PROFILES")
            .env_remove("COMPOSE_PROJECT_NAME")
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // With the first process of a process namespace all others end; with them the mounts, bridges and rules.
        let _ = self.process.kill();
        let _ = self.process.wait();
        for gone in [&self.run, &self.data] {
            if let Err(error) = remove_directory(gone) {
                eprintln!("error: {error:#}");
            }
        }
        remove_cgroups(&self.cgroup);
    }
}

/// Sockets and control groups of runs that were killed.
fn remove_leftovers() -> Result<()> {
    for entry in fs::read_dir(RUN).context("reading /run")? {
        let name = entry.context("reading /run")?.file_name();
        let name = name.to_string_lossy();
        let Some(pid) = name.strip_prefix(RUN_PREFIX) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            remove_directory(&Path::new(RUN).join(&*name))?;
            remove_cgroups(&name);
        }
    }
    Ok(())
}

/// The processes in there are being killed: their files may be held for a moment.
fn remove_directory(path: &Path) -> Result<()> {
    let what = format!("{} to be gone", path.display());
    wait::until_true(&what, REMOVE_DEADLINE, || match fs::remove_dir_all(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).context("removing it"),
    })
}

/// The group of that name in every hierarchy, with those in it. A group cannot be removed while there is a process in
/// it, so what cannot be removed is not ours.
fn remove_cgroups(name: &str) {
    let mut groups = vec![Path::new(CGROUPS).join(name)];
    let hierarchies = fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    groups.extend(hierarchies.map(|hierarchy| hierarchy.path().join(name)));
    for group in groups {
        remove_cgroup(&group);
    }
}

fn remove_cgroup(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}
