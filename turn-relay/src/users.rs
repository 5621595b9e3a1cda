//! Lines of a users file: `NAME:PASSWORD`, or `NAME:$turn$MD5$SHA256$REALM` with the keys that the password has in a realm,
//! in hexadecimal digits. And the command that writes the second from the first.

use crate::cli::UserCommand;
use anyhow::Context;
use service_kit::{ConfigError, Secret};
use std::io::{BufRead, Write};
use std::path::Path;
use turn_relay_proto::{Credentials, HashedPassword};

/// What a hashed password begins with; no password in the clear may.
const HASHED: &str = "$turn$";

/// Adds all users of a file's text.
///
/// # Errors
/// Names file and line, never what is in it.
pub(crate) fn add_users(
    credentials: &mut Credentials,
    path: &Path,
    text: &Secret,
) -> Result<(), ConfigError> {
    let lines = text.expose().lines().map(str::trim).zip(1..);
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    for (line, number) in lines {
        let field = format!("line {number}");
        add_user(credentials, &field, line).map_err(|error| error.in_file(path))?;
    }
    Ok(())
}

/// Adds the user of one line.
///
/// # Errors
/// Names the field, never what is in it.
pub(crate) fn add_user(
    credentials: &mut Credentials,
    field: &str,
    line: &str,
) -> Result<(), ConfigError> {
    // Without the value: it may be a password.
    let wrong = |problem: &str, remedy: &str| ConfigError::of_field(field, "…", problem, remedy);
    let both = line.split_once(':');
    let both = both.filter(|(name, password)| !name.is_empty() && !password.is_empty());
    let Some((name, password)) = both else {
        return Err(wrong("not a name and a password", "write NAME:PASSWORD"));
    };
    let Some(hashed) = password.strip_prefix(HASHED) else {
        credentials.add_user(name, password);
        return Ok(());
    };
    let remedy = "write what `turn-relay user hash NAME --realm REALM` prints";
    let (keys, realm) =
        read_hashed(hashed).ok_or_else(|| wrong("not a hashed password", remedy))?;
    if realm != credentials.realm() {
        let problem = format!(
            "hashed for the realm `{realm}`, and this relay's is `{}`",
            credentials.realm()
        );
        return Err(wrong(&problem, remedy));
    }
    credentials.add_hashed_user(name, &keys);
    Ok(())
}

fn read_hashed(text: &str) -> Option<(HashedPassword, &str)> {
    let (md5, rest) = text.split_once('$')?;
    let (sha256, realm) = rest.split_once('$')?;
    let keys = HashedPassword {
        md5: read_hex(md5)?,
        sha256: read_hex(sha256)?,
    };
    Some((keys, realm))
}

/// So many bytes in hexadecimal digits.
pub(crate) fn read_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut bytes = [0; N];
    if !is_hex || text.len() != 2 * N {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

fn hashed_line(name: &str, realm: &str, password: &str) -> String {
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let keys = HashedPassword::new(name, realm, password);
    let (md5, sha256) = (hex(&keys.md5), hex(&keys.sha256));
    format!("{name}:{HASHED}{md5}${sha256}${realm}")
}

/// Does what the command says.
///
/// # Errors
/// When there is no password, or the name or realm could not stand in a line.
pub(crate) fn run(command: &UserCommand) -> anyhow::Result<()> {
    let UserCommand::Hash { name, realm } = command;
    let realm = crate::config::realm_name("realm", realm)?;
    if name.is_empty() || name.contains([':', '\n']) || name.trim() != name {
        let remedy = "use one without colon, and without spaces at its ends";
        return Err(ConfigError::of_field("NAME", name, "not a name", remedy).into());
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.context("no password on standard input")?;
    let password = Secret::new(line.trim_end_matches(['\r', '\n']).to_owned());
    anyhow::ensure!(
        !password.expose().is_empty(),
        "no password on standard input"
    );
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", hashed_line(name, &realm, password.expose()))?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn credentials(line: &str) -> Result<Credentials, ConfigError> {
        let mut credentials = Credentials::new("we$t");
        add_user(&mut credentials, "line 1", line).map(|()| credentials)
    }

    #[test]
    fn a_hashed_line_stands_for_the_same_user_as_the_password() {
        let line = hashed_line("alice", "we$t", "wonder:land");
        assert!(!line.contains("wonder"));
        let hashed = credentials(&line).unwrap();
        let plain = credentials("alice:wonder:land").unwrap();
        assert_eq!(hashed.changes_from(&plain), Default::default());
        let other = credentials("alice:wonder:lan").unwrap();
        assert_eq!(hashed.changes_from(&other).users_changed, 1);
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_and_not_what_is_in_it() {
        let foreign = hashed_line("alice", "east", "wonderland");
        let short = hashed_line("alice", "we$t", "wonderland").replace("$we$t", "");
        for (line, problem) in [
            (&*foreign, "hashed for the realm `east`"),
            (&*short, "not a hashed password"),
            ("alice:$turn$", "not a hashed password"),
            ("alice", "NAME:PASSWORD"),
            (":x", "NAME:PASSWORD"),
        ] {
            let error = credentials(line).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            assert!(!error.contains("alice"), "{error}");
        }
    }
}
