//! What a process spends, from `/proc` ([proc(5)](https://man7.org/linux/man-pages/man5/proc.5.html)).

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Nanoseconds that all threads of a process have run so far, in user space and in the kernel: the first field of each
/// thread's `schedstat`. Threads that ended are not in it.
///
/// # Errors
/// The process is gone, or the kernel has no `CONFIG_SCHED_INFO`.
pub(crate) fn cpu_nanoseconds(pid: u32) -> Result<u64> {
    let mut total = 0;
    let threads = fs::read_dir(format!("/proc/{pid}/task")).context("the server is gone")?;
    for thread in threads {
        let path = thread.context("listing threads")?.path().join("schedstat");
        // It may end between the two.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let first = text.split_whitespace().next().unwrap_or_default();
        total += first.parse::<u64>().context("reading schedstat")?;
    }
    ensure!(total > 0, "the server is gone, or has no schedstat");
    Ok(total)
}

/// Nanoseconds that everything but this process and `server` has run so far on all cores, and that a hypervisor gave to other
/// machines (in steps of 10 ms).
///
/// # Errors
/// There is no `/proc`.
pub(crate) fn others_nanoseconds(server: Option<u32>) -> Result<u64> {
    const TICK: u64 = 10_000_000;
    let mut total = 0;
    for entry in fs::read_dir("/proc").context("listing processes")? {
        let name = entry.context("listing processes")?.file_name();
        let pid = name.to_str().and_then(|name| name.parse::<u32>().ok());
        match pid {
            Some(pid) if pid != std::process::id() && Some(pid) != server => {
                total += cpu_nanoseconds(pid).unwrap_or(0);
            }
            _ => {}
        }
    }
    let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
    let stolen = stat.split_whitespace().nth(8);
    let stolen: u64 = stolen.and_then(|ticks| ticks.parse().ok()).unwrap_or(0);
    Ok(total + stolen * TICK)
}

/// Bytes of memory that the process has resident.
///
/// # Errors
/// The process is gone.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the server is gone")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: u64 = line
        .and_then(|line| line.split_whitespace().next()?.parse().ok())
        .context("no VmRSS")?;
    Ok(kilobytes * 1024)
}

/// Stays on one core.
///
/// # Errors
/// There is no such core for us.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).context("a number of a core")?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("going to core {core}"))
}

/// Makes room for so many sockets.
///
/// # Errors
/// The limit of open files does not allow it.
pub(crate) fn allow_open_files(count: u64) -> Result<()> {
    let wanted = count + 64;
    let (soft, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).context("reading the limit of open files")?;
    if soft >= wanted {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted))
        .with_context(|| format!("{wanted} open files are needed, {hard} are allowed (ulimit -n)"))
}
