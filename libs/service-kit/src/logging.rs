//! Log output: standard error, text or JSON.

use crate::{CommonArgs, ConfigError, LogFormat};
use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;

/// What is logged when nothing else is asked for.
const DEFAULT_FILTER: &str = "info";

/// Starts logging for the whole process, to standard error. A second call changes nothing.
///
/// # Errors
/// When the filter cannot be parsed.
pub fn init_logging(args: &CommonArgs) -> Result<(), ConfigError> {
    let filter = args.log.as_deref().unwrap_or(DEFAULT_FILTER);
    let filter = EnvFilter::builder().parse(filter).map_err(|error| {
        let remedy = "use a level (error, warn, info, debug, trace) or target=level,…";
        ConfigError::of_field("--log", filter, error, remedy)
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    // An error here means that a subscriber is set already, as in tests.
    let _ = match args.log_format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
