//! From `fn main` to the exit code.

use crate::{CommonArgs, ConfigError, init_logging};
use std::fmt::Write as _;
use std::future::Future;
use std::path::Path;
use std::process::ExitCode;

/// The configuration is at fault; a restart will not help (`EX_USAGE` of sysexits.h).
pub const EXIT_CONFIG: u8 = 64;
/// Anything else went wrong.
pub const EXIT_FAILURE: u8 = 1;

/// Runs a service: logging, a multi-threaded tokio runtime, then `run` until it returns. An error is printed as one
/// line and becomes exit code 64 or 1, see [`report`].
///
/// `name` is the service's, for the first log line. Tasks that still run when `run` returns are abandoned.
pub fn main<F, Fut>(name: &str, args: &CommonArgs, run: F) -> ExitCode
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    report(args.config.as_deref(), start(name, args, run))
}

fn start<F, Fut>(name: &str, args: &CommonArgs, run: F) -> anyhow::Result<()>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    init_logging(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    tracing::info!(service = name, pid = std::process::id(), "starting");
    let result = runtime.block_on(run());
    // A task that blocks on a file or a device must not hold up the end.
    runtime.shutdown_background();
    if result.is_ok() {
        tracing::info!(service = name, "stopped");
    }
    result
}

/// Prints an error as `error: outer: inner: …` in one line on standard error, and gives the exit code: 0, 64 for a
/// [`ConfigError`] anywhere in the chain, 1 otherwise. `config` is named when the `ConfigError` has no file itself.
pub fn report(config: Option<&Path>, result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{}", describe(config, &error));
    ExitCode::from(exit_code(&error))
}

fn config_error(error: &anyhow::Error) -> Option<&ConfigError> {
    error.chain().find_map(|cause| cause.downcast_ref())
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match config_error(error) {
        Some(error) if !error.is_transient() => EXIT_CONFIG,
        _ => EXIT_FAILURE,
    }
}

fn describe(config: Option<&Path>, error: &anyhow::Error) -> String {
    let mut line = "error".to_owned();
    let mut last = String::new();
    for cause in error.chain() {
        let text = match (cause.downcast_ref::<ConfigError>(), config) {
            (Some(error), Some(config)) if error.field().is_some() && !error.has_file() => {
                error.clone().in_file(config).to_string()
            }
            _ => cause.to_string(),
        };
        // Some errors print their source themselves.
        if !last.contains(&text) {
            let _ = write!(line, ": {text}");
            last = text;
        }
    }
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
