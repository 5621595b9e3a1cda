//! `cargo xtask tidy`: the house rules that a program can check.
use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use crate::shell;
use crate::workspace::{metadata, text_files};

mod conformance;
mod documents;
mod grafana;
mod layers;
mod operations;
mod sources;

/// Something that is not as it should be: where, and what.
type Problem = String;

/// All text files, by their path relative to the root.
type Files = BTreeMap<String, String>;

pub(crate) fn run() -> Result<()> {
    shell::heading("House rules");
    let files = text_files()?;
    let metadata = metadata(&["--no-deps"])?;
    let members: Vec<_> = metadata.members().collect();
    let problems = [
        sources::check(&files, &members),
        layers::check(&files, &members),
        documents::check(&files, &members),
        operations::check(&files),
        grafana::check(&files),
        conformance::check(&files, &members),
    ]
    .concat();
    for problem in &problems {
        eprintln!("   {problem}");
    }
    ensure!(
        problems.is_empty(),
        "{} things are not as the house wants them",
        problems.len()
    );
    eprintln!("   {} files, {} crates: fine", files.len(), members.len());
    Ok(())
}
