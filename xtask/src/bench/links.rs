//! `bench links`: a thousand sidecars open their links to one activator at once, and what each costs.
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use lab::{ScopedLab, many_links};
use serde_json::json;

use super::report;
use crate::build::LabBinaries;
use crate::{packages, shell, workspace};

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many links; another number than 1000 writes nothing
    #[arg(long, default_value_t = 1000)]
    links: u32,
    /// Seconds that they stand idle
    #[arg(long, default_value_t = 20)]
    hold: u64,
    #[command(flatten)]
    binaries: LabBinaries,
}

pub(super) fn run(options: &Options) -> Result<()> {
    packages::ensure_root("the benchmark")?;
    let lab = options.binaries.lab("benchlinks")?;
    shell::heading(&format!("{} links to one activator", options.links));
    let lab = ScopedLab::up(&lab)?;
    let hold = Duration::from_secs(options.hold);
    let outcome = many_links::run(&lab, options.links, Duration::from_secs(60), hold)?;
    println!("nodes came to discovery in {} ms", outcome.joined_ms);
    println!(
        "{:<32} {:>6} {:>8} {:>8} {:>8}",
        "", "links", "median", "p99", "last"
    );
    for (what, times) in [
        ("open", &outcome.opening),
        ("first packet there and back", &outcome.first_echo),
        ("after idling", &outcome.second_echo),
    ] {
        println!(
            "{what:<32} {:>6} {:>5} ms {:>5} ms {:>5} ms",
            times.count, times.median_ms, times.p99_ms, times.last_ms
        );
    }
    println!(
        "memory for each: activator {:.1} KiB, discovery {:.1} KiB",
        outcome.activator.per_link_kib, outcome.discovery.per_link_kib
    );
    println!(
        "ended: {:?}; offers made again: {:?}; packets sent again: {}",
        outcome.links_ended, outcome.offers_failed, outcome.packets_sent_again
    );
    if options.links == 1000 && options.binaries.are_ours() {
        let all = json!({ "circumstances": report::circumstances(), "outcome": outcome });
        let path = workspace::root().join("docs/bench/links.json");
        report::write(&path, &(serde_json::to_string_pretty(&all)? + "\n"))?;
    }
    Ok(())
}
