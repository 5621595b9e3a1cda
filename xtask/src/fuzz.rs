//! `cargo xtask fuzz`: searches for input that breaks turn-relay, with libFuzzer, on the stable compiler.
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::shell;
use crate::workspace::{cargo, root, target_directory};

/// Where the kept inputs are, by target.
const CORPUS: &str = "tests/fuzz/corpus";
/// LLVM's counters at every edge, and what comparisons are made with: what cargo-fuzz asks of a nightly compiler, in words
/// that the stable one knows too. Overflows are found as well.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "-Coverflow-checks",
];
/// Build scripts and macros are built without the flags when a platform is named.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Searches one target, or each in turn, for so many seconds of its own; everything found is left in the target directory.
pub(crate) fn run(target: Option<&str>, seconds: u32, keep: bool) -> Result<()> {
    let program = build()?;
    let targets: Vec<String> = match target {
        Some(target) => vec![target.to_owned()],
        None => targets()?,
    };
    for target in &targets {
        shell::heading(&format!("{target}, {seconds} s"));
        let kept = root().join(CORPUS).join(target);
        if !kept.is_dir() {
            bail!("no target is called {target}: {}", targets.join(", "));
        }
        let own = target_directory()?.join("fuzz-corpus").join(target);
        let found = target_directory()?.join("fuzz-found").join(target);
        fs::create_dir_all(&own).with_context(|| own.display().to_string())?;
        fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        let mut command = std::process::Command::new(&program);
        command.env("TURNPIKE_FUZZ_TARGET", target);
        if keep {
            // Of the search's corpus, what reaches code that the kept one does not.
            command
                .args(["-merge=1", "-max_len=600"])
                .args([&kept, &own]);
        } else {
            command
                .arg(format!("-max_total_time={seconds}"))
                .arg(format!("-artifact_prefix={}/", found.display()))
                .args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=4096"])
                .args(["-print_final_stats=1", "-verbosity=1"])
                .args([&own, &kept]);
        }
        shell::run(&mut command)?;
    }
    Ok(())
}

fn build() -> Result<PathBuf> {
    let directory = target_directory()?.join("fuzz");
    let mut command = cargo();
    command
        .args(["build", "--release", "--locked", "--target", PLATFORM])
        .args(["--package", "turnpike-fuzz", "--bin", "search"])
        .args(["--features", "search", "--target-dir"])
        .arg(&directory)
        .env("RUSTFLAGS", FLAGS.join(" "));
    shell::run(&mut command)?;
    Ok(directory.join(PLATFORM).join("release/search"))
}

/// Each has a directory of kept inputs.
fn targets() -> Result<Vec<String>> {
    let entries = fs::read_dir(root().join(CORPUS)).context(CORPUS)?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
