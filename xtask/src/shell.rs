//! Showing what is done, and doing it.
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// A line that says what comes next.
pub(crate) fn heading(text: &str) {
    eprintln!("\n== {text}");
}

/// Runs a command with its output shown; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = shown(command);
    let begin = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "{shown} failed ({status})");
    eprintln!("   {shown}: {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// The command as one would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default();
    let words = command.get_args().map(|word| word.to_string_lossy());
    words.fold(program.to_owned(), |text, word| text + " " + &word)
}
