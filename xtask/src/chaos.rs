//! `cargo xtask chaos`: five networks under constant traffic, and what happens to them by chance.
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use lab::chaos::{Chaos, HEALS_WITHIN};

use crate::build::LabBinaries;
use crate::{packages, shell, workspace};

/// How long, and from which seed.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// What the events are drawn from: the same seed, the same events
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    binaries: LabBinaries,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    packages::ensure_root("chaos")?;
    let lab = options.binaries.lab("chaos")?;
    let chaos = Chaos {
        seed: options.seed,
        length: Duration::from_secs(60 * options.minutes),
        heals_within: HEALS_WITHIN,
        evidence: workspace::root().join("target/chaos"),
    };
    let (minutes, seed) = (options.minutes, options.seed);
    shell::heading(&format!("Chaos for {minutes} min, seed {seed}"));
    let report = chaos.run(&lab, &mut |line| println!("{line}"))?;
    println!("\n{}\n{}", report.table(), report.usage);
    println!(
        "seed {seed}: {} events, {} records came back, {} problems",
        report.rows.len(),
        report.records,
        report.problems.len()
    );
    if report.problems.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for problem in &report.problems {
        println!("  {problem}");
    }
    println!(
        "logs and statuses of the first: {}",
        chaos.evidence.display()
    );
    Ok(ExitCode::FAILURE)
}
