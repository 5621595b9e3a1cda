//! The processes of a lab: which there are, starting and ending each by itself.
use std::fs::{self, OpenOptions};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::mesh;
use crate::netns;
use crate::plan::{self, Network};
use crate::{probe, wait};

const STOP_DEADLINE: Duration = Duration::from_secs(10);
const KILL_DEADLINE: Duration = Duration::from_secs(5);
const LOG_LINES_SHOWN: usize = 12;

/// Where a lab keeps its files.
#[derive(Debug, Clone)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Below this, one directory per lab.
    pub const PARENT: &str = "/run/turnpike-lab";

    /// The files of a lab, whether they exist or not.
    #[must_use]
    pub fn of(lab: &str) -> Self {
        Self {
            root: Path::new(Self::PARENT).join(lab),
        }
    }

    /// The lab's own directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `turnpike init` made.
    #[must_use]
    pub fn mesh(&self) -> PathBuf {
        self.root.join("mesh")
    }

    /// A file in which the lab keeps something for `process`: `west/relay` and `toml` give `west-relay.toml`.
    #[must_use]
    pub fn of_process(&self, process: &str, kind: FileKind) -> PathBuf {
        let stem = process.replace('/', "-");
        match kind {
            FileKind::Config => self.root.join("config").join(stem + ".toml"),
            FileKind::Log => self.root.join("log").join(stem + ".log"),
            FileKind::Pid => self.root.join("pid").join(stem + ".pid"),
            FileKind::State => self.root.join("state").join(stem),
            FileKind::Token => self.root.join("token").join(stem),
        }
    }

    /// Makes the directories.
    pub fn create(&self) -> Result<()> {
        for directory in ["config", "log", "pid", "state", "token"] {
            let path = self.root.join(directory);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(())
    }
}

/// What a file of a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// TOML.
    Config,
    /// Standard output and standard error of all its runs.
    Log,
    /// Decimal.
    Pid,
    /// A directory.
    State,
    /// A join token.
    Token,
}

/// How one knows that a process is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// `/readyz` on this port of loopback says 200.
    Admin(u16),
    /// This address accepts TCP connections.
    Accepts(SocketAddr),
}

/// One process of the picture.
#[derive(Debug, Clone)]
pub struct Process {
    /// `west/relay`.
    pub name: String,
    /// The host whose namespace it runs in.
    pub host: String,
    program: PathBuf,
    args: Vec<String>,
    ready: Ready,
}

impl Process {
    /// Says which program is missing before anything is built.
    pub fn check_program(&self) -> Result<()> {
        let own = self.program.is_absolute();
        ensure!(
            !own || self.program.is_file(),
            "there is no {}: build it first, or name the directory with --bin-dir or TURNPIKE_BIN_DIR",
            self.program.display()
        );
        Ok(())
    }

    /// The port of its admin server, on loopback.
    #[must_use]
    pub const fn admin(&self) -> Option<SocketAddr> {
        match self.ready {
            Ready::Admin(port) => Some(loopback(port)),
            Ready::Accepts(_) => None,
        }
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// All processes of these networks, in the order in which they start: a process needs only those before it. With `mesh` false, only
/// what stands outside of it: the example services and the DNS server. With `spares`, each network has a second relay and
/// a second activator.
#[must_use]
pub fn all(
    files: &Files,
    binaries: &Path,
    networks: &[Network],
    mesh: bool,
    spares: bool,
) -> Vec<Process> {
    let service = |name: String| Process {
        host: name
            .split_once("/web")
            .map_or(name.as_str(), |(host, _)| host)
            .to_owned(),
        program: binaries.join("lab-service"),
        args: vec!["serve".to_owned(), "--name".to_owned(), name.clone()],
        name,
        ready: Ready::Accepts(loopback(plan::HTTP_PORT)),
    };
    let mut processes = vec![Process {
        name: "upstream/dns".to_owned(),
        host: "upstream".to_owned(),
        program: PathBuf::from("dnsmasq"),
        args: mesh::dnsmasq_arguments(),
        ready: Ready::Accepts(plan::UPSTREAM_DNS),
    }];
    processes.push(service("upstream/web".to_owned()));
    let services = networks.iter();
    processes.extend(services.map(|network| service(format!("{network}/{}", network.service()))));
    if !mesh {
        return processes;
    }
    let configured = |name: String, host: String, program: &str, port| {
        let config = files
            .of_process(&name, FileKind::Config)
            .display()
            .to_string();
        let args = vec!["--config".to_owned(), config];
        Process {
            name,
            host,
            program: binaries.join(program),
            args,
            ready: Ready::Admin(port),
        }
    };
    let name = "discovery".to_owned();
    processes.push(configured(
        name.clone(),
        name,
        "discovery",
        plan::DISCOVERY_ADMIN_PORT,
    ));
    for (role, program, host, port) in [
        ("relay", "turn-relay", "relay", plan::RELAY_ADMIN_PORT),
        ("relay2", "turn-relay", "relay2", plan::RELAY_ADMIN_PORT),
        (
            "activator",
            "activator",
            "activator",
            plan::ACTIVATOR_ADMIN_PORT,
        ),
        (
            "activator2",
            "activator",
            "activator2",
            plan::ACTIVATOR_ADMIN_PORT,
        ),
        (
            "dns-signal",
            "dns-signal",
            "app",
            plan::DNS_SIGNAL_ADMIN_PORT,
        ),
    ] {
        if role.ends_with('2') && !spares {
            continue;
        }
        processes.extend(networks.iter().map(|network| {
            configured(
                format!("{network}/{role}"),
                format!("{network}/{host}"),
                program,
                port,
            )
        }));
    }
    processes
}

/// The running side of [`Process`]: its process id, kept in a file, and its namespace, which must agree.
#[derive(Debug)]
pub struct Handle<'a> {
    /// The lab's name.
    pub lab: &'a str,
    /// The lab's files.
    pub files: &'a Files,
    /// Which process.
    pub process: &'a Process,
}

impl Handle<'_> {
    fn namespace(&self) -> String {
        netns::name(self.lab, &self.process.host)
    }

    fn log(&self) -> PathBuf {
        self.files.of_process(&self.process.name, FileKind::Log)
    }

    /// Its process id when it runs. A stale file, whose number now belongs to something else, is not believed: the
    /// process must be in the host's namespace.
    #[must_use]
    pub fn running(&self) -> Option<u32> {
        let file = self.files.of_process(&self.process.name, FileKind::Pid);
        let pid = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        let namespace = netns::identity(&self.namespace())?;
        (netns::of_process(pid) == Some(namespace)).then_some(pid)
    }

    /// Whether it was started and is gone. Between the start and its entering the namespace it is neither running
    /// nor gone.
    fn has_ended(&self) -> bool {
        let file = self.files.of_process(&self.process.name, FileKind::Pid);
        let pid = fs::read_to_string(file)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        pid.is_some_and(|pid: u32| netns::of_process(pid).is_none())
    }

    /// Starts it and returns at once; see [`Self::wait_ready`].
    pub fn start(&self) -> Result<()> {
        let process = self.process;
        ensure!(self.running().is_none(), "{} runs already", process.name);
        let pid_file = self.files.of_process(&process.name, FileKind::Pid);
        let _ = fs::remove_file(&pid_file);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .with_context(|| format!("opening {}", self.log().display()))?;
        // The shell writes the number before anything else runs, so that no crash leaves a process nobody knows of.
        let mut child = Command::new("sh")
            .args(["-c", r#"echo $$ > "$0"; exec "$@""#])
            .arg(pid_file)
            .args(["ip", "netns", "exec", &self.namespace()])
            .arg(&process.program)
            .args(&process.args)
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("the log, twice")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", process.name))?;
        // Reaps it when it ends, so that it does not stay behind as a zombie of this process.
        thread::spawn(move || child.wait());
        Ok(())
    }

    /// Waits until it is ready; when it ends instead, or does not become ready, the error ends with its last words.
    pub fn wait_ready(&self, within: Duration) -> Result<()> {
        let name = &self.process.name;
        let waited = wait::until(&format!("{name} to be ready"), within, || {
            if self.has_ended() {
                return Ok(Some(false));
            }
            Ok(self.is_ready()?.then_some(true))
        });
        match waited {
            Ok(true) => Ok(()),
            Ok(false) => bail!(
                "{name} ended instead of getting ready; {}",
                self.last_words()
            ),
            Err(error) => bail!("{error:#}; {}", self.last_words()),
        }
    }

    fn is_ready(&self) -> Result<bool> {
        let namespace = self.namespace();
        match self.process.ready {
            Ready::Accepts(server) => probe::tcp_accepts(&namespace, server),
            Ready::Admin(port) => {
                let (status, body) = probe::http_get(&namespace, loopback(port), "/readyz")?;
                ensure!(status == 200, "/readyz says {status}: {}", body.trim());
                Ok(true)
            }
        }
    }

    /// The last lines of its log, ready to be put behind a message.
    #[must_use]
    pub fn last_words(&self) -> String {
        let path = self.log();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        if last.is_empty() {
            return format!("{} is empty", path.display());
        }
        format!(
            "the end of {}:\n    {}",
            path.display(),
            last.join("\n    ")
        )
    }

    /// SIGTERM, and nothing else: it takes its time. Its process id.
    pub fn tell_to_stop(&self) -> Result<u32> {
        let name = &self.process.name;
        let pid = self.running();
        let pid = pid.with_context(|| format!("{name} does not run"))?;
        send(pid, Signal::SIGTERM).with_context(|| format!("telling {name} to stop"))?;
        Ok(pid)
    }

    /// SIGTERM, and waits until it is gone; an error when it does not go.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::SIGTERM, STOP_DEADLINE)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&self) -> Result<()> {
        self.end(Signal::SIGKILL, KILL_DEADLINE)
    }

    fn end(&self, signal: Signal, within: Duration) -> Result<()> {
        let name = &self.process.name;
        let Some(pid) = self.running() else {
            bail!("{name} does not run")
        };
        send(pid, signal).with_context(|| format!("sending {signal} to {name}"))?;
        wait::until_true(&format!("{name} to end after {signal}"), within, || {
            Ok(is_gone(pid))
        })
    }
}

/// Whether nothing of a process is left but, at most, its exit code. Its first thread may be gone long before the last
/// one closes what they share: ports, and the TUN device.
pub(crate) fn is_gone(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    // The name before it, in parentheses, may hold anything.
    let is_zombie = status
        .rsplit(')')
        .next()
        .is_some_and(|rest| rest.trim_start().starts_with('Z'));
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    is_zombie && threads <= 1
}

/// Sends a signal; that the process is gone already is fine.
pub fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid).context("a process id")?);
    match kill(pid, signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).context("kill"),
    }
}
