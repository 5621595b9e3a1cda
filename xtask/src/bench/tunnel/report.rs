//! The run in files: all numbers as JSON, the main ones as a picture.
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Options;
use super::results::Table;
use crate::bench::report::{self, directory_of_reports};
use crate::bench::svg::{self, Bar, Group};
use crate::bench::verdict::Verdict;

pub(super) fn write(
    options: &Options,
    tables: &[Table],
    verdicts: &[Verdict],
    took: Duration,
) -> Result<()> {
    let directory = directory_of_reports(options.is_whole())?;
    let parts: Vec<Value> = tables.iter().map(Table::to_json).collect();
    let asked: Vec<Value> = verdicts.iter().map(Verdict::to_json).collect();
    let all = json!({
        "benchmark": "tunnel",
        "circumstances": report::circumstances(),
        "profile": options.rounds.profile,
        "rounds": options.rounds.count(),
        "seconds": took.as_secs(),
        "parts": parts,
        "asked_for": asked,
    });
    let text = serde_json::to_string_pretty(&all).context("the results as JSON")?;
    report::write(&directory.join("tunnel.json"), &(text + "\n"))?;
    let groups: Vec<Group> = tables.iter().map(group).collect();
    report::write(&directory.join("tunnel.svg"), &svg::chart(&groups))
}

fn group(table: &Table) -> Group {
    let (metric, _) = table.part.measure_of_success();
    let unit = match metric {
        "gbit_s" => "Gbit/s, more is better",
        "lost_percent" => "% lost, less is better",
        "p50_ms" => "median in ms, less is better",
        _ => "99th percentile in ms, less is better",
    };
    let bars = table.entries.iter().filter_map(|entry| {
        Some(Bar {
            label: entry.contender.to_owned(),
            value: entry.median(metric)?,
            ours: entry.contender.starts_with("lane") || entry.contender.starts_with("channel"),
        })
    });
    Group {
        title: format!("{} ({unit})", table.part.title()),
        bars: bars.collect(),
    }
}
