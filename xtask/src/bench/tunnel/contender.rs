//! Who is measured: two ends that reach each other, and the processes that carry it.
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::wait;

use crate::bench::cpu::cpu_seconds;

/// How long an end may take until it answers a ping; coturn's rivals need a round of retransmissions.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// One way from the client to the server.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    /// As it is named on the command line and in what is written.
    pub(super) name: &'static str,
    /// Namespace of the client.
    pub(super) client: String,
    /// Namespace of the server.
    pub(super) server: String,
    /// What the client calls the server: a name or an address.
    pub(super) target: String,
    /// The address the server is bound to, when it matters: one that answers over UDP from any address would choose
    /// that of the interface the answer leaves by.
    pub(super) bound_to: Option<String>,
    /// The tunnel's processes at both ends; none without a tunnel.
    pub(super) ends: Vec<u32>,
    /// The relay between them.
    pub(super) relay: Option<u32>,
}

/// CPU time, user and system, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    pub(super) ends: f64,
    pub(super) relay: f64,
}

impl Contender {
    /// A command in the client's namespace, killed when it takes longer than `seconds`.
    pub(super) fn at_client(&self, program: &str, seconds: u64) -> Command {
        let limit = seconds.to_string();
        let mut command = in_namespace(&self.client, "timeout");
        command.args(["-k", "1", &limit, program]);
        command
    }

    /// Waits until the server answers, and so until the tunnel is open.
    pub(super) fn wait_open(&self) -> Result<()> {
        let what = format!("{}: {} to answer", self.name, self.target);
        wait::until_true(&what, ANSWERS_WITHIN, || {
            let output = self
                .at_client("ping", 5)
                .args(["-4", "-n", "-c", "1", "-W", "1", &self.target])
                .output()
                .context("running ping")?;
            Ok(output.status.success())
        })
    }

    /// What its processes used so far, all threads.
    pub(super) fn cpu(&self) -> Result<Cpu> {
        let ends: Result<Vec<f64>> = self.ends.iter().map(|&pid| cpu_seconds(pid)).collect();
        Ok(Cpu {
            ends: ends
                .with_context(|| format!("a process of {} is gone", self.name))?
                .iter()
                .sum(),
            relay: self.relay.map_or(Ok(0.0), cpu_seconds)?,
        })
    }
}

/// A command that runs in a namespace.
pub(super) fn in_namespace(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

/// Runs a command to its end; what it printed, or an error with what it said.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let shown = crate::shell::shown(command);
    let output = command
        .output()
        .with_context(|| format!("cannot run {shown}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{shown} failed ({}): {said}",
        output.status
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
