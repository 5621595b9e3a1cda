//! `cargo xtask test`: every test there is, one summary at the end.
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use lab::Lab;
use lab::process::Files;

use crate::workspace::cargo;
use crate::{build, packages, shell};

/// How one part went.
#[derive(Debug, Default)]
struct Outcome {
    name: &'static str,
    passed: u32,
    failed: u32,
    ignored: u32,
    took: Duration,
    failures: Vec<String>,
}

/// Runs them all. `failed_before` are gates that failed already: they count as failures in the summary.
pub(crate) fn run(filter: Option<&str>, failed_before: &[&'static str]) -> Result<ExitCode> {
    match prepare() {
        Ok(binaries) => run_prepared(filter, failed_before, &binaries),
        Err(error) => {
            eprintln!("error: {error:#}");
            let preparation = Outcome {
                name: "preparing",
                failed: 1,
                ..Outcome::default()
            };
            Ok(summarize(&[preparation], failed_before))
        }
    }
}

/// Tools and binaries: without them no test would say anything.
fn prepare() -> Result<PathBuf> {
    packages::ensure_root("the test")?;
    packages::ensure_installed(&[packages::FOR_LAB, packages::FOR_TESTS])?;
    build::release_binaries()
}

fn run_prepared(filter: Option<&str>, failed_before: &[&str], binaries: &Path) -> Result<ExitCode> {
    let before = labs()?;

    shell::heading("Tests");
    let outcome = cargo_test("tests", binaries, filter);
    for name in labs()?.difference(&before) {
        eprintln!("lab `{name}` was left behind; removing it");
        Lab::remove(name)?;
    }
    Ok(summarize(&[outcome?], failed_before))
}

fn labs() -> Result<BTreeSet<String>> {
    let Ok(entries) = fs::read_dir(Files::PARENT) else {
        return Ok(BTreeSet::new());
    };
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// All packages in one go, so that their dependencies are built once; one test at a time, for those in the lab share the
/// machine's two cores with the processes they test.
fn cargo_test(name: &'static str, binaries: &Path, filter: Option<&str>) -> Result<Outcome> {
    let mut command = cargo();
    command
        .args(["test", "--workspace", "--locked", "--no-fail-fast"])
        .args(filter)
        .env("TURNPIKE_BIN_DIR", binaries)
        .env("RUST_LIB_BACKTRACE", "0")
        .env("RUST_TEST_THREADS", "1");
    let begin = Instant::now();
    let mut outcome = Outcome {
        name,
        ..Outcome::default()
    };
    let success = watch(&mut command, |line| outcome.read(line))?;
    outcome.took = begin.elapsed();
    if !success && outcome.failed == 0 {
        // It did not compile, or a test took its whole process with it.
        outcome.failed = 1;
        outcome.failures.push(shell::shown(&command));
    }
    Ok(outcome)
}

/// Runs a command, shows its output, and hands on every line of its standard output.
fn watch(command: &mut Command, mut on_line: impl FnMut(&str)) -> Result<bool> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| shell::shown(command))?;
    let output = child.stdout.take().context("standard output, piped")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("reading the tests' output")?;
        println!("{line}");
        on_line(&line);
    }
    Ok(child.wait().context("waiting for the tests")?.success())
}

impl Outcome {
    /// Takes from a line of libtest's output what it says.
    fn read(&mut self, line: &str) {
        if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... FAILED"))
        {
            self.failures.push(name.to_owned());
        }
        let Some(counts) = line.strip_prefix("test result: ") else {
            return;
        };
        for part in counts.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u32>), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

fn summarize(outcomes: &[Outcome], failed_before: &[&str]) -> ExitCode {
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
            ..
        } = outcome;
        let ignored = if *ignored > 0 {
            format!(", {ignored} ignored")
        } else {
            String::new()
        };
        println!(
            "{name:10} {passed} passed, {failed} failed{ignored} in {:.0} s",
            took.as_secs_f64()
        );
        for failure in &outcome.failures {
            println!("    FAILED {failure}");
        }
    }
    let sum = |count: fn(&Outcome) -> u32| outcomes.iter().map(count).sum::<u32>();
    let failed = sum(|outcome| outcome.failed) as usize + failed_before.len();
    println!("{} passed, {failed} failed", sum(|outcome| outcome.passed));
    ExitCode::from(u8::from(failed > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_test_programs_are_added_up() {
        let mut outcome = Outcome::default();
        for line in [
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 9 filtered out; finished in 0.00s",
            "test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s",
        ] {
            outcome.read(line);
        }
        assert_eq!(
            (outcome.passed, outcome.failed, outcome.ignored),
            (41, 1, 2)
        );
        assert_eq!(outcome.failures, ["a::c"]);
    }
}
