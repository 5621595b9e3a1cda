//! `cargo xtask conformance`: what people compare TURN servers by, and which tests show that ours has it.
//!
//! `turn-relay/conformance.toml` names the features and the tests; a run of these tests writes `docs/conformance.md`.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::shell;
use crate::testing::results::{Results, Verdict};
use crate::testing::{cargo_test, prepare};
use crate::workspace::root;

/// Where the features and their tests are.
pub(crate) const SOURCE: &str = "turn-relay/conformance.toml";
/// What is written.
pub(crate) const DOCUMENT: &str = "docs/conformance.md";

const HEAD: &str = "\
# Conformance

<!-- Written by `cargo xtask test` from turn-relay/conformance.toml and what the tests did: not by hand. -->

What people compare TURN servers by, and what of it turn-relay has. **Y**: there, and every test named below the table ran
and passed in the run that wrote this file. **P**: a part is there, likewise tested; what is missing is said. **N**: not there.
**-**: not meant to be there.

";

/// The features, by their number.
#[derive(Debug)]
pub(crate) struct Conformance(BTreeMap<u32, Feature>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    feature: Vec<Feature>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Feature {
    row: u32,
    name: String,
    /// `PACKAGE::TARGET::TEST`, in the order of the document.
    #[serde(default)]
    tests: Vec<String>,
    /// What of it is not there.
    missing: Option<String>,
    /// Why it never will be.
    excepted: Option<String>,
}

/// Of each package its test programs, and of each of these its tests.
type Programs<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<&'a str>>>;

/// Runs the tests of these rows, of all rows if none is named, and writes the document. Other rows stay as they are in it.
pub(crate) fn run(rows: &[u32]) -> Result<()> {
    let conformance = Conformance::read()?;
    for row in rows {
        ensure!(conformance.0.contains_key(row), "{SOURCE} has no row {row}");
    }
    let rows: BTreeSet<u32> = match rows {
        [] => conformance.0.keys().copied().collect(),
        some => some.iter().copied().collect(),
    };
    let programs = conformance.programs(&rows)?;
    // Only these run binaries of other packages than their own, and other people's programs.
    let outer = ["turnpike-interop", "turnpike-scenarios"];
    let binaries = match outer.iter().any(|name| programs.contains_key(name)) {
        true => prepare()?,
        false => root(),
    };
    let mut results = Results::default();
    for (package, programs) in programs {
        shell::heading(package);
        let mut selection = vec!["--package", package];
        let mut exactly = vec!["--exact"];
        for (target, tests) in programs {
            selection.extend(match target {
                "lib" => vec!["--lib"],
                name if name == package => vec!["--bin", name],
                name => vec!["--test", name],
            });
            exactly.extend(tests);
        }
        results.extend(cargo_test(&selection, &exactly, &binaries)?.0);
    }
    conformance.write(&results, Some(&rows))?;
    let problems = conformance.problems_of(&rows, &results);
    for problem in &problems {
        eprintln!("   {problem}");
    }
    ensure!(problems.is_empty(), "not all of it is shown");
    eprintln!(
        "\n   {} tests passed; {DOCUMENT} is written",
        results.passed
    );
    Ok(())
}

impl Conformance {
    pub(crate) fn read() -> Result<Self> {
        let text = fs::read_to_string(root().join(SOURCE)).context(SOURCE)?;
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text).context(SOURCE)?;
        let mut features = BTreeMap::new();
        for feature in file.feature {
            let row = feature.row;
            let says_why = feature.missing.is_some() || feature.excepted.is_some();
            ensure!(
                says_why || !feature.tests.is_empty(),
                "{SOURCE}: row {row} has neither a test nor what is missing"
            );
            let before = features.insert(row, feature);
            ensure!(before.is_none(), "{SOURCE}: row {row} is there twice");
        }
        for (expected, row) in (1..).zip(features.keys()) {
            ensure!(expected == *row, "{SOURCE}: row {expected} is missing");
        }
        Ok(Self(features))
    }

    /// The tests that are named, each once.
    pub(crate) fn tests(&self) -> BTreeSet<&str> {
        let tests = self.0.values().flat_map(|feature| &feature.tests);
        tests.map(String::as_str).collect()
    }

    fn programs(&self, rows: &BTreeSet<u32>) -> Result<Programs<'_>> {
        let mut programs = Programs::new();
        for name in rows.iter().flat_map(|row| &self.0[row].tests) {
            let (package, target, test) = parts(name)
                .with_context(|| format!("{SOURCE}: {name} is not PACKAGE::TARGET::TEST"))?;
            let targets = programs.entry(package).or_default();
            targets.entry(target).or_default().insert(test);
        }
        Ok(programs)
    }

    /// What is named and did not pass.
    pub(crate) fn problems(&self, results: &Results) -> Vec<String> {
        self.problems_of(&self.0.keys().copied().collect(), results)
    }

    fn problems_of(&self, rows: &BTreeSet<u32>, results: &Results) -> Vec<String> {
        let mut problems = Vec::new();
        for row in rows {
            for test in &self.0[row].tests {
                let what = match results.verdict(test) {
                    Some(Verdict::Passed) => continue,
                    Some(Verdict::Failed) => "failed",
                    Some(Verdict::Ignored) => "was ignored",
                    None => "did not run",
                };
                problems.push(format!("row {row}: {test} {what}"));
            }
        }
        problems
    }

    /// How many features are there.
    pub(crate) fn whole(&self, results: &Results) -> u32 {
        let whole = self
            .0
            .values()
            .filter(|feature| feature.mark(results) == "Y");
        u32::try_from(whole.count()).unwrap_or(u32::MAX)
    }

    /// Writes the document. Of rows that did not run, if only some did, the marks are kept. True if it changed.
    pub(crate) fn write(&self, results: &Results, rows: Option<&BTreeSet<u32>>) -> Result<bool> {
        let path = root().join(DOCUMENT);
        let before = fs::read_to_string(&path).unwrap_or_default();
        let text = self.render(|row, feature| match rows {
            Some(rows) if !rows.contains(&row) => mark_in(&before, row).unwrap_or("N"),
            _ => feature.mark(results),
        });
        fs::write(&path, &text).context(DOCUMENT)?;
        Ok(text != before)
    }

    /// The document as a run in which every named test passes writes it.
    pub(crate) fn green(&self) -> String {
        self.render(|_, feature| feature.mark_when_green())
    }

    fn render<'a>(&self, mark: impl Fn(u32, &Feature) -> &'a str) -> String {
        let mut text = HEAD.to_owned();
        text += "| # | feature | turn-relay | |\n|---|---|---|---|\n";
        for (row, feature) in &self.0 {
            let Feature { name, .. } = feature;
            let mark = mark(*row, feature);
            let note = match (&feature.missing, &feature.excepted) {
                (_, Some(why)) => why.clone(),
                (Some(missing), None) => format!("missing: {missing}"),
                (None, None) if mark == "N" => "a test named below did not pass".to_owned(),
                (None, None) => String::new(),
            };
            text += &format!("| {row} | {name} | {mark} | {note} |\n");
        }
        text += "\n## The tests\n";
        for (row, feature) in &self.0 {
            if feature.tests.is_empty() {
                continue;
            }
            text += &format!("\n{row}. {}\n\n", feature.name);
            for test in &feature.tests {
                text += &format!("   - `{test}`\n");
            }
        }
        text
    }
}

impl Feature {
    fn mark(&self, results: &Results) -> &'static str {
        let passed = |test: &String| results.verdict(test) == Some(Verdict::Passed);
        match self.tests.iter().all(passed) {
            true => self.mark_when_green(),
            false => "N",
        }
    }

    fn mark_when_green(&self) -> &'static str {
        match (&self.excepted, &self.missing) {
            (Some(_), _) => "-",
            (None, None) => "Y",
            (None, Some(_)) if self.tests.is_empty() => "N",
            (None, Some(_)) => "P",
        }
    }
}

/// `PACKAGE::TARGET::TEST` in its parts.
pub(crate) fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let (package, rest) = name.split_once("::")?;
    let (target, test) = rest.split_once("::")?;
    Some((package, target, test))
}

/// The mark of a row in the document.
fn mark_in(document: &str, row: u32) -> Option<&str> {
    let begin = format!("| {row} | ");
    let line = document.lines().find(|line| line.starts_with(&begin))?;
    line.split(" | ").nth(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"
        [[feature]]
        row = 1
        name = "all of it"
        tests = ["p::t::a", "p::t::b"]
        [[feature]]
        row = 2
        name = "half of it"
        tests = ["p::t::a"]
        missing = "the other half"
        [[feature]]
        row = 3
        name = "nothing"
        missing = "all of it"
    "#;

    fn marks(document: &str) -> Vec<Option<&str>> {
        (1..=3).map(|row| mark_in(document, row)).collect()
    }

    #[test]
    fn a_feature_is_there_when_all_its_tests_ran_and_passed() {
        let conformance = Conformance::parse(TABLE).expect("a table");
        let mut results = Results::default();
        results.pass("p::t::a");
        let text = conformance.render(|_, feature| feature.mark(&results));
        assert_eq!(marks(&text), [Some("N"), Some("P"), Some("N")]);
        assert_eq!(
            conformance.problems(&results),
            ["row 1: p::t::b did not run"]
        );
        results.pass("p::t::b");
        let text = conformance.render(|_, feature| feature.mark(&results));
        assert_eq!(marks(&text), [Some("Y"), Some("P"), Some("N")]);
        assert_eq!(text, conformance.green());
        assert!(conformance.problems(&results).is_empty());
    }

    #[test]
    fn a_table_with_a_gap_a_double_or_an_empty_row_is_refused() {
        let twice = TABLE.replace("row = 3", "row = 2");
        let gap = TABLE.replace("row = 3", "row = 4");
        let empty = TABLE.replace("missing = \"all of it\"", "");
        for wrong in [twice, gap, empty] {
            assert!(Conformance::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
