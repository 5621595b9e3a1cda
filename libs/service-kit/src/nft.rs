//! The program `nft`, which changes the kernel's rules for the services that need it.

use std::{
    io,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, anyhow};

/// Starts it: its standard input takes commands, its standard error says what it refuses.
///
/// # Errors
/// When there is no such program or it cannot be started; says what to do.
pub fn spawn(arguments: &[&str]) -> anyhow::Result<Child> {
    let spawned = Command::new("nft")
        .args(arguments)
        // It would write what it was told to a file there.
        .env_remove("HOME")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(anyhow!("there is no `nft` program; install nftables"))
        }
        spawned => spawned.context("cannot run `nft`"),
    }
}

/// Why it refused, from what it wrote to standard error.
pub fn refusal(said: &str) -> anyhow::Error {
    let first = said.lines().find(|line| line.contains("rror"));
    let reason = first.unwrap_or("it failed and did not say why").trim();
    if reason.contains("not permitted") {
        return anyhow!(
            "`nft` is not permitted to change rules: run as root or with CAP_NET_ADMIN ({reason})"
        );
    }
    anyhow!("`nft`: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_the_first_error_and_says_what_to_do() {
        let said = "warning: old\ninternal:0:0-0: Error: Could not process rule: Operation not permitted\nError: two\n";
        let error = refusal(said).to_string();
        assert!(error.contains("CAP_NET_ADMIN"), "{error}");
        assert!(!error.contains("two"), "{error}");
        assert_eq!(
            refusal(" Error: syntax\n").to_string(),
            "`nft`: Error: syntax"
        );
        assert!(refusal("").to_string().contains("did not say why"));
    }
}
