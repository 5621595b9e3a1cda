//! Licences, sources and banned crates of all dependencies, by what `deny.toml` allows.
//!
//! cargo-deny does it. Where it is not installed it is built once, into `target/tools`, which takes about three minutes
//! on two cores. Where that cannot be done (no network), what it would find first is checked here, so that no machine
//! goes without. Advisories need a network, so they are not part of this.
use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::shell;
use crate::workspace::{self, Metadata, cargo};

const VERSION: &str = "0.20.2";

/// The part of deny.toml that is read here; cargo-deny reads all of it.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    wrappers: Vec<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

pub(crate) fn run() -> Result<()> {
    shell::heading("Licences, sources, banned crates");
    if let Some(mut command) = cargo_deny()? {
        return shell::run(command.args(["check", "licenses", "bans", "sources"]));
    }
    let path = workspace::root().join("deny.toml");
    let text = fs::read_to_string(path).context("reading deny.toml")?;
    let policy: Policy = toml::from_str(&text).context("deny.toml")?;
    let metadata = workspace::metadata(&[])?;
    let problems = check(&policy, &metadata);
    for problem in &problems {
        eprintln!("   {problem}");
    }
    ensure!(
        problems.is_empty(),
        "{} dependencies are not as deny.toml wants",
        problems.len()
    );
    eprintln!(
        "   {} packages, all as deny.toml allows (cargo-deny is not installed)",
        metadata.packages.len()
    );
    Ok(())
}

/// cargo-deny: the installed one, or the one in `target/tools`; `None` when there is no way to get it.
fn cargo_deny() -> Result<Option<Command>> {
    let mut installed = cargo();
    installed.arg("deny");
    let tools = workspace::target_directory()?.join("tools");
    let mut own = Command::new(tools.join("bin/cargo-deny"));
    own.current_dir(workspace::root());
    if answers(&installed) {
        return Ok(Some(installed));
    }
    if !answers(&own) {
        // It runs for a second: optimizing it would take longer than that.
        let mut install = cargo();
        install
            .args([
                "install",
                "cargo-deny",
                "--locked",
                "--version",
                VERSION,
                "--root",
            ])
            .arg(&tools);
        install
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        install.env("CARGO_TARGET_DIR", tools.join("build"));
        if let Err(error) = shell::run(&mut install) {
            eprintln!(
                "   cannot install cargo-deny ({error:#}): checking the most important part without it"
            );
            return Ok(None);
        }
        // Hundreds of megabytes that nobody needs again.
        let _ = fs::remove_dir_all(tools.join("build"));
    }
    Ok(Some(own))
}

/// Whether this is a cargo-deny that runs.
fn answers(command: &Command) -> bool {
    let mut probe = Command::new(command.get_program());
    probe.args(command.get_args()).arg("--version");
    probe.stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

fn check(policy: &Policy, metadata: &Metadata) -> Vec<String> {
    let mut problems = Vec::new();
    for package in &metadata.packages {
        let shown = format!("{} {}", package.name, package.version);
        match &package.license {
            None => problems.push(format!("{shown} names no licence")),
            Some(license) if !is_allowed(license, &policy.licenses.allow) => {
                problems.push(format!("{shown}: licence `{license}` is not allowed"));
            }
            Some(_) => {}
        }
        if let Some(source) = &package.source {
            let source = source.trim_start_matches("registry+");
            if !policy
                .sources
                .allow_registry
                .iter()
                .any(|allowed| allowed == source)
            {
                problems.push(format!("{shown} comes from {source}"));
            }
        }
    }
    let by_name: BTreeMap<_, _> = policy
        .bans
        .deny
        .iter()
        .map(|ban| (ban.name.as_str(), ban))
        .collect();
    // What cargo-deny calls a wrapper may still depend on a banned crate directly.
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            let Some(ban) = by_name.get(dependency.name.as_str()) else {
                continue;
            };
            let is_ours = package.source.is_none();
            if is_ours && !ban.wrappers.contains(&package.name) {
                problems.push(format!(
                    "{} uses {}: {}",
                    package.name, ban.name, ban.reason
                ));
            }
        }
    }
    problems
}

/// Whether a licence expression can be satisfied with allowed licences. SPDX, and the `/` of old manifests for OR.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        words: &words,
        allowed,
    };
    parser.alternatives() == Some(true) && parser.words.is_empty()
}

struct Parser<'a> {
    words: &'a [&'a str],
    allowed: &'a [String],
}

impl Parser<'_> {
    fn take(&mut self, word: &str) -> bool {
        let found = self.words.first() == Some(&word);
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn alternatives(&mut self) -> Option<bool> {
        let mut satisfied = self.conjunction()?;
        while self.take("OR") {
            satisfied |= self.conjunction()?;
        }
        Some(satisfied)
    }

    fn conjunction(&mut self) -> Option<bool> {
        let mut satisfied = self.term()?;
        while self.take("AND") {
            satisfied &= self.term()?;
        }
        Some(satisfied)
    }

    fn term(&mut self) -> Option<bool> {
        if self.take("(") {
            let inner = self.alternatives()?;
            return self.take(")").then_some(inner);
        }
        let (&license, rest) = self.words.split_first()?;
        self.words = rest;
        let mut license = license.to_owned();
        if self.take("WITH") {
            let (&exception, rest) = self.words.split_first()?;
            self.words = rest;
            license = format!("{license} WITH {exception}");
        }
        Some(self.allowed.contains(&license))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_spdx_says() {
        let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        for (expression, expected) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("MIT OR GPL-3.0-only", true),
            ("MIT AND GPL-3.0-only", false),
            ("GPL-3.0-only/MIT", true),
            ("ISC AND (GPL-3.0-only OR MIT)", true),
            ("ISC AND (GPL-3.0-only OR MIT) AND OpenSSL", false),
            ("GPL-3.0-only AND MIT OR ISC", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("", false),
        ] {
            assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
        }
    }
}
