//! `turn-load`, and what it says.
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::wait;
use serde_json::Value;

use super::contender::{Contender, LIMIT, PASSWORD, Setting, USER, undisturbed};
use crate::bench::results::Metrics;

pub(super) const CPU: &str = "ns_per_packet";
pub(super) const BUSY: &str = "busy";
pub(super) const DELIVERED: &str = "delivered_per_second";
/// What other programs had, of a core.
pub(super) const OTHERS: &str = "others";

pub(super) const DIRECTIONS: [&str; 2] = ["client-to-peer", "peer-to-client"];
const PEER: &str = "127.0.0.3";

/// Of a core. Above it, what other programs had may itself be the hundredth of the packets that is looked for.
const CALM: f64 = 0.007;
/// Runs that are tried for a calm one.
const ATTEMPTS: u32 = 8;

/// The way, the size and the number of the packets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) flows: u32,
    pub(super) size: u32,
    pub(super) direction: &'static str,
    /// `gso` or `plain`.
    pub(super) sender: &'static str,
    /// Idle allocations beside.
    pub(super) idle: u32,
}

/// Milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) warmup: u64,
    pub(super) run: u64,
}

#[derive(Debug)]
pub(super) struct Generator<'a> {
    setting: &'a Setting,
}

/// Which run this is: each has a client address of its own, because a relay may go on having an allocation for a second
/// after it was given back.
static RUNS: AtomicU32 = AtomicU32::new(0);

impl<'a> Generator<'a> {
    pub(super) const fn new(setting: &'a Setting) -> Self {
        Self { setting }
    }

    /// Waits until an allocation comes about.
    pub(super) fn first_allocation(&self, contender: &Contender) -> Result<()> {
        wait::until(contender.name, Duration::from_secs(10), || {
            self.run("idle", Some(contender), &["--count", "1"])
                .map(Some)
        })?;
        Ok(())
    }

    /// Packets as fast as it goes.
    pub(super) fn load(
        &self,
        contender: &Contender,
        load: Load,
        lengths: Lengths,
    ) -> Result<Metrics> {
        let mut args = load.arguments(lengths);
        if contender.name == LIMIT {
            args.push("--forwarder".to_owned());
        }
        self.measured("load", Some(contender), &args)
    }

    /// Packets at a rate, one at a time, and how long they take; without a contender, directly. Of a few runs, the first in
    /// which other programs left the cores alone, or else the calmest.
    pub(super) fn latency(
        &self,
        contender: Option<&Contender>,
        load: Load,
        rate: f64,
        lengths: Lengths,
    ) -> Result<Metrics> {
        let mut args = load.arguments(lengths);
        args.extend(["--latency", "--burst", "1", "--rate"].map(str::to_owned));
        args.push(format!("{rate:.0}"));
        match contender {
            None => args.push("--direct".to_owned()),
            Some(contender) if contender.name == LIMIT => args.push("--forwarder".to_owned()),
            Some(_) => {}
        }
        let mut calmest: Option<Metrics> = None;
        for attempt in 1..=ATTEMPTS {
            let mut metrics = self.measured("load", contender, &args)?;
            metrics.insert("attempts".to_owned(), attempt.into());
            let others = |metrics: &Metrics| metrics.get(OTHERS).copied().unwrap_or(f64::MAX);
            let now = others(&metrics);
            if calmest.as_ref().is_none_or(|best| now < others(best)) {
                calmest = Some(metrics);
            }
            if now <= CALM {
                break;
            }
        }
        calmest.context("no run")
    }

    pub(super) fn churn(&self, contender: &Contender, lengths: Lengths) -> Result<Metrics> {
        let seconds = (2.5 * lengths.run as f64 / 1e3).to_string();
        let args = ["--sockets", "16000", "--seconds", &seconds];
        self.measured("churn", Some(contender), &args.map(str::to_owned))
    }

    pub(super) fn idle(&self, contender: &Contender, count: u32) -> Result<Metrics> {
        self.measured(
            "idle",
            Some(contender),
            &["--count".to_owned(), count.to_string()],
        )
    }

    fn measured(
        &self,
        what: &str,
        contender: Option<&Contender>,
        args: &[String],
    ) -> Result<Metrics> {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said = self.run(what, contender, &args)?;
        let mut metrics = Metrics::new();
        flatten(&said, &mut metrics);
        Ok(metrics)
    }

    fn run(&self, what: &str, contender: Option<&Contender>, args: &[&str]) -> Result<Value> {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let client = format!("127.1.{}.{}", run / 250 % 250, run % 250 + 1);
        let mut load = Command::new(self.setting.binaries.join("turn-load"));
        load.args([what, "--json", "--user", USER, "--password", PASSWORD])
            .args([
                "--client",
                &client,
                "--cpu",
                &self.setting.load_core.to_string(),
            ])
            .args(args);
        match contender {
            Some(contender) => {
                load.args(["--server", &contender.address.to_string()])
                    .args(["--pid", &contender.pid.to_string()]);
            }
            // Somebody must be named, and is not spoken to.
            None => drop(load.args(["--server", "127.0.0.1:9"])),
        }
        let output = undisturbed(&load, None)
            .output()
            .context("running turn-load")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "turn-load {what}: {}",
            error.trim()
        );
        serde_json::from_slice(&output.stdout).context("reading what turn-load said")
    }
}

impl Load {
    /// For people, and the key of its results.
    pub(super) fn name(&self) -> String {
        let flows = if self.flows == 1 { "flow" } else { "flows" };
        let idle = match self.idle {
            0 => String::new(),
            idle => format!(", {idle} idle"),
        };
        format!(
            "{} {flows}, {} B, {}, {}{idle}",
            self.flows, self.size, self.sender, self.direction
        )
    }

    fn arguments(&self, lengths: Lengths) -> Vec<String> {
        let seconds = |milliseconds: u64| (milliseconds as f64 / 1e3).to_string();
        let pairs = [
            ("--flows", self.flows.to_string()),
            ("--size", self.size.to_string()),
            ("--direction", self.direction.to_owned()),
            ("--sender", self.sender.to_owned()),
            ("--idle", self.idle.to_string()),
            ("--peer", PEER.to_owned()),
            ("--warmup", seconds(lengths.warmup)),
            ("--seconds", seconds(lengths.run)),
        ];
        pairs
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect()
    }
}

/// All numbers of an object and of those inside it.
fn flatten(value: &Value, metrics: &mut Metrics) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match value.as_f64() {
            Some(number) => drop(metrics.insert(name.clone(), number)),
            None => flatten(value, metrics),
        }
    }
}
