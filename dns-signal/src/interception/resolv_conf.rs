//! `/etc/resolv.conf` naming this process, for as long as it lives.
//!
//! A second process, the guard, waits on a pipe for the first one's end, and then puts back what was there: also after
//! `kill -9`. Should it die too, the next start finds the copy in the state directory and puts it back.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::{Around, reached_at};

const FILE: &str = "/etc/resolv.conf";
const KEPT: &str = "resolv.conf.before";
/// Begins the file's first line; then whose it is.
const MARKER: &str = "# Put here by dns-signal until it ends, run ";
/// The largest file that is taken for a resolv.conf.
const MAX_BYTES: u64 = 64 << 10;
const DNS_PORT: u16 = 53;
/// How long the guard may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(5);
/// What it says.
const READY: u8 = b'+';

/// The replaced file, while this lives.
#[derive(Debug)]
pub struct ResolvConf {
    state_directory: PathBuf,
    run: String,
    // Its pipe is what the guard waits on.
    guard: Child,
}

impl ResolvConf {
    /// Replaces the file.
    ///
    /// # Errors
    /// When it cannot be written, or no address of this process can be named in it.
    pub fn start(around: &Around<'_>) -> anyhow::Result<Self> {
        let servers: Vec<IpAddr> = around
            .listen
            .iter()
            .filter(|listen| listen.port() == DNS_PORT)
            .map(|listen| reached_at(*listen).ip())
            .collect();
        ensure!(
            !servers.is_empty(),
            "resolv.conf knows port 53 only, and `dns.listen` has another"
        );
        let before = read(Path::new(FILE)).with_context(|| format!("cannot read {FILE}"))?;
        let run = format!("{:016x}", getrandom::u64().context("no random numbers")?);
        let guard = start_guard(around.state_directory, &run)?;
        // From here on, dropping it undoes what was done.
        let taken = Self {
            state_directory: around.state_directory.to_owned(),
            run,
            guard,
        };
        fs::create_dir_all(around.state_directory)?;
        write(&kept(around.state_directory), &before, 0o600)
            .context("cannot keep a copy of resolv.conf")?;
        let now = replacement(&before, &servers, &taken.run);
        put(&now).with_context(|| format!("cannot write {FILE}"))?;
        Ok(taken)
    }
}

impl Drop for ResolvConf {
    fn drop(&mut self) {
        put_back(&self.state_directory, &self.run);
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Whether resolv.conf names resolvers, and all of them are this process.
pub fn names_only(listen: &[SocketAddr]) -> bool {
    names(|server| {
        listen.iter().any(|listen| {
            let any = listen.ip().is_unspecified() && listen.is_ipv4() == server.is_ipv4();
            listen.port() == DNS_PORT && (listen.ip() == server || (any && server.is_loopback()))
        })
    })
}

/// Whether resolv.conf names resolvers, and all of them are on this host.
pub fn names_only_this_host() -> bool {
    names(|server| server.is_loopback())
}

fn names(all: impl Fn(IpAddr) -> bool) -> bool {
    let Ok(text) = read(Path::new(FILE)) else {
        return false;
    };
    let mut servers = servers(&text).peekable();
    servers.peek().is_some() && servers.all(all)
}

/// Who writes the file, if it is a link to another program's.
pub fn written_by_others() -> Option<PathBuf> {
    fs::read_link(FILE).ok()
}

/// Puts back what a process that is gone has replaced.
pub fn clean_up(state_directory: &Path) {
    let Ok(text) = read(Path::new(FILE)) else {
        return;
    };
    let Some(run) = run_of(&text) else {
        // Somebody wrote it since; the copy is of no use.
        let _ = fs::remove_file(kept(state_directory));
        return;
    };
    if put_back(state_directory, run) {
        tracing::warn!("an earlier process left its resolv.conf behind; the one before is back");
    } else {
        tracing::error!(
            "{FILE} names a dns-signal that is gone, and there is no copy of what was there before: write it anew"
        );
    }
}

/// The guard's whole life: waits until standard input is closed, then puts back what run `run` replaced.
///
/// # Errors
/// When standard input or output cannot be used.
pub fn guard(state_directory: &Path, run: &str) -> io::Result<()> {
    io::stdout().write_all(&[READY])?;
    io::stdout().flush()?;
    let mut nothing = Vec::new();
    io::stdin().take(1).read_to_end(&mut nothing)?;
    put_back(state_directory, run);
    Ok(())
}

fn start_guard(state_directory: &Path, run: &str) -> anyhow::Result<Child> {
    let mut guard = Command::new("/proc/self/exe")
        .arg("--guard-resolv-conf")
        .args([state_directory.as_os_str(), run.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        // What a terminal sends to everyone must not end it first.
        .process_group(0)
        .spawn()
        .context("cannot start the guard of resolv.conf")?;
    let mut said = [0];
    let output = guard.stdout.take();
    let heard = output.is_some_and(|mut output| output.read_exact(&mut said).is_ok());
    if heard && said == [READY] {
        return Ok(guard);
    }
    drop(guard.stdin.take());
    let deadline = Instant::now() + PATIENCE;
    while guard.try_wait()?.is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    bail!("the guard of resolv.conf does not start")
}

/// Whether this run's file was there, and its predecessor is back.
fn put_back(state_directory: &Path, run: &str) -> bool {
    let is_ours = read(Path::new(FILE)).is_ok_and(|text| run_of(&text) == Some(run));
    let kept = kept(state_directory);
    let Ok(before) = read(&kept) else {
        return false;
    };
    if !is_ours {
        return false;
    }
    match put(&before) {
        Ok(()) => {
            let _ = fs::remove_file(kept);
            true
        }
        Err(error) => {
            tracing::error!(%error, "cannot write {FILE}: it names a resolver that is gone");
            false
        }
    }
}

fn kept(state_directory: &Path) -> PathBuf {
    state_directory.join(KEPT)
}

fn run_of(text: &str) -> Option<&str> {
    text.lines().next()?.strip_prefix(MARKER)
}

fn servers(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver"))
            .then(|| words.next())??
            .parse()
            .ok()
    })
}

/// What was there, search domains and options above all, with these servers for those.
fn replacement(before: &str, servers: &[IpAddr], run: &str) -> String {
    let mut text = format!("{MARKER}{run}\n");
    for server in servers {
        text += &format!("nameserver {server}\n");
    }
    let is_server = |line: &&str| line.split_whitespace().next() == Some("nameserver");
    for line in before.lines().filter(|line| !is_server(line)) {
        text += line;
        text.push('\n');
    }
    text
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path)?;
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// In place, for in a container the file is a mount that cannot be replaced.
fn put(text: &str) -> io::Result<()> {
    write(Path::new(FILE), text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)?;
    file.write_all(text.as_bytes())
}
