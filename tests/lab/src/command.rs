//! Running the system's own tools, with errors that say what was run and what it said.
use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a tool to its end; anything but success is an error with its standard error.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, args: &[S]) -> Result<Output> {
    run_with_input(program, args, "")
}

/// The same, with something to read on standard input.
pub(crate) fn run_with_input<S: AsRef<OsStr>>(
    program: &str,
    args: &[S],
    input: &str,
) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(args);
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!(
                "cannot run `{program}`: is it installed? (Debian: {})",
                package_of(program)
            )
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends before it read everything says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("waiting for {shown}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let script = if input.is_empty() {
            String::new()
        } else {
            format!("\nits input was:\n{input}")
        };
        bail!(
            "{shown} failed ({}): {}{script}",
            output.status,
            said.trim()
        );
    }
    Ok(output)
}

fn package_of(program: &str) -> &str {
    match program {
        "ip" => "iproute2",
        "nft" => "nftables",
        "dnsmasq" => "dnsmasq-base",
        "ping" => "iputils-ping",
        "dig" => "bind9-dnsutils",
        other => other,
    }
}
