//! Secrets come from files, are not printed, and are wiped after use.

use crate::ConfigError;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use zeroize::Zeroizing;

/// Larger files are not secrets of ours.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A secret text. `Debug` does not show it; memory is wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// The text itself: not for logs, not for errors.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// As [`read_secret_file`], for the file that a field of the configuration names.
///
/// # Errors
/// The same, called by the field.
pub fn read_secret_of_field(field: &str, path: &Path) -> Result<Secret, ConfigError> {
    read_secret_file(path).map_err(|error| error.naming(field, path))
}

/// Reads a secret of at most 64 KiB, without white space at its ends. Warns in the log when the file's mode lets
/// anyone but its owner read it (it should be 0600).
///
/// # Errors
/// When the file cannot be read or is empty; the error names the file, never its content.
pub fn read_secret_file(path: &Path) -> Result<Secret, ConfigError> {
    let at =
        |problem: String, remedy: &str| ConfigError::without_field(problem, remedy).in_file(path);
    let metadata = std::fs::metadata(path).map_err(|error| {
        at(
            format!("cannot read the secret: {error}"),
            "check path and permissions",
        )
    })?;
    if !metadata.is_file() || metadata.len() > MAX_SECRET_BYTES {
        return Err(at(
            "not a secret file".into(),
            "name a regular file of at most 64 KiB",
        ));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            file = %path.display(),
            mode = %format_args!("{mode:04o}"),
            "others can read this secret; set its mode to 0600"
        );
    }
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| {
            at(
                format!("cannot read the secret: {error}"),
                "check path and permissions",
            )
        })?;
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(at(
            "the secret is empty".into(),
            "write the secret into the file",
        ));
    }
    Ok(Secret::new(trimmed.to_owned()))
}
