//! dnsmasq, NetworkManager's or the host's own, asks this process for the names that are ours, and nobody else's.
//!
//! A file among its configuration says so until this process ends. After `kill -9` dnsmasq has no answer for names that are
//! ours, and the same as ever for all others; the next start removes the file.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::{Around, reached_at};

/// The file's name, in the directory that dnsmasq reads.
const FILE: &str = "turnpike.conf";
/// Begins it.
const MARKER: &str = "# Put here by dns-signal until it ends.\n";
/// In the state directory: what is to be undone, the file's path and then the command, word by word.
const KEPT: &str = "dnsmasq.undo";
/// The directory that NetworkManager has its own dnsmasq read.
const OF_NETWORK_MANAGER: &str = "/etc/NetworkManager/dnsmasq.d";
/// How long a restart of dnsmasq may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the configuration says about dnsmasq; what it does not say is found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dnsmasq {
    /// The file that is written.
    pub file: Option<PathBuf>,
    /// Program and arguments that make dnsmasq read it, not empty.
    pub reload: Option<Vec<String>>,
}

/// The file, while this lives.
#[derive(Debug)]
pub struct DropIn {
    undo: Undo,
    kept: PathBuf,
}

/// What undoes it.
#[derive(Debug)]
struct Undo {
    file: PathBuf,
    reload: Vec<String>,
}

impl DropIn {
    /// Writes the file for `zones`, and has dnsmasq read it.
    ///
    /// # Errors
    /// When dnsmasq is not found, the file cannot be written, or the command fails; what was done is undone.
    pub(super) fn start(around: &Around<'_>, zones: &[String]) -> anyhow::Result<Self> {
        around.must_not_go_round()?;
        let undo = undo(around.dnsmasq)?;
        if let Ok(there) = fs::read_to_string(&undo.file) {
            ensure!(
                there.starts_with(MARKER),
                "{} is not dns-signal's",
                undo.file.display()
            );
        }
        fs::create_dir_all(around.state_directory)?;
        let kept = around.state_directory.join(KEPT);
        fs::write(&kept, undo.to_text()).context("cannot write down what is to be undone")?;
        // From here on, dropping it undoes what was done.
        let taken = Self { undo, kept };
        let file = &taken.undo.file;
        fs::write(file, configuration(around, zones))
            .with_context(|| format!("cannot write {}", file.display()))?;
        run(&taken.undo.reload)?;
        Ok(taken)
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.undo.file
    }
}

impl Drop for DropIn {
    fn drop(&mut self) {
        if let Err(error) = self.undo.now() {
            tracing::error!(
                error = format!("{error:#}"),
                "dnsmasq goes on asking dns-signal for names of the mesh"
            );
        }
        let _ = fs::remove_file(&self.kept);
    }
}

/// Removes what a process that is gone has left.
pub(super) fn clean_up(state_directory: &Path) {
    let kept = state_directory.join(KEPT);
    let Some(undo) = fs::read_to_string(&kept)
        .ok()
        .and_then(|it| Undo::parse(&it))
    else {
        return;
    };
    match undo.now() {
        Ok(()) => tracing::warn!(
            file = %undo.file.display(),
            "an earlier process left its file for dnsmasq behind; it is removed"
        ),
        Err(error) => tracing::error!(
            error = format!("{error:#}"),
            "an earlier process left its file for dnsmasq behind"
        ),
    }
    let _ = fs::remove_file(kept);
}

impl Undo {
    fn now(&self) -> anyhow::Result<()> {
        match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Somebody wrote it anew.
            Ok(there) if !there.starts_with(MARKER) => return Ok(()),
            _ => {}
        }
        fs::remove_file(&self.file)
            .with_context(|| format!("cannot remove {}", self.file.display()))?;
        run(&self.reload)
    }

    fn to_text(&self) -> String {
        format!("{}\n{}\n", self.file.display(), self.reload.join("\n"))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::to_owned);
        let file = PathBuf::from(lines.next()?);
        let reload: Vec<String> = lines.collect();
        (!reload.is_empty()).then_some(Self { file, reload })
    }
}

fn undo(said: &Dnsmasq) -> anyhow::Result<Undo> {
    let file = match &said.file {
        Some(file) => file.clone(),
        None => {
            let directory = directory_of_the_running_one().context(
                "no dnsmasq runs here with `--conf-dir`: start it so, or set `dns.dnsmasq-file`",
            )?;
            directory.join(FILE)
        }
    };
    let reload = said.reload.clone().unwrap_or_else(|| {
        let words: &[&str] = if file.starts_with(OF_NETWORK_MANAGER) {
            &["nmcli", "general", "reload", "dns-full"]
        } else {
            // It reads such files only when it starts: dnsmasq(8), "Notes".
            &["systemctl", "restart", "dnsmasq"]
        };
        words.iter().copied().map(str::to_owned).collect()
    });
    Ok(Undo { file, reload })
}

/// The first directory of configuration that a dnsmasq, not of another network namespace, was told on its command line.
fn directory_of_the_running_one() -> Option<PathBuf> {
    let here = fs::read_link("/proc/self/ns/net").ok()?;
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let of = |name: &str| process.path().join(name);
        let is_dnsmasq = fs::read_to_string(of("comm")).is_ok_and(|name| name == "dnsmasq\n");
        // Another's namespace may be a secret, where this process may do little.
        let is_elsewhere = fs::read_link(of("ns/net")).is_ok_and(|there| there != here);
        if !is_dnsmasq || is_elsewhere {
            return None;
        }
        let command = fs::read(of("cmdline")).ok()?;
        let command = String::from_utf8(command).ok()?;
        directory_in(command.split('\0'))
    })
}

/// `--conf-dir=DIRECTORY`, with which files not to read after a comma; or `-7`.
fn directory_in<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<PathBuf> {
    let said = loop {
        let word = words.next()?;
        let joined = word.strip_prefix("--conf-dir=");
        match joined.or_else(|| word.strip_prefix("-7")) {
            Some("") => break words.next()?,
            Some(said) => break said,
            None => {}
        }
    };
    let directory = said.split(',').next()?;
    directory.starts_with('/').then(|| directory.into())
}

fn configuration(around: &Around<'_>, zones: &[String]) -> String {
    let mut text = MARKER.to_owned();
    for zone in zones {
        for listen in around.listen {
            let server = reached_at(*listen);
            text += &format!("server=/{zone}/{}#{}\n", server.ip(), server.port());
        }
        // Virtual IPs may be private addresses.
        text += &format!("rebind-domain-ok=/{zone}/\n");
    }
    text
}

fn run(command: &[String]) -> anyhow::Result<()> {
    let said = command.join(" ");
    let (program, arguments) = command.split_first().context("no command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .with_context(|| format!("cannot run `{said}`"))?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "`{said}` failed: {status}");
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    bail!("`{said}` takes longer than {PATIENCE:?}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::directory_in;

    #[test]
    fn the_directory_is_read_off_the_command_line() {
        for (command, expected) in [
            // Debian's own, NetworkManager's, libvirt's.
            (
                "/usr/sbin/dnsmasq -x /run/dnsmasq/dnsmasq.pid -u dnsmasq -7 /etc/dnsmasq.d,.dpkg-dist,.dpkg-old -r /x",
                Some("/etc/dnsmasq.d"),
            ),
            (
                "dnsmasq --no-resolv --conf-dir=/etc/NetworkManager/dnsmasq.d --cache-size=400",
                Some("/etc/NetworkManager/dnsmasq.d"),
            ),
            ("dnsmasq -7/etc/a,*.conf", Some("/etc/a")),
            (
                "dnsmasq --conf-file=/var/lib/libvirt/dnsmasq/default.conf",
                None,
            ),
            ("dnsmasq -7 relative", None),
            ("dnsmasq -7", None),
        ] {
            let found = directory_in(command.split(' '));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{command}");
        }
    }
}
