//! Starts discovery: parse, run, exit code.

#![forbid(unsafe_code)]

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use discovery::{App, Config};
use service_kit::CommonArgs;

/// The directory of a Turnpike mesh
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    service_kit::main("discovery", &args.common, || run(&args))
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let path = args.common.config_file()?;
    let config: Config = service_kit::load_config(path)?;
    let time = Arc::new(|| net::Clock.unix_time());
    let app = App::start(&config, time)
        .await
        .map_err(|error| error.in_file(path))?;
    app.run(async {
        // Without signals there is only the hard way to stop us.
        if service_kit::shutdown_signal().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
    .await
}
