//! Who is measured: our relay, Debian's coturn, and a forwarder that knows no protocol.
use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::wait;

use super::load::Generator;

pub(super) const OURS: &str = "turn-relay";
pub(super) const COTURN: &str = "coturn";
pub(super) const LIMIT: &str = "limit";
/// All of them, in the order in which they take turns.
pub(super) const ALL: [&str; 3] = [OURS, COTURN, LIMIT];
/// Those that speak TURN.
pub(super) const SERVERS: [&str; 2] = [OURS, COTURN];

pub(super) const USER: &str = "load";
pub(super) const PASSWORD: &str = "load";
const REALM: &str = "bench";
/// Ports for relayed addresses.
const PORTS: (u16, u16) = (16_384, 65_535);
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Where things are, and who runs on which core.
#[derive(Debug)]
pub(super) struct Setting {
    /// Of our programs.
    pub(super) binaries: PathBuf,
    /// For configuration and logs.
    pub(super) directory: PathBuf,
    /// The cores of the one that is measured, as taskset(1) writes them.
    pub(super) relay_cores: String,
    /// The core of clients and peers.
    pub(super) load_core: usize,
    /// Whether the one that is measured is a real-time process (SCHED_FIFO).
    pub(super) realtime: bool,
    /// Event loops of ours; else its own choice.
    pub(super) threads: Option<u16>,
}

/// A running one; it ends with its value.
#[derive(Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
    child: Child,
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Contender {
    /// Starts it, and waits until it serves.
    pub(super) fn start(name: &'static str, setting: &Setting) -> Result<Self> {
        let address = free_address()?;
        let program = match name {
            OURS => ours(setting, address)?,
            COTURN => coturn(setting, address),
            _ => limit(setting, address),
        };
        let log = File::create(setting.directory.join(format!("{name}.log")))?;
        let mut command = undisturbed(&program, Some(setting));
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let contender = Self {
            name,
            address,
            pid: child.id(),
            child,
        };
        let port = format!(":{:04X} ", address.port());
        wait::until_true(&format!("{name} to listen"), STARTS_WITHIN, || {
            Ok(fs::read_to_string("/proc/net/udp")?.contains(&port))
        })?;
        if name != LIMIT {
            Generator::new(setting).first_allocation(&contender)?;
        }
        Ok(contender)
    }
}

/// A command at the highest priority, so that what else the machine does matters little: by nice(1), and by the session's
/// own autogroup (sched(7)), without which the former counts among a session's own processes only. It ends with us. With a
/// setting, it is one that is measured, and has its place.
pub(super) fn undisturbed(program: &Command, place: Option<&Setting>) -> Command {
    const FIRST: &str = "echo -20 > /proc/self/autogroup 2> /dev/null; exec nice -n -20 \"$@\"";
    let mut command = Command::new("setsid");
    command.args(["setpriv", "--pdeathsig", "KILL", "sh", "-c", FIRST, "sh"]);
    if let Some(setting) = place {
        command.args(["taskset", "-c", &setting.relay_cores]);
        if setting.realtime {
            command.args(["chrt", "--fifo", "10"]);
        }
    }
    command.arg(program.get_program()).args(program.get_args());
    command
}

/// Keeps the cores of the one that is measured from going idle and from taking up other work in between: a loop of the
/// shell, which everything real-time interrupts at once. It ends with its value.
#[derive(Debug)]
pub(super) struct Busy(Child);

impl Busy {
    pub(super) fn keep(setting: &Setting) -> Result<Self> {
        let mut spin = Command::new("taskset");
        spin.args([
            "-c",
            &setting.relay_cores,
            "sh",
            "-c",
            "while :; do :; done",
        ]);
        let child = undisturbed(&spin, None)
            .spawn()
            .context("starting a loop")?;
        Ok(Self(child))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0").context("a port on loopback")?;
    Ok(socket.local_addr()?)
}

fn ours(setting: &Setting, address: SocketAddr) -> Result<Command> {
    // All clients are of one prefix here, and each asks without credentials first.
    let mut text = "allocations-per-user = 100000\n\
         unauthenticated-answers-per-second = 0\n\
         unauthenticated-answers-per-second-per-prefix = 0\n"
        .to_owned();
    if let Some(threads) = setting.threads {
        text += &format!("threads = {threads}\n");
    }
    let config = setting.directory.join("turn-relay.toml");
    fs::write(&config, text)?;
    let mut command = Command::new(program(&setting.binaries, "turn-relay"));
    command
        .arg("--config")
        .arg(config)
        .args(["--listen", &format!("udp://{address}")])
        .args(["--realm", REALM, "--user", &format!("{USER}:{PASSWORD}")])
        .args(["--port-range", &format!("{}-{}", PORTS.0, PORTS.1)])
        // Peers on loopback: here, and nowhere else.
        .args(["--allow-peer", "127.0.0.0/8"]);
    Ok(command)
}

/// As Debian ships it, with what it needs for the same task and nothing that costs.
fn coturn(setting: &Setting, address: SocketAddr) -> Command {
    let mut command = Command::new("turnserver");
    let port = address.port().to_string();
    command
        .args([
            "-n",
            "--listening-ip",
            "127.0.0.1",
            "--listening-port",
            &port,
        ])
        .args([
            "--relay-ip",
            "127.0.0.1",
            "--realm",
            REALM,
            "--lt-cred-mech",
        ])
        .args([
            "--user",
            &format!("{USER}:{PASSWORD}"),
            "--allow-loopback-peers",
        ])
        .args(["--no-tls", "--no-dtls", "--no-cli", "--no-multicast-peers"])
        .args([
            "--min-port",
            &PORTS.0.to_string(),
            "--max-port",
            &PORTS.1.to_string(),
        ])
        .args(["--log-file", "stdout", "--pidfile"])
        .arg(setting.directory.join("coturn.pid"))
        .arg("--userdb")
        .arg(setting.directory.join("coturn.db"));
    command
}

fn limit(setting: &Setting, address: SocketAddr) -> Command {
    let mut command = Command::new(program(&setting.binaries, "turn-load"));
    command.args(["forward", "--listen", &address.to_string()]);
    command
}

fn program(binaries: &Path, name: &str) -> PathBuf {
    binaries.join(name)
}
