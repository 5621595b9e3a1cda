//! What a run makes is removed, whatever ends it.
//!
//! The run happens in a child process; this one waits, and removes the labs when the child is gone: after success, an
//! error, a panic, Ctrl-C, or SIGKILL.
use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use lab::Lab;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

/// Set in the child.
const INSIDE: &str = "TURNPIKE_BENCH_INSIDE";
/// Exit code of a run that a signal ended: what a shell says of Ctrl-C.
const INTERRUPTED: u8 = 130;

/// Runs `work` in a child of its own, and then removes `labs` and cleans up.
pub(super) fn guarded(
    labs: &[&str],
    clean_up: impl FnOnce() -> Result<()>,
    work: impl FnOnce() -> Result<()>,
) -> Result<ExitCode> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    if env::var_os(INSIDE).is_some() {
        signals.thread_unblock().context("unblocking signals")?;
        return work().map(|()| ExitCode::SUCCESS);
    }
    // Blocked before the child exists, so that its end is not missed.
    signals.thread_block().context("blocking signals")?;
    let program = env::current_exe().context("finding this program")?;
    let mut child = Command::new(program)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .spawn()
        .context("starting the run")?;
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id")?);
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for the run")? {
            break status;
        }
        if signals.wait().context("waiting for signals")? != Signal::SIGCHLD {
            // From a terminal it got the signal itself, too; once more does no harm.
            let _ = kill(pid, Signal::SIGTERM);
        }
    };
    for lab in labs {
        Lab::remove(lab)?;
    }
    clean_up()?;
    let code = status.code().map(|code| u8::try_from(code).unwrap_or(1));
    Ok(ExitCode::from(code.unwrap_or(INTERRUPTED)))
}
