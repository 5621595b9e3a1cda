//! The flags that every service has.

use crate::{ConfigError, load_config};
use clap::{Args, ValueEnum};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// To be flattened into a service's own arguments: `#[command(flatten)] common: CommonArgs`.
#[derive(Args, Clone, Debug, Default)]
pub struct CommonArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "TURNPIKE_CONFIG")]
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
