//! `cargo xtask test`: every test there is, or with `--compose` those in containers; one summary at the end.
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lab::Lab;
use lab::process::Files;

use crate::conformance::Conformance;
use crate::workspace::cargo;
use crate::{build, compose, packages, shell};

pub(crate) mod results;

use results::{Programs, Results};

/// How one part went.
#[derive(Debug, Default)]
struct Outcome {
    name: &'static str,
    passed: u32,
    failed: u32,
    ignored: u32,
    took: Duration,
    failures: Vec<String>,
    /// Why nothing of it was tried, if nothing was: neither passed nor failed.
    not_run: Option<String>,
}

/// What is run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Of each crate, in the lab, against programs that are not ours.
    #[default]
    Tests,
    /// `compose.yaml` with a container engine; that none starts here is an error.
    Compose,
    /// Both. Where no engine starts, the summary says so, and the rest counts.
    All,
}

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Request<'a> {
    pub(crate) parts: Parts,
    /// Only tests whose name contains this.
    pub(crate) filter: Option<&'a str>,
    /// Gates that failed already: they count as failures in the summary.
    pub(crate) failed_before: &'a [&'static str],
    /// What the tests write must be there already, as they would write it.
    pub(crate) committed: bool,
}

/// Runs them all.
pub(crate) fn run(request: &Request<'_>) -> Result<ExitCode> {
    let mut outcomes = Vec::new();
    if request.parts != Parts::Compose {
        outcomes.extend(tests(request).unwrap_or_else(|error| vec![preparation(&error)]));
    }
    if request.parts != Parts::Tests {
        outcomes.push(in_containers(request).unwrap_or_else(|error| preparation(&error)));
    }
    Ok(summarize(&outcomes, request))
}

fn preparation(error: &anyhow::Error) -> Outcome {
    eprintln!("error: {error:#}");
    Outcome {
        name: "preparing",
        failed: 1,
        ..Outcome::default()
    }
}

/// Tools and binaries: without them no test would say anything.
pub(crate) fn prepare() -> Result<PathBuf> {
    packages::ensure_root("the test")?;
    packages::ensure_installed(&[packages::FOR_LAB, packages::FOR_TESTS])?;
    build::release_binaries()
}

fn tests(request: &Request<'_>) -> Result<Vec<Outcome>> {
    let binaries = prepare()?;
    let before = labs()?;

    shell::heading("Tests");
    let begin = Instant::now();
    let workspace = ["--workspace", "--no-fail-fast"];
    let filter: Vec<&str> = request.filter.into_iter().collect();
    let tests = cargo_test(&workspace, &filter, &binaries);
    for name in labs()?.difference(&before) {
        eprintln!("lab `{name}` was left behind; removing it");
        Lab::remove(name)?;
    }
    let (results, problem) = match tests {
        Ok((results, problem)) => (results, problem),
        Err(error) => (Results::default(), Some(format!("{error:#}"))),
    };
    let outcome = Outcome {
        name: "tests",
        passed: results.passed,
        // It did not compile, or a test took its whole process with it.
        failed: results.failed.max(u32::from(problem.is_some())),
        ignored: results.ignored,
        took: begin.elapsed(),
        failures: results
            .failures()
            .map(str::to_owned)
            .chain(problem.filter(|_| results.failed == 0))
            .collect(),
        not_run: None,
    };
    if request.filter.is_some() {
        return Ok(vec![outcome]);
    }
    let conformance = conformance(&results, request.committed)?;
    Ok(vec![outcome, conformance])
}

fn in_containers(request: &Request<'_>) -> Result<Outcome> {
    packages::ensure_root("the test with containers")?;
    let report = compose::run(&build::release_binaries()?, request.filter);
    Ok(Outcome {
        name: "compose",
        passed: report.passed,
        failed: u32::try_from(report.failures.len())?,
        took: report.took,
        failures: report.failures,
        not_run: report.not_run,
        ..Outcome::default()
    })
}

/// Writes docs/conformance.md; its rows count as tests do.
fn conformance(results: &Results, committed: bool) -> Result<Outcome> {
    let begin = Instant::now();
    let conformance = Conformance::read()?;
    let mut failures = conformance.problems(results);
    let changed = conformance.write(results, None)?;
    if changed && committed {
        failures.push("docs/conformance.md is not what this run wrote".to_owned());
    }
    Ok(Outcome {
        name: "features",
        passed: conformance.whole(results),
        failed: u32::try_from(failures.len())?,
        took: begin.elapsed(),
        failures,
        ..Outcome::default()
    })
}

fn labs() -> Result<BTreeSet<String>> {
    let Ok(entries) = fs::read_dir(Files::PARENT) else {
        return Ok(BTreeSet::new());
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// `cargo test` of what `selection` says, with `arguments` for libtest, and what is wrong if it did not succeed. All
/// packages in one go, so that their dependencies are built once; one test at a time, for those in the lab share the
/// machine's two cores with the processes they test.
pub(crate) fn cargo_test(
    selection: &[&str],
    arguments: &[&str],
    binaries: &Path,
) -> Result<(Results, Option<String>)> {
    let command = || {
        let mut command = cargo();
        command
            .args(["test", "--locked"])
            .args(selection)
            .env("TURNPIKE_BIN_DIR", binaries)
            .env("RUST_LIB_BACKTRACE", "0")
            .env("RUST_TEST_THREADS", "1");
        command
    };
    let mut results = Results::of(Programs::build(&mut command())?);
    let mut command = command();
    command.arg("--").args(arguments);
    let shown = shell::shown(&command);
    let success = watch(command, |line| results.read(line))?;
    Ok((results, (!success).then_some(shown)))
}

/// Runs a command, shows its output, and hands on every line of it. Both its streams are one: cargo says in one which
/// program runs, and the program in the other how it goes.
fn watch(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<bool> {
    let shown = shell::shown(&command);
    let (output, input) = io::pipe().context("a pipe for the tests' output")?;
    command.stdout(input.try_clone()?).stderr(input);
    let mut child = command.spawn().context(shown)?;
    // It holds the pipe's other end open.
    drop(command);
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("reading the tests' output")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        on_line(&line);
    }
    Ok(child.wait().context("waiting for the tests")?.success())
}

fn summarize(outcomes: &[Outcome], request: &Request<'_>) -> ExitCode {
    let failed_before = request.failed_before;
    println!("\n== Summary");
    for gate in failed_before {
        println!("{gate:10} FAILED");
    }
    for outcome in outcomes {
        let Outcome {
            name,
            passed,
            failed,
            ignored,
            took,
            failures,
            not_run,
        } = outcome;
        if let Some(reason) = not_run {
            println!("{name}: NOT RUN, because {reason}");
            continue;
        }
        let ignored = if *ignored > 0 {
            format!(", {ignored} ignored")
        } else {
            String::new()
        };
        println!(
            "{name:10} {passed} passed, {failed} failed{ignored} in {:.0} s",
            took.as_secs_f64()
        );
        for failure in failures {
            println!("    FAILED {failure}");
        }
    }
    let sum = |count: fn(&Outcome) -> u32| outcomes.iter().map(count).sum::<u32>();
    let failed = sum(|outcome| outcome.failed) as usize + failed_before.len();
    println!("{} passed, {failed} failed", sum(|outcome| outcome.passed));
    let is_missing =
        request.parts == Parts::Compose && outcomes.iter().any(|outcome| outcome.not_run.is_some());
    ExitCode::from(u8::from(failed > 0 || is_missing))
}
