//! What every published benchmark says about where and when it was run, and where its files go.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::results::Book;
use super::svg::{self, Group};
use super::verdict::Verdict;
use crate::workspace::{root, target_directory};

/// The machine and the moment.
pub(crate) fn circumstances() -> Value {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("unknown");
    let count = cpus
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    json!({
        "date": said_by("date", &["-u", "+%F"]),
        "cpu": model,
        "cpus": count,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "congestion_control": fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default().trim(),
        "commit": said_by("git", &["rev-parse", "--short=12", "HEAD"]),
    })
}

fn said_by(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(root())
        .output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Writes a file and says so.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("   wrote {}", path.display());
    Ok(())
}

/// Where a run's files go: to the documentation when it was whole and may be published, else beside what is built.
pub(crate) fn directory_of_reports(is_whole: bool) -> Result<PathBuf> {
    let directory = if is_whole {
        root().join("docs/bench")
    } else {
        target_directory()?.join("bench")
    };
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    Ok(directory)
}

/// Writes what was measured as JSON to `file`, and as a picture beside it.
pub(crate) fn publish(
    book: &Book,
    verdicts: &[Verdict],
    charts: &[Group],
    file: &Path,
) -> Result<()> {
    let verdicts: Vec<_> = verdicts.iter().map(Verdict::to_json).collect();
    let text = json!({ "parts": book.parts, "verdicts": verdicts });
    write(file, &(serde_json::to_string_pretty(&text)? + "\n"))?;
    write(&file.with_extension("svg"), &svg::chart(charts))
}
