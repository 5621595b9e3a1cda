//! What a run of tests said, test by test.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::shell;
use crate::workspace::metadata;

/// Test programs by the name of their file, which has a hash in it, and what they are of: `PACKAGE::TARGET`.
#[derive(Debug, Default)]
pub(crate) struct Programs(BTreeMap<String, String>);

/// A line of `cargo test --message-format json`, as far as it is used here.
#[derive(Debug, Deserialize)]
struct Message {
    package_id: Option<String>,
    target: Option<Target>,
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

impl Programs {
    /// Builds what `command`, a `cargo test` without arguments for libtest, would run.
    pub(crate) fn build(command: &mut Command) -> Result<Self> {
        let metadata = metadata(&["--no-deps"])?;
        command
            .args(["--no-run", "--message-format", "json-render-diagnostics"])
            .stderr(Stdio::inherit());
        let output = command
            .output()
            .with_context(|| format!("cannot run {}", shell::shown(command)))?;
        ensure!(
            output.status.success(),
            "{} failed ({})",
            shell::shown(command),
            output.status
        );
        let mut programs = BTreeMap::new();
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let message: Message = serde_json::from_str(line).context("what cargo printed")?;
            let (Some(id), Some(target), Some(file), Some(Profile { test: true })) = (
                message.package_id,
                message.target,
                message.executable,
                message.profile,
            ) else {
                continue;
            };
            let package = metadata.members().find(|member| member.id == id);
            let package = &package.context("a test of no package of ours")?.name;
            let is_program = |kind: &String| ["test", "bin", "example", "bench"].contains(&&**kind);
            let name = match target.kind.iter().any(is_program) {
                true => target.name,
                false => "lib".to_owned(),
            };
            programs.insert(file_name(&file), format!("{package}::{name}"));
        }
        Ok(Self(programs))
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    Ignored,
}

/// How the tests went, by `PACKAGE::TARGET::TEST`, and how many they were.
#[derive(Debug, Default)]
pub(crate) struct Results {
    programs: Programs,
    /// What runs: `PACKAGE::TARGET`; nothing for tests in documentation.
    program: Option<String>,
    /// The test that ran last: what it prints may stand between its name and its verdict.
    test: Option<String>,
    verdicts: BTreeMap<String, Verdict>,
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) ignored: u32,
}

impl Results {
    /// Ready for the output of these programs.
    pub(crate) fn of(programs: Programs) -> Self {
        Self {
            programs,
            ..Self::default()
        }
    }

    /// Takes from a line what cargo or libtest said with it.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some(rest) = line.trim_start().strip_prefix("Running ") {
            let file = rest.rsplit_once('(').map(|(_, path)| path);
            let file = file.and_then(|path| path.strip_suffix(')'));
            let name = file.map(|path| file_name(Path::new(path)));
            self.program = name.and_then(|name| self.programs.0.get(&name).cloned());
        } else if line.trim_start().starts_with("Doc-tests ") {
            self.program = None;
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.test = None;
            self.count(counts);
        } else if let Some((test, rest)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            let program = self.program.as_deref();
            let name = test.trim_end_matches(" - should panic");
            self.test = Some(program.map_or(name.to_owned(), |of| format!("{of}::{name}")));
            self.judge(rest);
        } else {
            self.judge(line);
        }
    }

    /// The verdict stands alone. The last one counts: a test may print one.
    fn judge(&mut self, text: &str) {
        let verdict = match text {
            "ok" => Verdict::Passed,
            text if text.ends_with("FAILED") => Verdict::Failed,
            text if text == "ignored" || text.starts_with("ignored,") => Verdict::Ignored,
            _ => return,
        };
        if let Some(test) = &self.test {
            self.verdicts.insert(test.clone(), verdict);
        }
    }

    fn count(&mut self, counts: &str) {
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

    /// Nothing if the test did not run.
    pub(crate) fn verdict(&self, test: &str) -> Option<Verdict> {
        self.verdicts.get(test).copied()
    }

    /// The tests that failed.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &str> {
        let failed = |verdict: &Verdict| *verdict == Verdict::Failed;
        self.verdicts
            .iter()
            .filter(move |(_, verdict)| failed(verdict))
            .map(|(name, _)| name.as_str())
    }

    /// As if this test had passed.
    #[cfg(test)]
    pub(crate) fn pass(&mut self, test: &str) {
        self.verdicts.insert(test.to_owned(), Verdict::Passed);
    }

    /// Adds what another run said.
    pub(crate) fn extend(&mut self, other: Self) {
        self.verdicts.extend(other.verdicts);
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Results {
        let programs = [
            ("streams-0a", "relay::streams"),
            ("relay-0b", "relay::lib"),
            ("streams-0c", "proto::streams"),
        ];
        let programs = programs.map(|(file, name)| (file.to_owned(), name.to_owned()));
        let mut results = Results::of(Programs(programs.into()));
        for line in lines {
            results.read(line);
        }
        results
    }

    #[test]
    fn results_of_several_test_programs_are_added_up() {
        let results = read(&[
            "     Running unittests src/lib.rs (target/debug/deps/relay-0b)",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 2 ignored; 0 measured; 9 filtered out; finished in 0.00s",
            "     Running tests/streams.rs (/tmp/target/debug/deps/streams-0c)",
            "test a::b ... ok",
            "test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s",
        ]);
        assert_eq!(
            (results.passed, results.failed, results.ignored),
            (41, 1, 2)
        );
        assert_eq!(results.failures().collect::<Vec<_>>(), ["relay::lib::a::c"]);
        assert_eq!(
            results.verdict("proto::streams::a::b"),
            Some(Verdict::Passed)
        );
        assert_eq!(results.verdict("relay::streams::a::b"), None);
    }

    #[test]
    fn what_a_test_prints_does_not_hide_its_verdict() {
        let results = read(&[
            "     Running tests/streams.rs (target/debug/deps/streams-0a)",
            "test talks ... a line",
            "a line of a program that it started",
            "ok",
            "test lies ... ok",
            "FAILED",
            "test breaks ... test result: none",
            "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s",
        ]);
        let verdict = |name: &str| results.verdict(&format!("relay::streams::{name}"));
        assert_eq!(verdict("talks"), Some(Verdict::Passed));
        assert_eq!(verdict("lies"), Some(Verdict::Failed));
        assert_eq!(verdict("breaks"), None);
    }
}
