//! Parse, run, exit code.

use std::process::ExitCode;

use dns_signal::app;
use dns_signal::cli::Cli;
use dns_signal::config::Config;

fn main() -> ExitCode {
    let cli: Cli = match service_kit::parse_args() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    service_kit::main("dns-signal", &cli.common, || async {
        let config = Config::load(cli.common.config_file()?)?;
        app::run(config).await
    })
}
