//! `cargo xtask test --compose`: `compose.yaml` with a real engine, and every fault that a tester can put in.
//!
//! The engine is one of our own, in namespaces of its own: whatever else runs on the machine does not notice it, and
//! when it ends, everything in it ends.
mod engine;
mod image;
mod project;
mod scenarios;

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::workspace::target_directory;
use crate::{packages, shell};
use engine::Engine;
use project::Project;

/// How the scenarios went.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: u32,
    /// Names, with the reason.
    pub(crate) failures: Vec<String>,
    /// Why nothing was tried, if nothing was.
    pub(crate) not_run: Option<String>,
    pub(crate) took: Duration,
}

/// Runs the scenarios whose names contain `filter`. `binaries` is where the release binaries are.
pub(crate) fn run(binaries: &Path, filter: Option<&str>) -> Report {
    let begin = Instant::now();
    let mut report = Report::default();
    if let Err(error) = run_all(binaries, filter, &mut report) {
        eprintln!("error: {error:#}");
        report.failures.push(format!("preparing: {error:#}"));
    }
    report.took = begin.elapsed();
    report
}

fn run_all(binaries: &Path, filter: Option<&str>, report: &mut Report) -> Result<()> {
    packages::ensure_installed(&[packages::FOR_COMPOSE])?;
    let directory = target_directory()?.join("compose");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let lock = File::create(directory.join("lock")).context("the lock of this test")?;
    lock.try_lock()
        .context("another run of this test is under way")?;

    shell::heading("Containers");
    if let Err(error) = engine::probe() {
        report.not_run = Some(format!("{error:#}"));
        return Ok(());
    }
    let base = image::base(&directory)?;
    let engine = match Engine::start(&directory) {
        Ok(engine) => engine,
        Err(error) => {
            report.not_run = Some(format!("no container engine starts here: {error:#}"));
            return Ok(());
        }
    };
    image::build(&engine, &base, binaries, &directory)?;
    let project = Project::new(&engine);
    if let Err(error) = project.up() {
        project.show_logs();
        return Err(error);
    }
    for (name, scenario) in scenarios::ALL {
        if filter.is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let begin = Instant::now();
        match scenario(&project) {
            Ok(()) => {
                report.passed += 1;
                println!(
                    "scenario {name} ... ok, {:.1} s",
                    begin.elapsed().as_secs_f64()
                );
            }
            Err(error) => {
                println!("scenario {name} ... FAILED: {error:#}");
                project.show_logs();
                report.failures.push(format!("{name}: {error:#}"));
                // What it left broken is not the next one's affair.
                project.restore()?;
            }
        }
    }
    Ok(())
}
