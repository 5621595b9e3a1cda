//! Everything that must hold before a change lands.
use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::cargo;
use crate::{deny, shell, testing, tidy};

type Gate = (&'static str, fn() -> Result<()>);

/// In the order of what is known soonest.
const GATES: [Gate; 5] = [
    ("fmt", format),
    ("tidy", tidy::run),
    ("deny", deny::run),
    ("clippy", lint),
    ("doc", document),
];

/// Goes through all gates and all tests whatever fails on the way: one run tells everything.
pub(crate) fn run() -> Result<ExitCode> {
    let mut failed = Vec::new();
    for (name, gate) in GATES {
        if let Err(error) = gate() {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    testing::run(&testing::Request {
        parts: testing::Parts::All,
        failed_before: &failed,
        committed: true,
        ..Default::default()
    })
}

/// The documentation is for those who read the code beside it: it may name private items.
const DOC_FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

fn format() -> Result<()> {
    shell::heading("Format");
    shell::run(cargo().args(["fmt", "--all", "--check"]))
}

fn lint() -> Result<()> {
    shell::heading("Lints");
    let what = ["clippy", "--workspace", "--all-targets", "--locked"];
    shell::run(cargo().args(what).args(["--", "-D", "warnings"]))
}

fn document() -> Result<()> {
    shell::heading("Documentation");
    let what = ["doc", "--workspace", "--no-deps", "--locked"];
    shell::run(cargo().args(what).env("RUSTDOCFLAGS", DOC_FLAGS))
}
