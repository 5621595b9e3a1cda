//! `bench failover`: what can happen under a running transfer with a sequence check, each event so many times, and the
//! longest time in which nothing came back.
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use lab::LabOptions;
use lab::failover::{Event, Outcome, Stage};
use serde_json::{Value, json};

use super::report;
use crate::build::LabBinaries;
use crate::{packages, shell, workspace};

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often each event happens
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Each event once, and nothing is written
    #[arg(long)]
    once: bool,
    /// Only events whose name contains this; nothing is written
    #[arg(long)]
    only: Option<String>,
    #[command(flatten)]
    binaries: LabBinaries,
}

pub(super) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure_root("the benchmark")?;
    let lab = options.binaries.lab("benchfail")?;
    let rounds = if options.once { 1 } else { options.rounds };
    let chosen = |event: &Event| {
        let name = options.only.as_deref().unwrap_or_default();
        event.name().contains(name)
    };
    shell::heading(&format!(
        "The longest pause of a running transfer, {rounds} rounds each"
    ));
    println!(
        "{:<40} {:>8} {:>8} {:>8}",
        "event", "median", "worst", "bound"
    );
    let (mut rows, mut kept) = (Vec::new(), true);
    for event in Event::ALL.into_iter().filter(chosen) {
        let outcomes = happen(event, &lab, rounds)?;
        let mut pauses: Vec<u64> = outcomes.iter().map(|it| it.longest_pause_ms).collect();
        pauses.sort_unstable();
        let worst = pauses.last().copied().unwrap_or_default();
        let median = pauses.get(pauses.len() / 2).copied().unwrap_or_default();
        let bound = u64::try_from(event.bound().as_millis())?;
        kept &= worst <= bound;
        println!(
            "{:<40} {median:>5} ms {worst:>5} ms {bound:>5} ms{}",
            event.name(),
            if worst <= bound { "" } else { "  missed" }
        );
        rows.push(row(event, &outcomes, median, worst, bound));
    }
    if !options.once && options.only.is_none() {
        let all = json!({
            "circumstances": report::circumstances(),
            "rounds": rounds,
            "events": rows,
        });
        let path = workspace::root().join("docs/bench/failover.json");
        report::write(&path, &(serde_json::to_string_pretty(&all)? + "\n"))?;
    }
    Ok(if kept || options.once {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A lab for the event alone, so that none sees what another left.
fn happen(event: Event, lab: &LabOptions, rounds: u32) -> Result<Vec<Outcome>> {
    let stage = Stage::up(event, lab)?;
    (0..rounds).map(|_| stage.round()).collect()
}

fn row(event: Event, outcomes: &[Outcome], median: u64, worst: u64, bound: u64) -> Value {
    let pauses: Vec<u64> = outcomes.iter().map(|it| it.longest_pause_ms).collect();
    json!({
        "event": event,
        "pauses_ms": pauses,
        "median_ms": median,
        "worst_ms": worst,
        "bound_ms": bound,
    })
}
