//! Named network namespaces, as `ip netns` keeps them.
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::command::run;

/// Where `ip netns` keeps its names.
const DIRECTORY: &str = "/run/netns";

/// The namespace of a host: `west/app` in lab `demo` is `tp-demo-west-app`.
#[must_use]
pub fn name(lab: &str, host: &str) -> String {
    format!("{}{}", prefix(lab), host.replace('/', "-"))
}

/// What the names of all namespaces of a lab begin with. Lab names hold no dash, so none is another's beginning.
#[must_use]
pub fn prefix(lab: &str) -> String {
    format!("tp-{lab}-")
}

/// The file that stands for a namespace.
#[must_use]
pub fn path(namespace: &str) -> PathBuf {
    Path::new(DIRECTORY).join(namespace)
}

/// Makes a namespace. Its loopback is down.
pub fn create(namespace: &str) -> Result<()> {
    run("ip", &["netns", "add", namespace]).map(drop)
}

/// Takes the name away; the namespace itself ends with the last process in it.
pub fn delete(namespace: &str) -> Result<()> {
    run("ip", &["netns", "delete", namespace]).map(drop)
}

/// All names that begin with `prefix`, sorted.
pub fn list(prefix: &str) -> Result<Vec<String>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {DIRECTORY}")),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    Ok(names)
}

/// Whether some `ip netns add`, perhaps of a parent that was killed, is about to make a namespace of such a name.
pub fn is_being_made(prefix: &str) -> Result<bool> {
    let start = format!("ip\0netns\0add\0{prefix}");
    let entries = fs::read_dir("/proc").context("reading /proc")?;
    Ok(entries.filter_map(Result::ok).any(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|command| command.starts_with(start.as_bytes()))
    }))
}

/// What tells two namespaces apart: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(u64, u64);

/// The namespace behind a name; `None` when there is none.
#[must_use]
pub fn identity(namespace: &str) -> Option<Identity> {
    identity_of(&path(namespace))
}

/// The namespace a process is in; `None` when there is no such process (a zombie is in none).
#[must_use]
pub fn of_process(pid: u32) -> Option<Identity> {
    identity_of(Path::new(&format!("/proc/{pid}/ns/net")))
}

fn identity_of(path: &Path) -> Option<Identity> {
    fs::metadata(path)
        .ok()
        .map(|metadata| Identity(metadata.dev(), metadata.ino()))
}

/// The processes that are in a namespace.
pub fn processes(namespace: &str) -> Result<Vec<u32>> {
    let Some(wanted) = identity(namespace) else {
        return Ok(Vec::new());
    };
    let entries = fs::read_dir("/proc").context("reading /proc")?;
    Ok(entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| of_process(pid) == Some(wanted))
        .collect())
}

/// Runs `work` on a thread that is inside the namespace: sockets made there belong to it, and `/proc/sys/net` is its.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = fs::File::open(path(namespace))
        .with_context(|| format!("no network namespace `{namespace}`: is the lab up?"))?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            setns(file, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("entering namespace `{namespace}` (needs root)"))?;
            Ok(work())
        });
        inside
            .join()
            .map_err(|_| anyhow!("a thread in namespace `{namespace}` panicked"))?
    })
}
