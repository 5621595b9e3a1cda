//! Reading a TOML config file, with errors that say where and what to do.

use crate::{ConfigError, locate};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Larger files are refused unread: a config is kilobytes, a wrong path may be a disk.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Reads a config file of at most 1 MiB. `T` should refuse unknown fields (`#[serde(deny_unknown_fields)]`).
///
/// # Errors
/// One line naming file, line and field: the file cannot be read, is no TOML, has an unknown key (the nearest known one
/// is suggested), lacks a required one, or has a value of the wrong type.
pub fn load_config<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let text = read_config(path)?;
    parse_config(path, &text)
}

/// As [`load_config`] for text that was read already; `path` is only named in errors.
///
/// # Errors
/// As [`load_config`], except for reading.
pub fn parse_config<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| explain(path, text, &error))
}

/// The text of a config file, for [`parse_config`].
///
/// # Errors
/// As [`load_config`], for reading.
pub fn read_config(path: &Path) -> Result<String, ConfigError> {
    let at =
        |problem: String, remedy: &str| ConfigError::without_field(problem, remedy).at(path, None);
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => at(
            "the file does not exist".into(),
            "create it, or name another with --config FILE",
        ),
        _ => at(
            format!("cannot read the file: {error}"),
            "check path and permissions",
        ),
    })?;
    if !metadata.is_file() {
        return Err(at("not a regular file".into(), "name a TOML file"));
    }
    if metadata.len() > MAX_CONFIG_BYTES {
        return Err(at(
            format!("{} bytes is too large", metadata.len()),
            "a config file has at most 1 MiB",
        ));
    }
    std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            at("the file is not UTF-8 text".into(), "name a TOML file")
        }
        _ => at(
            format!("cannot read the file: {error}"),
            "check path and permissions",
        ),
    })
}

fn explain(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span();
    let line = span.as_ref().map(|span| locate::line_at(text, span.start));
    let message = one_line(error.message());
    // None: the text is no TOML at all, so that there are no fields.
    let field = span.as_ref().and_then(|span| locate::field_at(text, span));
    let Some(field) = field else {
        if toml::de::DeTable::parse(text).is_ok() {
            return ConfigError::without_field(message, "").at(path, line);
        }
        let problem = format!("not valid TOML: {message}");
        return ConfigError::without_field(problem, "correct the line").at(path, line);
    };

    if let Some(unknown) = between(&message, "unknown field `", "`") {
        let known = expected_names(&message);
        let remedy = match nearest(unknown, &known) {
            Some(name) => format!("did you mean `{name}`?"),
            None if known.is_empty() => "remove it".to_owned(),
            None => format!("known here: {}", known.join(", ")),
        };
        return ConfigError::without_field("unknown key", remedy)
            .with_field(field)
            .at(path, line);
    }
    if let Some(missing) = between(&message, "missing field `", "`") {
        let field = join(&field, missing);
        return ConfigError::without_field("missing", "add it")
            .with_field(field)
            .at(path, line);
    }
    let value = span.and_then(|span| text.get(span)).map(shorten);
    let error = if field.is_empty() {
        ConfigError::without_field(message, "")
    } else {
        ConfigError::without_field(message, "correct the value").with_field(field)
    };
    error.with_value(value).at(path, line)
}

fn join(table: &str, name: &str) -> String {
    if table.is_empty() {
        name.to_owned()
    } else {
        format!("{table}.{name}")
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value as written, without quotes, at most 60 characters.
fn shorten(value: &str) -> String {
    let value = one_line(value);
    let value = value.trim_matches(['"', '\'']);
    match value.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// serde's "expected one of `a`, `b`" or "expected `a`", as names.
fn expected_names(message: &str) -> Vec<&str> {
    let Some((_, expected)) = message.split_once(", expected ") else {
        return Vec::new();
    };
    expected.split('`').skip(1).step_by(2).collect()
}

/// The known name that `unknown` most likely stands for: at most a third of it differs.
fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    if unknown.len() > 100 {
        return None;
    }
    let (distance, name) = known
        .iter()
        .map(|name| (distance(unknown, name), *name))
        .min()?;
    (distance <= (unknown.len() / 3).max(1)).then_some(name)
}

/// Edit distance in which a letter more, less, other, or two letters exchanged count 1; `_` and `-` are the same.
fn distance(a: &str, b: &str) -> usize {
    let normal = |text: &str| text.to_lowercase().replace('_', "-").into_bytes();
    let (a, b) = (normal(a), normal(b));
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                table[i][j] = i + j;
                continue;
            }
            let other = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = other.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(table[i - 2][j - 2] + 1);
            }
            table[i][j] = least;
        }
    }
    table[a.len()][b.len()]
}
