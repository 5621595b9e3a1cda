//! The flags that every service has.

use crate::{ConfigError, EXIT_CONFIG, load_config};
use clap::{Args, Parser, ValueEnum};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// To be flattened into a service's own arguments: `#[command(flatten)] common: CommonArgs`.
#[derive(Args, Clone, Debug, Default)]
pub struct CommonArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "TURNPIKE_CONFIG", global = true)]
    pub config: Option<PathBuf>,

    /// What to log, for example "info" or "info,dns_signal=debug" [default: info]
    #[arg(long, value_name = "FILTER", env = "TURNPIKE_LOG")]
    pub log: Option<String>,

    /// How to log: for people or for machines
    #[arg(
        long,
        value_enum,
        value_name = "FORMAT",
        env = "TURNPIKE_LOG_FORMAT",
        default_value_t
    )]
    pub log_format: LogFormat,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl CommonArgs {
    /// The config file, for a service that cannot do without one.
    ///
    /// # Errors
    /// When neither the flag nor the environment names a file.
    pub fn config_file(&self) -> Result<&Path, ConfigError> {
        self.config.as_deref().ok_or_else(|| {
            ConfigError::without_field("--config: no configuration file given", "add --config FILE")
        })
    }

    /// Reads the config file, for a service that cannot do without one.
    ///
    /// # Errors
    /// As [`load_config`], and when no file is named.
    pub fn load<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        load_config(self.config_file()?)
    }
}

/// Reads the process's flags and environment.
///
/// # Errors
/// The code to exit with: wrong flags have been printed as one line, `error: …` (64); help or version were asked for and
/// have been printed (0).
pub fn parse_args<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        if !error.use_stderr() {
            // Nothing can be done when standard output is closed.
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        eprintln!("{}", one_line(&error));
        ExitCode::from(EXIT_CONFIG)
    })
}

/// clap's text without its usage section.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let parts = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"));
    let parts: Vec<_> = parts
        .filter(|line| !line.is_empty() && !line.starts_with("For more"))
        .collect();
    parts.join("; ").replace(":; ", ": ") + "; see --help"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        common: CommonArgs,
    }

    #[test]
    fn wrong_flags_are_said_in_one_line() {
        let error = Cli::try_parse_from(["demo", "--log-format", "xml"]).unwrap_err();
        assert_eq!(
            one_line(&error),
            "error: invalid value 'xml' for '--log-format <FORMAT>'; [possible values: text, json]; see --help"
        );
        let error = Cli::try_parse_from(["demo", "--confg", "x"]).unwrap_err();
        let line = one_line(&error);
        assert!(
            line.starts_with("error: unexpected argument '--confg' found; "),
            "{line}"
        );
        assert!(
            Cli::try_parse_from(["demo", "--config", "x"])
                .unwrap()
                .common
                .config
                .is_some()
        );
    }
}
