//! Parse, run, exit code.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use dns_signal::app;
use dns_signal::cli::Cli;
use dns_signal::config::Config;
use dns_signal::interception::resolv_conf;
use service_kit::Capability;

/// For the TUN device and its routes, and for port 53.
const CAPABILITIES: [Capability; 2] = [Capability::CAP_NET_ADMIN, Capability::CAP_NET_BIND_SERVICE];

fn main() -> ExitCode {
    let cli: Cli = match service_kit::parse_args() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if let Some([directory, run]) = cli.guard_resolv_conf.as_deref() {
        let guarded = resolv_conf::guard(Path::new(directory), run);
        return service_kit::report(None, guarded.map_err(Into::into));
    }
    // Before any thread is started: they inherit it.
    if let Err(error) = service_kit::drop_capabilities(&CAPABILITIES) {
        return service_kit::report(None, Err(error.into()));
    }
    service_kit::main("dns-signal", &cli.common, || async {
        let config = Config::load(cli.common.config_file()?)?;
        app::run(config).await
    })
}
