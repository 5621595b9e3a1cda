//! `compose.yaml` in our engine: up, its health, and what one does in its containers.
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use browser::Chromium;
use lab::wait;

use super::engine::Engine;
use crate::shell;
use crate::workspace::root;

const NAME: &str = "turnpike";
const HEALTHY_DEADLINE: Duration = Duration::from_secs(120);
const LOG_LINES: &str = "40";
/// Runs once and ends.
const ONE_SHOT: &str = "initialize";

/// The containers.
#[derive(Debug)]
pub(super) struct Project<'a> {
    engine: &'a Engine,
}

/// A container as `docker ps` shows it.
#[derive(Debug)]
struct Container {
    id: String,
    /// `Up 3 seconds (healthy)`, `Exited (1) 2 seconds ago`.
    status: String,
}

impl Container {
    fn is_well(&self, service: &str) -> bool {
        if service == ONE_SHOT {
            self.status.starts_with("Exited (0)")
        } else {
            self.status.contains("(healthy)")
        }
    }

    fn has_failed(&self, service: &str) -> bool {
        self.status.starts_with("Exited") && !self.is_well(service)
    }
}

impl<'a> Project<'a> {
    pub(super) const fn new(engine: &'a Engine) -> Self {
        Self { engine }
    }

    /// A browser on the machine that the engine runs on; what is seen is kept in `directory`.
    pub(super) fn browser(&self, directory: &Path) -> Result<Chromium> {
        Chromium::start_inside(&self.engine.network(), directory)
    }

    fn compose(&self, args: &[&str]) -> Command {
        let mut command = self.engine.docker_compose();
        command
            .current_dir(root())
            .args(["--project-name", NAME, "--file", "compose.yaml"])
            .args(args);
        command
    }

    /// `docker-compose up`, and waits until everything is healthy.
    pub(super) fn up(&self) -> Result<()> {
        quietly(&mut self.compose(&["up", "--detach", "--no-build"]))?;
        self.wait_healthy(&[])
    }

    /// The same with a profile, until the profile's containers are healthy as well.
    pub(super) fn up_with_profile(&self, profile: &str, services: &[&str]) -> Result<()> {
        quietly(&mut self.compose(&["--profile", profile, "up", "--detach", "--no-build"]))?;
        self.wait_healthy(services)
    }

    /// Puts a fault in: `up SERVICE` of the profile of the same name, until its rules are there.
    pub(super) fn put_in(&self, fault: &str) -> Result<()> {
        let up = ["--profile", fault, "up", "--detach", "--no-build", fault];
        quietly(&mut self.compose(&up))?;
        wait::until_true(&format!("{fault} to be in"), HEALTHY_DEADLINE, || {
            Ok(self
                .try_exec(fault, &["nft", "list", "table", "inet", "fault"])?
                .is_ok())
        })
    }

    /// Takes it out again.
    pub(super) fn take_out(&self, fault: &str) -> Result<()> {
        quietly(&mut self.compose(&["--profile", fault, "stop", fault]))
    }

    /// As after the first start, whatever a scenario left.
    pub(super) fn restore(&self) -> Result<()> {
        let mut faults: Vec<_> = self.containers()?.into_keys().collect();
        faults.retain(|service| super::scenarios::FAULTS.contains(&service.as_str()));
        for fault in faults {
            self.take_out(&fault)?;
        }
        self.up()
    }

    /// SIGKILL, and the same container again.
    pub(super) fn kill_and_start(&self, service: &str) -> Result<()> {
        let id = self.id(service)?;
        quietly(self.engine.docker().args(["kill", &id]))?;
        quietly(self.engine.docker().args(["start", &id]))
    }

    fn containers(&self) -> Result<BTreeMap<String, Container>> {
        let label = "com.docker.compose";
        let format = format!("{{{{.Label \"{label}.service\"}}}}\t{{{{.ID}}}}\t{{{{.Status}}}}");
        let filter = format!("label={label}.project={NAME}");
        let mut command = self.engine.docker();
        command.args(["ps", "--all", "--filter", &filter, "--format", &format]);
        let output = command.output().context("running docker ps")?;
        ensure!(output.status.success(), "docker ps failed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rows = text.lines().filter_map(|line| {
            let mut columns = line.split('\t').map(str::to_owned);
            let (service, id, status) = (columns.next()?, columns.next()?, columns.next()?);
            Some((service, Container { id, status }))
        });
        Ok(rows.collect())
    }

    fn id(&self, service: &str) -> Result<String> {
        let mut containers = self.containers()?;
        let container = containers.remove(service);
        Ok(container
            .with_context(|| format!("there is no container of {service}"))?
            .id)
    }

    /// Waits for all containers that are not faults, and for `more`; shows who is waited for.
    fn wait_healthy(&self, more: &[&str]) -> Result<()> {
        let begin = Instant::now();
        let mut shown = String::new();
        let waited = wait::until("healthy containers", HEALTHY_DEADLINE, || {
            let mut containers = self.containers()?;
            containers.retain(|service, _| !super::scenarios::FAULTS.contains(&service.as_str()));
            let unwell: Vec<_> = containers
                .iter()
                .filter(|(service, container)| !container.is_well(service))
                .map(|(service, _)| service.as_str())
                .collect();
            let progress = format!(
                "{} of {} healthy; waiting for {}",
                containers.len() - unwell.len(),
                containers.len(),
                unwell.join(" ")
            );
            if progress != shown && !unwell.is_empty() {
                eprintln!("   {:3.0} s: {progress}", begin.elapsed().as_secs_f64());
                shown.clone_from(&progress);
            }
            let failed = containers
                .iter()
                .find(|(service, container)| container.has_failed(service));
            if let Some((service, container)) = failed {
                return Ok(Some(Err(format!("{service}: {}", container.status))));
            }
            let all_there = more.iter().all(|service| containers.contains_key(*service));
            ensure!(
                unwell.is_empty() && all_there && !containers.is_empty(),
                "{progress}"
            );
            Ok(Some(Ok(containers.len())))
        })?;
        match waited {
            Ok(count) => {
                let took = begin.elapsed().as_secs_f64();
                eprintln!("   all {count} containers healthy after {took:.1} s");
                Ok(())
            }
            Err(failed) => bail!("a container ended: {failed}"),
        }
    }

    /// Runs a command in a container: its standard output, or what it said on standard error.
    pub(super) fn try_exec(
        &self,
        service: &str,
        command: &[&str],
    ) -> Result<std::result::Result<String, String>> {
        let Output {
            status,
            stdout,
            stderr,
        } = self
            .engine
            .docker()
            .args(["exec", &self.id(service)?])
            .args(command)
            .output()
            .context("running docker exec")?;
        Ok(if status.success() {
            Ok(String::from_utf8_lossy(&stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&stderr).trim().to_owned())
        })
    }

    /// The same, and failure is an error.
    pub(super) fn exec(&self, service: &str, command: &[&str]) -> Result<String> {
        self.try_exec(service, command)?
            .map_err(|said| anyhow::anyhow!("{} in {service}: {said}", command.join(" ")))
    }

    /// The last lines of every container's log.
    pub(super) fn show_logs(&self) {
        for (service, container) in self.containers().unwrap_or_default() {
            eprintln!("-- {service}: {}", container.status);
            let mut logs = self.engine.docker();
            // Best effort: the error to show is another one.
            let _ = logs
                .args(["logs", "--tail", LOG_LINES, &container.id])
                .status();
        }
    }
}

/// Runs a command; its output is shown only when it fails.
fn quietly(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", shell::shown(command)))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        shell::shown(command),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
